# SPDX-License-Identifier: Apache-2.0
"""Remove each defence of the code in turn: some test must fail.

    python -m imagecache.tests.mutation [--list] [--every N] [WORD...]

The check works on a copy of the package.  It removes one defence and runs the
tests of the module that has it.  If they pass, the defence is untested.  Every
rule in a table and every statement that raises is a defence; table.py lists
the others.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
from collections.abc import Iterator

import imagecache
from imagecache.tests.mutation import table

PACKAGE = pathlib.Path(imagecache.__file__).parent


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A defence, and the source of its module without it."""

    name: str
    module: str                  # a path in the package
    source: str                  # of the module, without the defence
    tests: tuple[str, ...]       # modules of imagecache.tests


def mutations() -> Iterator[Mutation]:
    """Yield all mutations."""
    for module, tests in table.TESTS.items():
        source = (PACKAGE / module).read_text()
        yield from _rules(module, source, tests)
        yield from _marks(module, source, tests)
        yield from _raises(module, source, tests)
    for change in table.CHANGES:
        source = (PACKAGE / change.module).read_text()
        if source.count(change.old) != 1:
            raise ValueError(f"{change.name} is {source.count(change.old)}"
                             f" times in {change.module}: {change.old!r}")
        yield Mutation(f"{change.module}: {change.name}", change.module,
                       source.replace(change.old, change.new), change.tests)


def _rules(module: str, source: str,
           tests: tuple[str, ...]) -> Iterator[Mutation]:
    """Yield mutations in which a rule, or a part of one, always holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Rule":
            name = ast.literal_eval(node.args[0])
            for part, by in _parts(node.args[2]):
                what = " ".join(ast.unparse(part).split())
                yield Mutation(f"{module}: {name}: {what}", module,
                               _replaced(source, part, by), tests)


def _marks(module: str, source: str,
           tests: tuple[str, ...]) -> Iterator[Mutation]:
    """Yield mutations in which the mark of one format is not known."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) \
                and isinstance(node.value, ast.Dict) \
                and ast.unparse(node.target) == "MAGIC":
            for name, value in zip(node.value.keys, node.value.values,
                                   strict=True):
                assert name is not None
                yield Mutation(f"{module}: {ast.literal_eval(name)}", module,
                               _replaced(source, value, '(0, b"never" * 9)'),
                               tests)


def _parts(holds: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """Yield each condition of a rule, and "true" in its syntax."""
    if not isinstance(holds, ast.Lambda):
        yield holds, "lambda _: True"
    else:
        for part in _conditions(holds.body):
            yield part, "True"


def _conditions(condition: ast.expr) -> Iterator[ast.expr]:
    if isinstance(condition, ast.BoolOp) and isinstance(condition.op,
                                                        ast.And):
        for each in condition.values:
            yield from _conditions(each)
    else:
        yield condition


def _raises(module: str, source: str,
            tests: tuple[str, ...]) -> Iterator[Mutation]:
    """Yield mutations in which a statement does not raise."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        found = sorted((node for node in ast.walk(function)
                        if isinstance(node, ast.Raise) and node.exc),
                       key=lambda node: node.lineno)
        for i, node in enumerate(found):
            number = f" {i + 1} of {len(found)}" if len(found) > 1 else ""
            yield Mutation(f"{module}: {function.name}(){number}", module,
                           _replaced(source, node, "pass"), tests)


def _replaced(source: str, node: ast.expr | ast.stmt, by: str) -> str:
    """Return a source in which a node is replaced."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno and node.end_col_offset is not None
    before = b"".join(lines[:node.lineno - 1]) \
        + lines[node.lineno - 1][:node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset:] \
        + b"".join(lines[node.end_lineno:])
    return (before + by.encode() + after).decode()
