# SPDX-License-Identifier: Apache-2.0
"""The page of the flows names tests, and they are there."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

from imagecache import tests
from imagecache.tests import base
from imagecache.tests.functional import rows

TESTS = pathlib.Path(tests.__file__).parent
PAGE = TESTS.parents[1] / "doc" / "source" / "rows.rst"


class RowsPageTest(base.TestCase):

    def test_every_test_that_it_names_exists(self) -> None:
        named = set(re.findall(r"``(test_\w+\.test_\w+)``",
                               PAGE.read_text()))
        self.assertGreater(len(named), 20)
        self.assertEqual(set(), named - set(there()))

    def test_every_module_of_rows_is_on_it(self) -> None:
        page = PAGE.read_text()
        for path in TESTS.glob("functional/test_rows_*.py"):
            self.assertIn(f"``{path.stem}.", page)

    def test_the_row_that_it_shows_is_the_one_that_runs(self) -> None:
        steps = [*rows.FETCH_RAW, rows.overlay("raw"), *rows.APPEAR]
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
