# SPDX-License-Identifier: Apache-2.0
"""If a device loses data, the error of the flush reaches the caller.

The file system is on a loop device whose file has no space for the data.  So
a write succeeds, because it goes to the page cache, and a flush fails with
EIO.  qemu-img 7.2 reports success all the same.
"""

from __future__ import annotations

import os
import pathlib

import ddt
import fixtures

from imagecache import exception
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests.functional import base, loop

IMAGE_SIZE = MiB
# With a journal that cannot be written, the file system becomes read-only.
WITHOUT_JOURNAL = ("-O", "^has_journal", "-E",
                   "lazy_itable_init=0,nodiscard")


class LosingFilesystem(fixtures.Fixture):
    """A file system, on ``path``; after ``lose()`` its device loses data."""

    def _setUp(self) -> None:
        self._place = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        loop.run_as_root("mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs",
                         str(self._place))
        self.addCleanup(loop.run_as_root, "umount", "--lazy",
                        str(self._place))
        self.path = self.useFixture(loop.LoopFilesystem(
            "ext4", 96 * MiB, self._place, WITHOUT_JOURNAL)).path

    def lose(self) -> None:
        """Fill the space that the file of the device needs to grow."""
        os.sync()
        with (self._place / "ballast").open("wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(MiB))
            except OSError:
                pass


class TestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.image = self.root / "image.qcow2"
        self.image.write_bytes(images.qcow2(os.urandom(IMAGE_SIZE)))
        self.filesystem = self.useFixture(LosingFilesystem())
        self.mounted = self.filesystem.path


@ddt.ddt
class ExtractTest(TestCase):

    @ddt.data("raw", "vdi", "qcow2", "vmdk")
    def test_an_output_that_was_not_flushed_is_an_error(self, output_format):
        cache = self.cache(self.root / "instances")
        disk = cache.create_disk("instance", str(self.image))
        self.filesystem.lose()
        output = self.mounted / "output"
        self.assertRaises(exception.HostError, disk.extract, output,
                          output_format)
        self.assertFalse(output.exists())
