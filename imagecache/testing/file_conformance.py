# SPDX-License-Identifier: Apache-2.0
"""The promises of every backend whose disks are files, as tests to inherit.

    class RawTest(file_conformance.FileDiskConformance):
        image_type = "raw"
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import struct
from unittest import mock

from imagecache import exception
from imagecache.backends import BACKENDS
from imagecache.backends.base import Extractor
from imagecache.model import Format
from imagecache.testing import conformance, images
from imagecache.testing.conformance import INSTANCE, SIZE


class FileDiskConformance(conformance.DiskConformance):
    """All promises of a disk that is a file in its instance's directory."""

    def test_the_record_of_the_format_is_the_one_of_nova(self) -> None:
        disk = self.make()
        record = disk.path.parent / "disk.info"
        self.assertEqual({str(disk.path): disk.format.value},
                         json.loads(record.read_bytes()))

    def test_the_file_is_of_the_format_on_record(self) -> None:
        disk = self.make()
        found = images.info(disk.path)["format"]
        self.assertEqual(disk.format, found)

    def test_a_disk_is_described_by_its_record_and_not_by_the_options(
            self) -> None:
        made = self.make()
        for other in ("raw", "qcow2"):
            self.images.config("libvirt", images_type=other)
            self.assertEqual(made.format, self.cache.disk(INSTANCE).format)
            self.assertEqual(made.format, self.make(2 * SIZE).format)
        self.assertTrue(self.content == self.read(made)[:SIZE])

    def test_preallocation_allocates_the_blocks_of_a_disk(self) -> None:
        self.images.config(preallocate_images="space")
        disk = self.make(8 * SIZE)
        self.assertGreaterEqual(disk.path.stat().st_blocks * 512, 8 * SIZE)
        disk.grow(16 * SIZE)
        self.assertGreaterEqual(disk.path.stat().st_blocks * 512, 16 * SIZE)
        self.assertEqual(16 * SIZE, disk.size())
        self.assertTrue(self.content == self.read(disk)[:SIZE])

    def test_a_disk_that_finds_no_space_to_grow_keeps_its_size(self) -> None:
        self.make()
        self.images.config(preallocate_images="space")
        disk = self.cache.disk(INSTANCE)
        with mock.patch("imagecache.tools.file_copy.preallocate",
                        side_effect=exception.NoSpace("no")), \
                self.assertRaises(exception.NoSpace):
            disk.grow(2 * SIZE)
        self.assertEqual(SIZE, disk.size())

    def test_preallocation_without_enough_space_changes_nothing(self) -> None:
        self.images.config(preallocate_images="space")
        disk = self.make()
        before = disk.size(), disk.allocated()
        with mock.patch("imagecache.system.durable.available",
                        return_value=SIZE):
            for act in (lambda: disk.grow(8 * SIZE),
                        lambda: self.make(8 * SIZE, "another")):
                self.assertRaises(exception.NoSpace, act)
        self.assertEqual(before, (disk.size(), disk.allocated()))

    def test_a_disk_that_a_process_has_open_for_writing_is_not_grown(
            self) -> None:
        disk = self.make()
        before = disk.path.read_bytes()
        with disk.path.open("r+b"):
            self.assertRaises(exception.StorageBusy, disk.grow, 2 * SIZE)
            disk.grow(SIZE)    # its size: nothing has to be done
        self.assertTrue(before == disk.path.read_bytes())
        disk.grow(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())

    def test_a_disk_that_qemu_has_locked_is_not_grown(self) -> None:
        """Over a network's file system only the lock is seen."""
        disk = self.make()
        before = disk.path.read_bytes()
        lock = struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0)
        with disk.path.open("rb") as f:
            fcntl.fcntl(f, fcntl.F_OFD_SETLK, lock)
            self.assertRaises(exception.StorageBusy, disk.grow, 2 * SIZE)
        self.assertTrue(before == disk.path.read_bytes())

    def test_without_preallocation_a_disk_is_sparse(self) -> None:
        disk = self.make(64 * SIZE)
        self.assertLess(disk.path.stat().st_blocks * 512, 2 * SIZE)

    def test_the_hypervisor_may_read_a_disk(self) -> None:
        disk = self.make()
        self.assertEqual(0o644, stat.S_IMODE(disk.path.stat().st_mode))

    def test_an_extracted_file_is_the_agents_alone(self) -> None:
        disk, output = self.make(), self.images.instances_path / "snapshot"
        assert isinstance(disk, Extractor)
        for umask in (0, 0o77):
            self.addCleanup(os.umask, os.umask(umask))
            disk.extract(output, "raw")
            self.assertEqual(0o600, stat.S_IMODE(output.stat().st_mode))

    def test_removing_a_disk_removes_the_files_of_killed_attempts(
            self) -> None:
        disk = self.make()
        (disk.path.parent / ".disk.4242.0123456789ab").touch()
        disk.remove()
        self.assertFalse(disk.path.parent.exists())

    def test_a_record_without_its_disk_has_no_effect(self) -> None:
        disk = self.make()
        path, format = disk.path, disk.format
        disk.remove()
        path.parent.mkdir()
        other = Format.QCOW2 if format is Format.RAW else Format.RAW
        (path.parent / "disk.info").write_text(json.dumps({str(path): other}))
        self.assertEqual([], list(self.cache.disks()))
        self.assertEqual(format, self.make().format)

    def test_a_disk_with_a_damaged_record_is_not_partly_removed(
            self) -> None:
        disk = self.make()
        (disk.path.parent / "disk.info").write_text("{")
        before = self.left()
        self.assertRaises(exception.InvalidDiskInfo, disk.remove)
        self.assertEqual(before, self.left())

    def test_a_disk_that_cannot_be_opened_is_an_error_of_the_host(
            self) -> None:
        disk = self.make()
        assert isinstance(disk, Extractor)
        disk.path.unlink()
        disk.path.mkdir()
        output = self.images.instances_path / "output"
        for act in (lambda: disk.grow(64 * SIZE),
                    lambda: self.make(64 * SIZE),
                    lambda: disk.extract(output, "raw")):
            self.assertRaises(exception.HostError, act)
        self.assertFalse(output.exists())

    def test_a_disk_that_another_process_made_keeps_its_record(self) -> None:
        """A wrong format on record would let a guest choose its meaning."""
        disk = self.make()
        record = disk.path.parent / "disk.info"
        before = record.read_bytes()
        for other in BACKENDS.values():
            if not other.capabilities.file:
                continue    # it would make another disk
            loser = other(self.cache.host, INSTANCE, "disk")
            with loser.cache.lease(self.source()) as base, \
                    self.assertRaises(exception.DiskExists):
                loser.create(base, None)
            self.assertEqual(before, record.read_bytes())

    def test_the_capabilities_say_that_a_disk_is_a_file(self) -> None:
        self.assertTrue(self.cache.disk(INSTANCE).capabilities.file)

    def test_the_record_is_not_a_disk(self) -> None:
        self.assertRaises(exception.InvalidName, self.make, name="disk.info")
        self.assert_nothing_left()
