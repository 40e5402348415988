# SPDX-License-Identifier: Apache-2.0
"""What a header says, and what a hostile one must not do."""

from __future__ import annotations

import pathlib
import struct

import ddt

from imagecache import exception
from imagecache.formats import qcow2
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base


@ddt.ddt
class HeaderTest(base.TestCase):

    def header(self, content: bytes) -> qcow2.Header:
        path = self.root / "image"
        path.write_bytes(content)
        return qcow2.read_header(path)

    def damaged(self, offset: int, format: str, value: int) -> bytes:
        """Return a header with one field set to something else."""
        content = bytearray(images.backed_by(pathlib.Path("/base")))
        struct.pack_into(f">{format}", content, offset, value)
        return bytes(content)

    @ddt.data(("compat=0.10", 64 * 1024), ("compat=1.1", 64 * 1024),
              ("cluster_size=512", 512), ("cluster_size=2M", 2 * MiB))
    @ddt.unpack
    def test_the_header_has_the_values_that_qemu_img_shows(
            self, option: str, cluster: int) -> None:
        found = self.header(images.create("qcow2", "-o", option,
                                          size=3 * MiB))
        self.assertEqual(
            (3 * MiB, cluster, None),
            (found.virtual_size, found.cluster_size, found.backing_file))

    def test_the_header_names_the_backing_file(self) -> None:
        for name in ("/base", "/ä " + "x" * 1000, "rel/ative"):
            found = self.header(images.backed_by(pathlib.Path(name)))
            self.assertEqual(name, found.backing_file)

    def test_a_missing_disk_is_not_found(self) -> None:
        self.assertRaises(exception.DiskNotFound, qcow2.read_header,
                          self.root / "no")

    def test_the_host_is_at_fault_if_a_disk_cannot_be_read(self) -> None:
        self.assertRaises(exception.StorageFailed, qcow2.read_header,
                          self.root)

    @ddt.data(b"", b"QFI", b"QFI\xfb", bytes(512), b"raw" * 100)
    def test_a_file_that_is_not_qcow2_is_refused(self, content: bytes) -> None:
        self.assertRaises(exception.InvalidDiskFormat, self.header, content)

    @ddt.data((4, "I", 0), (4, "I", 1), (4, "I", 4), (20, "I", 8),
              (20, "I", 22), (20, "I", 2 ** 32 - 1), (16, "I", 1024),
              (16, "I", 2 ** 32 - 1), (8, "Q", 2 ** 64 - 1),
              (8, "Q", 2 ** 63), (8, "Q", 2 ** 40), (8, "Q", MiB))
    @ddt.unpack
    def test_a_damaged_header_is_refused(self, *field: int) -> None:
        """It is refused before tables of gigabytes are read."""
        self.assertRaises(exception.InvalidDiskFormat, self.header,
                          self.damaged(*field))

    def test_a_backing_name_that_is_cut_off_is_refused(self) -> None:
        whole = images.backed_by(pathlib.Path("/base"))
        self.assertRaises(exception.InvalidDiskFormat, self.header,
                          whole[:whole.index(b"/base") + 2])

    def test_a_backing_name_that_no_file_can_have_is_refused(self) -> None:
        whole = images.backed_by(pathlib.Path("/base"))
        self.assertRaises(exception.InvalidDiskFormat, self.header,
                          whole.replace(b"/base", b"/b\0se"))
