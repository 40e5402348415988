# SPDX-License-Identifier: Apache-2.0
"""Encrypted disks, as nova's drivers ask for them."""

from __future__ import annotations

import pathlib
import types

from castellan import key_manager as castellan
from castellan.common import utils

from imagecache import exception, fixture, imagebackend
from imagecache.model import MiB
from imagecache.sources.key_manager import KeyManager
from imagecache.testing import images
from imagecache.tests import base, directory_keys
from imagecache.tools import luks

INSTANCE = {"uuid": "8a6a8b1f-7f0c-4b3c-a8a2-3f7d2b6d6d5e"}
SECRET = "2d9a0f5c-41f2-4fd7-9d3c-6c9e7f3a1b20"
MAPPING = {"bus": "virtio", "dev": "vda", "type": "disk", "encrypted": True,
           "encryption_format": "luks", "encryption_secret_uuid": SECRET}
CONTENT = images.content(MiB)
ALICE, BOB = (types.SimpleNamespace(username=name)
              for name in ("alice", "bob"))


class EncryptedImageTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        for options in (castellan.key_manager_opts, utils.credential_opts,
                        directory_keys.OPTS):
            self.images.conf.register_opts(options, group="key_manager")
        self.keys = self.root / "keys"
        self.keys.mkdir()
        self.images.config(
            "key_manager", directory=str(self.keys),
            backend="imagecache.tests.directory_keys.DirectoryKeys")
        (self.keys / f"{SECRET}.pass").write_bytes(b"open sesame")

    def disk(self, image_type: str = "raw", **mapping: object
             ) -> imagebackend.Image:
        return self.images.backend().by_name(
            INSTANCE, "disk", image_type,
            disk_info_mapping=MAPPING | mapping)

    def cache(self, disk: imagebackend.Image, **options: object) -> None:
        def fetch(context: object, target: str, image_id: str) -> None:
            pathlib.Path(target).write_bytes(CONTENT)

        disk.cache(fetch, "a" * 40, 2 * MiB, image_id="x", **options)

    def test_the_secret_of_the_mapping_is_the_disks_key(self) -> None:
        self.images.config("key_manager", reader="alice")
        disk = self.disk()
        self.assertRaises(exception.KeyManagerFailed, self.cache, disk,
                          context=BOB)
        self.assertFalse(disk.exists())
        self.cache(disk, context=ALICE)
        self.assertEqual(2 * MiB, luks.read_header(
            pathlib.Path(disk.path)).virtual_size)
        self.images.config("key_manager", reader=None)
        disk = self.disk(image_type=None)
        disk.resize_image(3 * MiB)
        self.assertEqual(3 * MiB, disk.get_disk_size(disk.path))
        target = self.root / "snapshot"
        disk.snapshot_extract(str(target), "raw")
        self.assertTrue(target.read_bytes()[:MiB] == CONTENT)

    def test_libvirt_is_told_of_a_raw_disk_and_its_secret(self) -> None:
        xml = self.disk().libvirt_info("none", {}).to_xml()
        self.assertIn('type="raw"', xml)
        self.assertIn('<encryption format="luks">', xml)
        self.assertIn(f'<secret type="passphrase" uuid="{SECRET}"/>', xml)
        self.assertTrue(self.disk().SUPPORTS_LUKS)

    def test_without_a_secret_nothing_is_made(self) -> None:
        disk = self.disk(encryption_secret_uuid=None)
        self.assertRaises(exception.KeyRequired, self.cache, disk,
                          context=ALICE)
        self.assertEqual([], list(self.images.instances_path.iterdir()))

    def test_a_disk_that_is_not_to_be_encrypted_is_not(self) -> None:
        for mapping in ({"encrypted": False}, {"encryption_format": "plain"}):
            disk = self.disk(**mapping)
            self.cache(disk, context=ALICE)
            self.assertFalse(disk.disk.is_encrypted())

    def test_a_key_is_its_hexadecimal_digits(self) -> None:
        (self.keys / "k.key").write_bytes(b"\1\xff" * 16)
        keys = KeyManager(self.images.conf)
        self.assertEqual(b"01ff" * 16, keys.passphrase("k"))
        self.assertEqual(b"open sesame", keys.passphrase(SECRET))
        with self.assertRaises(exception.KeyManagerFailed) as caught:
            keys.passphrase("no-such")
        self.assertIn("key no-such", str(caught.exception))
