# SPDX-License-Identifier: Apache-2.0
"""Encrypted logical volumes, which a real device-mapper decrypts."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import fixtures
from castellan import key_manager as castellan
from castellan.common import utils

from imagecache import exception, fixture, imagebackend
from imagecache.backends.lvm.encrypted import EncryptedLvm
from imagecache.model import MiB
from imagecache.system import execute
from imagecache.testing import conformance, images
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE
from imagecache.tests import base, directory_keys, encrypting
from imagecache.tests.encrypting import KEY, PASSPHRASE, WRONG
from imagecache.tests.guest import volume_group
from imagecache.tests.guest.volume_group import (
    EXTENT,
    POOL,
    opened,
)
from imagecache.tools import blockdev, cryptsetup


class ThickTest(volume_group.LvmTestCase, encrypting.EncryptingTestCase,
                conformance.MakingConformance,
                conformance.GrowingConformance,
                conformance.GeneratingConformance,
                conformance.ExtractingConformance,
                conformance.RemovingConformance):
    """Encrypted disks on thick volumes.

    A LUKS header and a device of dm-crypt lie between a volume and its
    disk; a request is refused, and a base kept, before either is used.
    """

    noise_behind = True

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(encrypting.FixedIterations())

    def test_a_disk_is_made_and_extracted_in_a_sandbox(self) -> None:
        self.assert_made_in_a_sandbox()

    def read(self, disk: Any) -> bytes:
        return self.visible(disk, images.read(disk.path, "raw"))

    def test_extracting_copies_the_content(self) -> None:
        disk, output = self.make(), self.images.instances_path / "snapshot"
        disk.extract(output, "raw")
        self.assertTrue(self.content == output.read_bytes())

    def test_extracting_copies_what_the_guest_wrote_last(self) -> None:
        disk, output = self.make(), self.images.instances_path / "snapshot"
        for written in (b"once", b"again"):
            self.write(disk, written)
            disk.extract(output, "raw")
            self.assertTrue(output.read_bytes().startswith(written))

    def test_the_volume_is_luks_and_the_device_is_not(self) -> None:
        disk = self.make()
        self.assertIsInstance(disk, EncryptedLvm)
        self.assertEqual(f"/dev/mapper/{INSTANCE}_disk-dmcrypt",
                         str(disk.path))
        volume = images.read(disk.volume, "raw")
        self.assertTrue(volume.startswith(b"LUKS\xba\xbe\0\1"))
        self.assertNotIn(self.content[:512], volume)
        self.assertNotIn(PASSPHRASE, volume)
        self.assertTrue(self.content == self.read(disk))

    def test_the_key_is_in_no_command_line_and_no_log(self) -> None:
        log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        seen: list[tuple[str, ...]] = []
        run = execute.run

        def recording(*command: str, **options: Any) -> str:
            seen.append(command)
            return run(*command, **options)

        with fixtures.MonkeyPatch("imagecache.system.execute.run", recording):
            disk = self.make()
            disk.grow(2 * SIZE)
            disk.extract(self.images.instances_path / "snapshot", "qcow2")
            disk.close()
            disk.open()
            disk.remove()
        self.assertIn("cryptsetup", {words[0] for words in seen})
        self.assertNotIn("3d9a7c", f"{seen} {log.output}")

    def test_a_closed_disk_is_opened_only_with_its_key(self) -> None:
        disk = self.make(2 * MiB)
        disk.close()
        self.assertFalse(disk.path.exists())
        self.assertEqual(2 * MiB, disk.size())
        for key, error in ((None, exception.KeyRequired),
                           (WRONG, exception.WrongKey)):
            other = EncryptedLvm(self.cache.host, INSTANCE, "disk",
                                 encryption=key)
            self.assertRaises(error, other.open)
            self.assertRaises(error, other.grow, 4 * MiB)
            self.assertRaises(error, other.extract,
                              self.images.instances_path / "out", "raw")
            self.assertEqual(2 * MiB, disk.size())
            self.assertEqual(set(), opened())
        again = self.make(3 * MiB)
        self.assertEqual(3 * MiB, again.size())
        self.assertTrue(self.content == self.read(again)[:SIZE])

    def test_a_guest_sees_the_size_that_was_asked_for(self) -> None:
        """Extents of 4 MiB are LVM's default: a header is no whole one."""
        self.addCleanup(volume_group.remake_group, EXTENT)
        self.addCleanup(volume_group.empty, None)
        for extent in (4 * MiB, 8 * MiB):
            volume_group.remake_group(extent)
            disk = self.make(8 * MiB)
            output = self.images.instances_path / "snapshot"
            disk.extract(output, "raw")
            self.assertEqual(8 * MiB, output.stat().st_size)
            self.assertEqual(8 * MiB, disk.size())
            self.assertEqual(8 * MiB, blockdev.size(disk.path))
            disk.close()
            self.assertEqual(8 * MiB, disk.size())
            disk.grow(16 * MiB)
            self.assertEqual(16 * MiB, blockdev.size(disk.path))
            disk.remove()

    def test_a_disk_that_cannot_be_opened_leaves_nothing(self) -> None:
        path = pathlib.Path(f"/dev/mapper/{INSTANCE}_disk-dmcrypt")
        run = execute.run

        def failing(*command: str, **options: Any) -> str:
            if command[:2] == ("cryptsetup", "open"):
                raise exception.CommandFailed(command="x", exit_code=1,
                                              stderr="oh no")
            return run(*command, **options)

        with fixtures.MonkeyPatch("imagecache.system.execute.run", failing):
            self.assertRaises(exception.CommandFailed, self.make)
        self.assertFalse(path.exists())
        self.assert_nothing_left(but={
            each for each in self.left() if self.is_of_a_base(each)})

    def test_a_disk_that_a_guest_has_open_is_not_removed(self) -> None:
        disk = self.make()
        with disk.path.open("rb"):
            self.assertRaises(exception.StorageFailed, disk.remove)
            self.assertTrue(disk.exists())
            self.assertTrue(self.content == self.read(disk))
        disk.remove()
        self.assertEqual(set(), opened())

    def test_an_encrypted_disk_is_not_taken_for_a_plain_one(self) -> None:
        self.make()
        plain = self.images.cache
        found = plain.disk(INSTANCE)
        self.assertIsInstance(found, EncryptedLvm)
        self.assertRaises(exception.KeyRequired, found.extract,
                          self.images.instances_path / "out", "raw")
        plain.create_disk(OTHER, self.image)
        self.assertRaises(exception.InvalidDiskFormat, plain.disk, OTHER,
                          encryption=KEY)
        self.assertEqual({(INSTANCE, True), (OTHER, False)}, {
            (disk.instance, disk.encrypts) for disk in plain.disks()})


