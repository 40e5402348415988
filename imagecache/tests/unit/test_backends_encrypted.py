# SPDX-License-Identifier: Apache-2.0
"""Disks encrypted with LUKS: their keys, their records, their content.

qemu needs a second of processor time to encrypt a disk, so no disk is really
encrypted here; imagecache/tests/functional has those tests.
"""

from __future__ import annotations

import pathlib

import fixtures

from imagecache import Encryption, exception, fixture
from imagecache.backends import Raw
from imagecache.backends.file.encrypted import EncryptedRaw
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import base, encrypting
from imagecache.tests.encrypting import CONTENT
from imagecache.tests.encrypting import ODD_KEY as KEY


class EncryptionTest(base.TestCase):

    def test_a_key_is_not_printed(self) -> None:
        self.assertNotIn("3d9a7c", f"{KEY} {KEY!r} {[KEY]}")

    def test_passphrases_that_libvirt_cannot_store_are_refused(self) -> None:
        for bad in (b"", b"a\0b", b"\xff\xfe", b"x" * 513):
            with self.assertRaises(exception.InvalidName) as caught:
                Encryption(bad)
            self.assertNotIn(repr(bad), str(caught.exception))
        self.assertRaises(exception.InvalidName, Encryption, b"x", 128)


class EncryptedRawTest(encrypting.FileDiskTestCase):

    image_type = "raw"

    def record_encrypted(self) -> pathlib.Path:
        """Have an encrypted disk on record; return the place of the disk."""
        directory = self.images.instances_path / INSTANCE
        directory.mkdir()
        for name in ("disk.luks", "disk.info"):
            (directory / name).write_text(f'{{"{directory}/disk": "raw"}}')
        return directory / "disk"

    def test_a_disk_that_cannot_be_read_is_the_hosts_fault(self) -> None:
        self.record_encrypted().mkdir()
        disk = self.described(KEY)
        self.assertRaises(exception.StorageFailed, disk.size)
        self.assertRaises(exception.StorageFailed, disk.grow, 3 * MiB)

    def test_a_failed_disk_leaves_nothing(self) -> None:
        def fail(*arguments: object, **options: object) -> None:
            raise exception.CommandFailed(command="x", exit_code=1, stderr="")

        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.tools.luks.create",
            lambda path, size, encryption: path.touch()))
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.tools.luks.fill", fail))
        self.assertRaises(exception.CommandFailed, self.make)
        self.assertFalse((self.images.instances_path / INSTANCE).exists())

    def test_a_luks_header_written_by_a_guest_has_no_effect(self) -> None:
        """The guest wrote the header."""
        image = self.images.add(CONTENT, "raw")
        disk = self.images.cache.create_disk(INSTANCE, image)
        images.write(disk.path, "raw", b"LUKS\xba\xbe\0\1")
        self.assertFalse(self.described().is_encrypted())
        self.assertTrue(
            self.content(self.described())[512:] == CONTENT[512:])
        self.assertRaises(exception.InvalidDiskFormat, self.described, KEY)
        self.assertRaises(exception.InvalidDiskFormat, self.make)

    def test_a_record_without_its_disk_has_no_effect(self) -> None:
        directory = self.images.instances_path / INSTANCE
        directory.mkdir()
        record = directory / "disk.luks"
        record.write_text(f'{{"{directory}/disk": "raw"}}')
        image = self.images.add(CONTENT, "raw")
        disk = self.images.cache.create_disk(INSTANCE, image)
        self.assertFalse(record.exists())
        self.assertEqual(MiB, disk.size())

    def test_an_encrypted_disk_is_not_read_or_grown_as_a_plain_one(
            self) -> None:
        """Grown as plain raw, the disk would be smaller for its guest."""
        path = self.record_encrypted()
        content = b"LUKS\xba\xbe\0\1" + bytes(MiB)
        path.write_bytes(content)
        plain = Raw(self.images.cache.host, INSTANCE, "disk")
        for act in (lambda: plain.grow(4 * MiB), lambda: plain.size(),
                    lambda: self.content(plain)):
            self.assertRaises(exception.InvalidDiskFormat, act)
        self.assertEqual(content, plain.path.read_bytes())

    def test_no_program_opens_a_disk_that_lost_its_luks_header(self) -> None:
        path = self.record_encrypted()
        for content in (b"", bytes(MiB), b"LUKS\xba\xbe\0\2" + bytes(MiB),
                        b"LUKS\xba\xbe\0\1" + bytes(MiB)):
            path.write_bytes(content)
            for act in (lambda disk: disk.size(),
                        lambda disk: disk.grow(4 * MiB),
                        self.content):
                with self.assertRaises(exception.UnsafeDisk):
                    act(self.described(KEY))
        self.assertEqual([], self.commands)


class OtherBackendsTest(base.TestCase):

    def test_a_backend_without_encryption_refuses_a_key(self) -> None:
        class Other(EncryptedRaw):
            pass

        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.backends.BACKENDS", {"other": Other}))
        images = self.useFixture(fixture.ImageCacheFixture())
        with self.assertRaises(exception.InvalidConfiguration):
            images.cache.disk(INSTANCE, image_type="other", encryption=KEY)
        self.assertEqual([], list(images.instances_path.iterdir()))
