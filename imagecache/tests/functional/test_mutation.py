# SPDX-License-Identifier: Apache-2.0
"""A few defences are taken away, and tests fail.

``python -m imagecache.tests.mutation`` takes each defence away.
"""

from __future__ import annotations

from imagecache.tests import base
from imagecache.tests.mutation import mutations, table
from imagecache.tests.mutation.runner import Copy

FEW = 12


class MutationTest(base.TestCase):

    def test_without_a_defence_its_tests_fail(self) -> None:
        # Those that unit tests notice, from all over the table.
        found = [each for each in mutations() if each.name not in table.SPARED
                 and all(test.startswith("unit.") for test in each.tests)]
        with Copy() as copy:
            for mutation in found[::len(found) // FEW]:
                with self.subTest(mutation.name), copy.without(mutation):
                    self.assertIsNotNone(copy.failure(mutation.tests))

    def test_with_all_defences_the_tests_pass(self) -> None:
        """Otherwise the first test would pass without reason."""
        with Copy() as copy:
            self.assertIsNone(copy.failure(table.TESTS["formats/qcow2.py"]))
