# SPDX-License-Identifier: Apache-2.0
"""The manual knows every rule of the code, and no option that is not one."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import imagecache
from imagecache import opts
from imagecache.tests import base

PACKAGE = pathlib.Path(imagecache.__file__).parent
SECURITY = PACKAGE.parent / "doc" / "source" / "security.rst"

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# Of a list-table, the first cell of a row.
_FIRST_CELL = re.compile(r"^    \* - (.*?)(?=^      - )", re.M | re.S)
# The argument that is a rule's name, of what makes a refusal.
_PLACES = {"Rule": 0, "RuleViolation": 0, "_refusal": 1}


class SecurityTest(base.TestCase):

    def test_every_rule_is_explained(self) -> None:
        rules = set(in_code())
        self.assertLess({"claim", "backing-file", "third-opinion",
                         "vmdk-extent", "md5", "base-format"}, rules)
        self.assertEqual(rules, first_column("When an image is refused"))

    def test_every_option_that_weakens_it_exists(self) -> None:
        options = {option.dest for _, group in opts.list_opts()
                   for option in group}
        named = first_column("What weakens it")
        self.assertIn("accepted_formats", named)
        self.assertEqual(set(), named - options)


def in_code() -> Iterator[str]:
    """Yield the names of all rules that an image can break."""
    for path in PACKAGE.rglob("*.py"):
        if {"tests", "testing"} & set(path.relative_to(PACKAGE).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for value in arguments(node):
                    if isinstance(value, ast.Constant) \
                            and _NAME.fullmatch(str(value.value)):
                        yield str(value.value)


def arguments(call: ast.Call) -> Iterator[ast.expr]:
    """Yield those of a call that are the name of a rule."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) \
        else getattr(function, "id", None)
    if name in _PLACES:
        yield from call.args[_PLACES[name]:][:1]
    yield from (each.value for each in call.keywords if each.arg == "rule")


def first_column(title: str) -> set[str]:
    """Return the names in the first column of a section's table."""
    _, found, rest = SECURITY.read_text().partition(f"\n{title}\n===")
    assert found, f"{SECURITY} has no section {title}"
    section = re.split(r"^=+$", rest, maxsplit=2, flags=re.M)[1]
    return {name for cell in _FIRST_CELL.findall(section)
            for name in re.findall(r"``([^`]+)``", cell)}
