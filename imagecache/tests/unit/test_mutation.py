# SPDX-License-Identifier: Apache-2.0
"""The table of defences follows the sources."""

from __future__ import annotations

import ast
import collections

from imagecache.tests import base
from imagecache.tests.mutation import PACKAGE, mutations, table


class MutationsTest(base.TestCase):

    def test_every_defence_in_the_table_is_there(self) -> None:
        names = collections.Counter(each.name for each in mutations())
        self.assertGreater(len(names), 200)
        self.assertEqual([], [name for name, n in names.items() if n > 1])

    def test_what_is_spared_is_there(self) -> None:
        self.assertEqual(set(), table.SPARED.keys()
                         - {each.name for each in mutations()})

    def test_what_is_left_can_be_read(self) -> None:
        for each in mutations():
            with self.subTest(each.name):
                ast.parse(each.source)
                self.assertNotEqual(
                    (PACKAGE / each.module).read_text(), each.source)

    def test_tests_that_guard_are_there(self) -> None:
        tests = {test for each in mutations() for test in each.tests}
        self.assertEqual([], [test for test in tests if not (
            PACKAGE / "tests" / f"{test.replace('.', '/')}.py").is_file()])
