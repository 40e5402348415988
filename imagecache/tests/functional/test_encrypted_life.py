# SPDX-License-Identifier: Apache-2.0
"""Encrypted disks in files, from the first byte to the removal."""

from __future__ import annotations

import pathlib

from imagecache import exception
from imagecache.backends.file.encrypted import EncryptedQcow2, EncryptedRaw
from imagecache.encryption import Encryption
from imagecache.model import MiB
from imagecache.tests import encrypting, key_case, looks
from imagecache.tests.encrypting import CONTENT
from imagecache.tests.encrypting import ODD_KEY as KEY
from imagecache.tests.key_case import ALICE, BOB
from imagecache.tools import luks


class Qcow2LifeTest(encrypting.FileDiskTestCase):

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


class RawLifeTest(encrypting.FileDiskTestCase):

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


class NovaLifeTest(key_case.KeyTestCase):

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


class ExistenceTest(looks.LooksTestCase):

    def test_a_new_encrypted_disk_is_looked_for_once(self) -> None:
        for image_type in ("qcow2", "raw"):
            self.assertEqual(1, self.looks(
                image_type, image_type=image_type,
                encryption=Encryption(b"passphrase", iter_time=1)))
