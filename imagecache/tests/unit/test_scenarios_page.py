# SPDX-License-Identifier: Apache-2.0
"""The page of the scenarios names tests, and these tests exist."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

from imagecache import tests
from imagecache.tests import base
from imagecache.tests.functional import scenarios

TESTS = pathlib.Path(tests.__file__).parent
PAGE = TESTS.parents[1] / "doc" / "source" / "scenarios.rst"


class ScenariosPageTest(base.TestCase):

    def test_every_test_that_it_names_exists(self) -> None:
        named = set(re.findall(r"``(test_\w+\.test_\w+)``",
                               PAGE.read_text()))
        self.assertGreater(len(named), 20)
        self.assertEqual(set(), named - set(there()))

    def test_every_module_of_scenarios_is_on_it(self) -> None:
        page = PAGE.read_text()
        for path in TESTS.glob("functional/test_scenarios_*.py"):
            self.assertIn(f"``{path.stem}.", page)

    def test_the_scenario_that_it_shows_is_the_one_that_runs(self) -> None:
        steps = [*scenarios.FETCH_RAW, scenarios.overlay("raw"),
                 *scenarios.APPEAR]
        shown = "".join(f"\n    {step}" for step in steps)
        self.assertTrue(f"{shown}\n\n" in PAGE.read_text(), shown)


def there() -> Iterator[str]:
    """Yield the tests of all suites: module and method."""
    for path in TESTS.glob("*/test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(each, ast.FunctionDef):
                        yield f"{path.stem}.{each.name}"
