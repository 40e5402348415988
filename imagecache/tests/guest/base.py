# SPDX-License-Identifier: Apache-2.0
"""The fixture of the tests under another kernel: root, and a scratch disk.

Run one test with::

    tools/in-guest .venv/bin/python -m unittest imagecache.tests.guest.test_x

All tests of a run share the kernel and its file system.  Another run starts
anew.
"""

from __future__ import annotations

import os
import pathlib

from imagecache.tests import base


def scratch_disk() -> pathlib.Path:
    """Return the disk that a test may overwrite.

    :raises AssertionError: the tests do not run in the guest
    """
    if "GUEST_DISK" not in os.environ:
        raise AssertionError(
            "this test changes devices: run it with tools/in-guest")
    return pathlib.Path(os.environ["GUEST_DISK"])


class TestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.scratch = scratch_disk()
