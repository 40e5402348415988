# SPDX-License-Identifier: Apache-2.0
"""Disks encrypted with LUKS: their keys, their records, their content.

qemu takes seconds to weigh how often to hash a passphrase, whatever is asked
for, so there are few tests here; imagecache/tests/functional has them all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import fixtures

from imagecache import Encryption, exception, fixture
from imagecache.backends import Raw
from imagecache.backends.base import Disk
from imagecache.backends.file.encrypted import EncryptedQcow2, EncryptedRaw
from imagecache.model import MiB
from imagecache.system import execute
from imagecache.testing import images
from imagecache.tests import base

INSTANCE = "8a6a8b1f-7f0c-4b3c-a8a2-3f7d2b6d6d5e"
PASSPHRASE = "gehéim, 3d9a7c".encode()
KEY = Encryption(PASSPHRASE, iter_time=10)
WRONG = Encryption(b"another", iter_time=10)
CONTENT = images.content(MiB)


class EncryptionTest(base.TestCase):

    def test_a_key_is_not_printed(self) -> None:
        self.assertNotIn("3d9a7c", f"{KEY} {KEY!r} {[KEY]}")

    def test_passphrases_that_libvirt_could_not_have_are_refused(
            self) -> None:
        for bad in (b"", b"a\0b", b"\xff\xfe", b"x" * 513):
            with self.assertRaises(exception.InvalidName) as caught:
                Encryption(bad)
            self.assertNotIn(repr(bad), str(caught.exception))
        self.assertRaises(exception.InvalidName, Encryption, b"x", 128)


class EncryptedTestCase(base.TestCase):

    image_type: str

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("libvirt", images_type=self.image_type)
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        self.commands: list[tuple[str, ...]] = []
        run = execute.run

        def recording(*command: str, **options: object) -> str:
            self.commands.append(command)
            return run(*command, **options)

        self.useFixture(fixtures.MonkeyPatch("imagecache.system.execute.run",
                                             recording))

    def make(self, size: int | None = None) -> Disk:
        image = self.images.add(images.qcow2(CONTENT), "qcow2")
        return self.images.cache.create_disk(INSTANCE, image, size=size,
                                             encryption=KEY)

    def described(self, encryption: Encryption | None = None) -> Disk:
        return self.images.cache.disk(INSTANCE, encryption=encryption)

    def content(self, disk: Disk) -> bytes:
        output = self.root / "output"
        disk.extract(output, "raw")
        return output.read_bytes()

    def assert_no_secret_is_seen(self) -> None:
        """Neither by whoever lists processes, nor in a log or a file."""
        self.assertNotIn("3d9a7c", f"{self.commands} {self.log.output}"
                                   f" {self.images.events}")
        for path in self.images.instances_path.rglob("*"):
            if path.is_file():
                self.assertNotIn(PASSPHRASE, path.read_bytes())

    def assert_asks_for_its_key(self, *acts: Callable[..., object]) -> None:
        (self.root / "output").unlink()
        for encryption, error in ((None, exception.KeyRequired),
                                  (WRONG, exception.WrongKey)):
            disk = self.described(encryption)
            for act in acts:
                with self.assertRaises(error):
                    act(disk)
            self.assertFalse((self.root / "output").exists())


class EncryptedQcow2Test(EncryptedTestCase):

    image_type = "qcow2"

    def test_from_its_making_to_its_end(self) -> None:
        disk = self.make(2 * MiB)
        self.assertIsInstance(disk, EncryptedQcow2)
        [entry] = self.images.cache.bases()
        self.assertEqual(entry.key, disk.base_key())
        self.assertTrue(self.content(disk) == CONTENT + bytes(MiB))
        self.assert_asks_for_its_key(
            self.content, lambda disk: disk.grow(64 * MiB),
            lambda disk: disk.flatten())
        described = self.described()
        self.assertEqual((2 * MiB, "qcow2", entry.key), (
            described.size(), described.format, described.base_key()))
        disk.grow(3 * MiB)
        disk.flatten()
        self.assertTrue(self.content(disk) == CONTENT + bytes(2 * MiB))
        self.assertNotIn(CONTENT[:512], disk.path.read_bytes())
        self.assert_no_secret_is_seen()
        self.images.config("libvirt", images_type="raw")
        self.described(KEY).grow(4 * MiB)
        self.assertEqual(4 * MiB, self.described().size())
        [listed] = self.images.cache.disks()
        listed.remove()
        self.assertFalse(disk.path.parent.exists())


class EncryptedRawTest(EncryptedTestCase):

    image_type = "raw"

    def test_from_its_making_to_its_end(self) -> None:
        disk = self.make(2 * MiB)
        self.assertIsInstance(disk, EncryptedRaw)
        self.assertTrue(self.content(disk)[:MiB] == CONTENT)
        self.assert_asks_for_its_key(self.content)
        described = self.described()
        self.assertEqual((2 * MiB, "raw"), (described.size(),
                                            described.format))
        described.grow(3 * MiB)     # which needs no key
        self.assertEqual(3 * MiB, len(self.content(disk)))
        self.assertTrue(self.content(disk)[:MiB] == CONTENT)
        self.assertNotIn(CONTENT[:512], disk.path.read_bytes())
        self.assert_no_secret_is_seen()
        self.images.config("libvirt", images_type="qcow2")
        self.described().grow(4 * MiB)
        self.assertEqual(4 * MiB, self.described(KEY).size())
        [listed] = self.images.cache.disks()
        listed.remove()
        self.assertFalse(disk.path.parent.exists())

    def test_one_that_cannot_be_read_is_the_hosts_fault(self) -> None:
        disk = self.make(2 * MiB)
        disk.path.unlink()
        disk.path.mkdir()
        self.assertRaises(exception.StorageFailed, disk.size)
        self.assertRaises(exception.StorageFailed, disk.grow, 3 * MiB)

    def test_what_fails_leaves_nothing(self) -> None:
        def fail(*arguments: object, **options: object) -> None:
            raise exception.CommandFailed(command="x", exit_code=1, stderr="")

        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.tools.luks.create",
            lambda path, size, encryption: path.touch()))
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.tools.luks.fill", fail))
        self.assertRaises(exception.CommandFailed, self.make)
        self.assertFalse((self.images.instances_path / INSTANCE).exists())

    def test_a_disk_that_says_luks_is_not_therefore_encrypted(self) -> None:
        """Its guest has written that."""
        image = self.images.add(CONTENT, "raw")
        disk = self.images.cache.create_disk(INSTANCE, image)
        images.write(disk.path, "raw", b"LUKS\xba\xbe\0\1")
        self.assertFalse(self.described().is_encrypted())
        self.assertTrue(
            self.content(self.described())[512:] == CONTENT[512:])
        self.assertRaises(exception.InvalidDiskFormat, self.described, KEY)
        self.assertRaises(exception.InvalidDiskFormat, self.make)

    def test_a_record_of_a_disk_that_never_was_means_nothing(self) -> None:
        directory = self.images.instances_path / INSTANCE
        directory.mkdir()
        record = directory / "disk.luks"
        record.write_text(f'{{"{directory}/disk": "raw"}}')
        image = self.images.add(CONTENT, "raw")
        disk = self.images.cache.create_disk(INSTANCE, image)
        self.assertFalse(record.exists())
        self.assertEqual(MiB, disk.size())

    def test_whoever_takes_an_encrypted_disk_for_another_is_refused(
            self) -> None:
        """Grown as plain raw, its guest would see too little of it."""
        directory = self.images.instances_path / INSTANCE
        directory.mkdir()
        for name in ("disk.luks", "disk.info"):
            (directory / name).write_text(f'{{"{directory}/disk": "raw"}}')
        content = b"LUKS\xba\xbe\0\1" + bytes(MiB)
        (directory / "disk").write_bytes(content)
        plain = Raw(self.images.cache.host, INSTANCE, "disk")
        for act in (lambda: plain.grow(4 * MiB), lambda: plain.size(),
                    lambda: self.content(plain)):
            self.assertRaises(exception.InvalidDiskFormat, act)
        self.assertEqual(content, plain.path.read_bytes())

    def test_a_disk_that_is_luks_no_more_is_opened_by_no_program(
            self) -> None:
        directory = self.images.instances_path / INSTANCE
        directory.mkdir()
        for name in ("disk.luks", "disk.info"):
            (directory / name).write_text(f'{{"{directory}/disk": "raw"}}')
        for content in (b"", bytes(MiB), b"LUKS\xba\xbe\0\2" + bytes(MiB),
                        b"LUKS\xba\xbe\0\1" + bytes(MiB)):
            (directory / "disk").write_bytes(content)
            for act in (lambda disk: disk.size(),
                        lambda disk: disk.grow(4 * MiB),
                        self.content):
                with self.assertRaises(exception.UnsafeDisk):
                    act(self.described(KEY))
        self.assertEqual([], self.commands)


class OtherBackendsTest(base.TestCase):

    def test_what_cannot_be_encrypted_says_so(self) -> None:
        class Other(EncryptedRaw):
            pass

        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.backends.BACKENDS", {"other": Other}))
        images = self.useFixture(fixture.ImageCacheFixture())
        with self.assertRaises(exception.InvalidConfiguration):
            images.cache.disk(INSTANCE, image_type="other", encryption=KEY)
        self.assertEqual([], list(images.instances_path.iterdir()))