class ThinTest(volume_group.VolumeGroupMixin, base.TestCase):
    """Encrypted disks in a thin pool.

    A thin pool affects only how the volume of an encrypted disk is
    allocated; what is on the volume is the same as in ``ThickTest``.
    """

    pool = POOL

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.configure(self.images)
        self.images.config("image_cache", lvm_thin_pool=None)

    def assert_it_reads_as_its_image(self) -> None:
        content = images.content(72 * MiB)
        disk = self.images.cache.create_disk(
            INSTANCE, self.images.add(content, "raw"), size=80 * MiB,
            encryption=KEY)
        self.assertTrue(
            content == images.read(disk.path, "raw")[:len(content)])
        # Encrypted, the zeros of the image are noise and take space.
        self.assertGreater(disk.allocated(), len(content))
        self.assertIn("_base", str(next(self.images.cache.bases()).path))
        disk.remove()
        self.assertEqual({POOL}, volume_group.volumes())

    def test_the_key_of_an_instance_encrypts_its_volumes(self) -> None:
        """Nova's drivers pass the id of the key with the instance."""
        for options in (castellan.key_manager_opts, utils.credential_opts,
                        directory_keys.OPTS):
            self.images.conf.register_opts(options, group="key_manager")
        (self.root / "a-key.key").write_bytes(b"\1\xff" * 32)
        self.images.config(
            "key_manager", directory=str(self.root),
            backend="imagecache.tests.directory_keys.DirectoryKeys")
        content = images.content(MiB)

        def fetch(context: object, target: str, image_id: str) -> None:
            pathlib.Path(target).write_bytes(content)

        def described() -> imagebackend.Image:
            return self.images.backend().by_name(
                {"uuid": INSTANCE, "ephemeral_key_uuid": "a-key"}, "disk",
                disk_info_mapping={"bus": "virtio", "dev": "vda",
                                   "type": "disk"})

        for size in (2 * MiB, 3 * MiB):     # the second time, it is there
            described().cache(fetch, "a" * 40, size, image_id="x",
                              context=None)
            disk = described()
            self.assertEqual(size, disk.get_disk_size(disk.path))
            self.assertTrue(content == images.read(
                pathlib.Path(disk.path), "raw")[:MiB])
            self.assertIn(f"/dev/mapper/{INSTANCE}_disk-dmcrypt",
                          disk.libvirt_info("none", {}).to_xml())
            cryptsetup.close(pathlib.Path(disk.path).name, "")
        self.assertTrue(images.read(
            disk.disk.volume, "raw").startswith(b"LUKS"))
        disk.snapshot_extract(str(self.root / "snapshot"), "raw")
        self.assertTrue(
            content == (self.root / "snapshot").read_bytes()[:MiB])
        disk.disk.remove()

    def test_in_a_thin_pool_an_encrypted_disk_is_not_a_snapshot(self) -> None:
        self.images.config("image_cache", lvm_thin_pool=POOL)
        self.assert_it_reads_as_its_image()

    def test_the_pool_of_a_sparse_disk_has_room_for_all_of_the_image(
            self) -> None:
        self.images.config("libvirt", sparse_logical_volumes=True)
        self.assert_it_reads_as_its_image()
