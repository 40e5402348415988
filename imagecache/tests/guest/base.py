# SPDX-License-Identifier: Apache-2.0
"""What the tests under another kernel have: that kernel, and a scratch disk.

Run one by hand with::

    tools/in-guest .venv/bin/python -m unittest imagecache.tests.guest.test_x

What they write outside ``self.root`` reaches no other run, but the next test.
"""

from __future__ import annotations

import os
import pathlib

from imagecache.tests.functional import base


class TestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        if "GUEST_DISK" not in os.environ:
            self.fail("this test changes devices: tools/in-guest runs it")
        # Empty when the suite began; a test leaves it as it found it.
        self.scratch = pathlib.Path(os.environ["GUEST_DISK"])
