# SPDX-License-Identifier: Apache-2.0
"""Encrypted disks, requested as nova's drivers do."""

from __future__ import annotations

from imagecache import exception
from imagecache.sources.key_manager import KeyManager
from imagecache.tests import key_case
from imagecache.tests.key_case import ALICE, SECRET


class EncryptedImageTest(key_case.KeyTestCase):

    def test_libvirt_xml_names_the_secret_of_a_raw_disk(self) -> None:
        xml = self.disk().libvirt_info("none", {}).to_xml()
        self.assertIn('type="raw"', xml)
        self.assertIn('<encryption format="luks">', xml)
        self.assertIn(f'<secret type="passphrase" uuid="{SECRET}"/>', xml)
        self.assertTrue(self.disk().SUPPORTS_LUKS)

    def test_an_encrypted_disk_without_a_secret_is_not_made(self) -> None:
        disk = self.disk(encryption_secret_uuid=None)
        self.assertRaises(exception.KeyRequired, self.cache, disk,
                          context=ALICE)
        self.assertEqual([], list(self.images.instances_path.iterdir()))

    def test_a_disk_that_the_mapping_does_not_encrypt_is_plain(self) -> None:
        for mapping in ({"encrypted": False}, {"encryption_format": "plain"}):
            disk = self.disk(**mapping)
            self.cache(disk, context=ALICE)
            self.assertFalse(disk.disk.is_encrypted())

    def test_a_passphrase_is_the_key_in_hexadecimal_digits(self) -> None:
        (self.keys / "k.key").write_bytes(b"\1\xff" * 16)
        keys = KeyManager(self.images.conf)
        self.assertEqual(b"01ff" * 16, keys.passphrase("k"))
        self.assertEqual(b"open sesame", keys.passphrase(SECRET))
        with self.assertRaises(exception.KeyManagerFailed) as caught:
            keys.passphrase("no-such")
        self.assertIn("key no-such", str(caught.exception))
