# SPDX-License-Identifier: Apache-2.0
"""bubblewrap, a user without privileges, and limits that take a while."""

from __future__ import annotations

from unittest import mock

from imagecache.sandbox import landlock
from imagecache.tests import sandboxed


class BubblewrapTest(sandboxed.Promises, sandboxed.TestCase):

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(landlock, "version", return_value=0)
        patch.start()
        self.addCleanup(patch.stop)

    def test_it_is_what_is_used_without_landlock(self):
        with self.assertLogs("imagecache.sandbox", "INFO") as logs:
            self.attempt("1")
        self.assertIn("bubblewrap", logs.records[0].getMessage())
