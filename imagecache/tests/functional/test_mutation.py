# SPDX-License-Identifier: Apache-2.0
"""A few defences are taken away, to see that somebody notices.

``python -m imagecache.tests.mutation`` takes each.
"""

from __future__ import annotations

from imagecache.tests import base
from imagecache.tests.mutation import mutations, table
from imagecache.tests.mutation.runner import Copy

FEW = 12


class MutationTest(base.TestCase):

    def test_the_loss_of_a_defence_is_noticed(self) -> None:
        # Those that unit tests notice, from all over the table.
        found = [each for each in mutations() if each.name not in table.SPARED
                 and all(test.startswith("unit.") for test in each.tests)]
        with Copy() as copy:
            for mutation in found[::len(found) // FEW]:
                with self.subTest(mutation.name), copy.without(mutation):
                    self.assertIsNotNone(copy.failure(mutation.tests))

    def test_what_lacks_nothing_is_not_complained_about(self) -> None:
        """Or the test above would mean nothing."""
        with Copy() as copy:
            self.assertIsNone(copy.failure(table.TESTS["formats/qcow2.py"]))
