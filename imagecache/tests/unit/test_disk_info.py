# SPDX-License-Identifier: Apache-2.0
"""The record of disk formats, in nova's file."""

from __future__ import annotations

import json
import os
import pathlib
import threading

import ddt

from imagecache import exception
from imagecache.bases.disk_info import ENCRYPTED_FILE_NAME, DiskInfo
from imagecache.model import Format
from imagecache.system.locks import Locks
from imagecache.tests import base


@ddt.ddt
class DiskInfoTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.root / "instance"
        self.directory.mkdir()
        self.info = DiskInfo(self.directory, Locks(self.root / "locks"))
        self.disk = self.directory / "disk"

    def content(self) -> dict[str, str]:
        return json.loads(self.info.path.read_bytes())

    def test_a_disk_without_a_record_has_no_known_format(self) -> None:
        self.assertEqual({}, self.info.formats())
        self.assertIsNone(self.info.format_of(self.disk))

    def test_reading_a_missing_record_creates_no_file(self) -> None:
        self.info.format_of(self.disk)
        self.assertEqual(["instance"], os.listdir(self.root))
        self.assertEqual([], os.listdir(self.directory))

    def test_the_file_has_the_layout_of_nova(self) -> None:
        self.info.record(self.disk, Format.QCOW2)
        self.info.record(self.directory / "disk.eph0", Format.RAW)
        self.assertEqual({f"{self.directory}/disk": "qcow2",
                          f"{self.directory}/disk.eph0": "raw"},
                         self.content())
        self.assertEqual(0o644, self.info.path.stat().st_mode & 0o777)

    def test_a_record_that_nova_wrote_is_read(self) -> None:
        self.info.path.write_text(f'{{"{self.disk}": "raw"}}')
        self.assertIs(Format.RAW, self.info.format_of(self.disk))

    def test_a_record_in_a_moved_directory_is_read(self) -> None:
        self.info.record(self.disk, Format.QCOW2)
        moved = self.root / "moved"
        self.directory.rename(moved)
        info = DiskInfo(moved, self.info.locks)
        self.assertIs(Format.QCOW2, info.format_of(moved / "disk"))
        info.record(moved / "disk", Format.RAW)
        self.assertIs(Format.RAW, info.format_of(moved / "disk"))

    def test_a_disk_can_be_without_a_record_during_a_block(self) -> None:
        with self.info.recording(self.disk, None):
            self.assertEqual([], os.listdir(self.directory))
        self.info.record(self.disk, Format.RAW)
        try:
            with self.info.recording(self.disk, None):
                self.assertEqual({}, self.info.formats())
                raise ZeroDivisionError
        except ZeroDivisionError:
            self.assertIs(Format.RAW, self.info.format_of(self.disk))

    def test_the_record_of_encryption_is_a_file_of_its_own(self) -> None:
        encrypted = DiskInfo(self.directory, self.info.locks,
                             ENCRYPTED_FILE_NAME)
        with encrypted.recording(self.disk, Format.RAW):
            self.info.record(self.disk, Format.QCOW2)
        self.assertIs(Format.RAW, encrypted.format_of(self.disk))
        self.assertEqual({"disk.info", "disk.luks"},
                         set(os.listdir(self.directory)))

    def test_forgetting_the_last_disk_removes_the_file(self) -> None:
        self.info.record(self.disk, Format.RAW)
        self.info.record(self.directory / "other", Format.RAW)
        for each in (self.disk, self.disk, self.directory / "other"):
            self.info.forget(each)
        self.assertEqual([], os.listdir(self.directory))

    def test_forgetting_a_disk_without_a_record_creates_no_file(self) -> None:
        self.info.forget(self.disk)
        self.assertEqual(["instance"], os.listdir(self.root))

    def test_forgetting_a_disk_of_a_moved_directory(self) -> None:
        self.info.record(self.disk, Format.RAW)
        moved = self.root / "moved"
        self.directory.rename(moved)
        DiskInfo(moved, self.info.locks).forget(moved / "disk")
        self.assertEqual([], os.listdir(moved))

    def test_recording_the_same_format_again_writes_nothing(self) -> None:
        self.info.record(self.disk, Format.RAW)
        before = self.info.path.stat().st_ino
        self.info.record(self.disk, Format.RAW)
        self.assertEqual(before, self.info.path.stat().st_ino)

    def test_a_disk_that_fails_to_appear_is_not_recorded(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                self.info.recording(self.disk, Format.RAW):
            self.assertEqual({str(self.disk): "raw"}, self.content())
            raise KeyboardInterrupt
        self.assertEqual([], os.listdir(self.directory))

    def test_a_failed_recording_keeps_the_earlier_record(self) -> None:
        self.info.record(self.disk, Format.RAW)
        with self.assertRaises(KeyboardInterrupt), \
                self.info.recording(self.disk, Format.QCOW2):
            raise KeyboardInterrupt
        self.assertEqual({str(self.disk): "raw"}, self.content())

    def test_threads_that_record_at_once_lose_no_record(self) -> None:
        disks = [self.directory / f"disk{i}" for i in range(20)]
        threads = [threading.Thread(target=self.info.record,
                                    args=(disk, Format.RAW))
                   for disk in disks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(set(disks), set(self.info.formats()))

    @ddt.data(b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"/x": 1}',
              b'{"/x": "ploop"}', b'{"/x": null}', b'{"/x": ["raw"]}')
    def test_a_damaged_record_is_an_error(self, content: bytes) -> None:
        self.info.path.write_bytes(content)
        for act in (self.info.formats, lambda: self.info.forget(self.disk),
                    lambda: self.info.record(self.disk, Format.RAW)):
            self.assertRaises(exception.InvalidDiskInfo, act)
        self.assertEqual(content, self.info.path.read_bytes())

    def test_a_record_that_cannot_be_read_is_an_error_of_the_host(
            self) -> None:
        self.info.path.mkdir()
        self.assertRaises(exception.DiskInfoReadWriteFail, self.info.formats)

    def test_a_record_that_cannot_be_written_is_an_error_of_the_host(
            self) -> None:
        info = DiskInfo(self.root / "no", self.info.locks)
        with self.assertRaises(exception.DiskInfoReadWriteFail):
            info.record(pathlib.Path("/x"), Format.RAW)
