# SPDX-License-Identifier: Apache-2.0
"""The tests of the examples pass, as they do for a user who installs them."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import sys
import tomllib
from collections.abc import Iterator

import fixtures

import imagecache
from imagecache import backends
from imagecache.tests import base

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "examples"
REFERENCE = EXAMPLES.parent / "doc" / "source" / "reference.rst"


def load(directory, name):
    """Return the module of an example, which can import its neighbours."""
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(directory))


class Installed(fixtures.Fixture):
    """The example backend, as after its installation by pip."""

    def _setUp(self):
        site = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        project = tomllib.loads(
            (EXAMPLES / "backend" / "pyproject.toml").read_text())["project"]
        info = site / f"example-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Name: example\nVersion: {project['version']}\n")
        with (info / "entry_points.txt").open("w") as f:
            for group, points in project["entry-points"].items():
                f.write(f"[{group}]\n")
                f.writelines(f"{k} = {v}\n" for k, v in points.items())
        self.useFixture(fixtures.MonkeyPatch(
            "sys.path", [*sys.path, str(site), str(EXAMPLES / "backend")]))
        # stevedore keeps the entry points that it has found before.
        self.useFixture(fixtures.MonkeyPatch(
            "stevedore.extension.ExtensionManager.ENTRY_POINT_CACHE", {}))


class AgentTest(load(EXAMPLES, "test_agent").AgentTest):
    """The test of the example agent passes."""


class StandaloneTest(
        load(EXAMPLES / "backend", "test_standalone").StandaloneTest):

    def setUp(self):
        self.useFixture(Installed())
        super().setUp()

    def test_the_entry_point_names_the_class(self):
        self.assertEqual("standalone.Standalone", ".".join(
            (type(self.make()).__module__, type(self.make()).__name__)))

    def test_a_disk_has_no_base(self):
        self.assertIsNone(self.make().base_key())


class PromisedNamesTest(base.TestCase):
    """The example backend needs only names that the reference promises."""

    def test_every_imported_name_is_in_the_reference(self) -> None:
        found = set(imported_names())
        self.assertIn("imagecache.backends.Qcow2File", found)
        self.assertEqual(set(), found - set(documented_names()))

    def test_every_method_that_it_calls_is_in_the_reference(self) -> None:
        found = set(called_methods())
        self.assertIn("_new", found)
        self.assertEqual(set(), found - set(documented_methods()))


def trees() -> Iterator[ast.AST]:
    for path in sorted(EXAMPLES.glob("backend/*.py")):
        yield ast.parse(path.read_text())


def imported_names() -> Iterator[str]:
    """Yield the full names that the example imports from this library."""
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (each.name for each in node.names
                            if each.name.startswith("imagecache"))
            elif isinstance(node, ast.ImportFrom) \
                    and str(node.module).startswith("imagecache"):
                yield from (f"{node.module}.{each.name}"
                            for each in node.names)


def called_methods() -> Iterator[str]:
    """Yield the methods of its own class that the example does not define."""
    for tree in trees():
        defined = {node.name for node in ast.walk(tree)
                   if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) \
                    and ast.unparse(node.value) == "self" \
                    and node.attr not in defined:
                yield node.attr


def documented_names() -> Iterator[str]:
    """Yield the modules and names of the page, and those of whole modules."""
    yield from (f"imagecache.{name}" for name in imagecache.__all__)
    for kind, name in re.findall(r"^\.\. (\S+):: (imagecache\S*)$",
                                 REFERENCE.read_text(), re.MULTILINE):
        yield name
        if kind == "automodule":
            module = importlib.import_module(name)
            yield from (f"{name}.{each}" for each in vars(module))


def documented_methods() -> Iterator[str]:
    """Yield the methods of disks on the page, and what they inherit."""
    for names in re.findall(r":private-members: (.*)",
                            REFERENCE.read_text()):
        yield from names.split(", ")
    yield from (name for name in dir(backends.Disk)
                if not name.startswith("_"))
