# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse

from imagecache.cmd import columns, command
from imagecache.tests import base

KiB = 1024
GiB = 1024 ** 3


class TestSize(base.TestCase):

    def test_sizes_are_read_as_people_write_them(self) -> None:
        for text, size in (
                ("20GiB", 20 * GiB), ("20G", 20 * GiB), ("20g", 20 * GiB),
                ("20 GiB", 20 * GiB), ("512MiB", GiB // 2),
                ("1.5GiB", 3 * GiB // 2), ("4KiB", 4 * KiB),
                ("2T", 2048 * GiB), ("1PiB", GiB * 1024 ** 2),
                ("1024", 1024), ("1B", 1), ("0.5KiB", 512)):
            with self.subTest(text):
                self.assertEqual(size, command.size(text))

    def test_what_could_mean_two_things_is_refused(self) -> None:
        # 10 ** 9 or 2 ** 30?  bits?
        for text in ("20GB", "20Gb", "20Gbit", "1,5GiB"):
            with self.subTest(text):
                self.assertRaisesRegex(argparse.ArgumentTypeError, "as in",
                                       command.size, text)

    def test_what_is_no_size_is_refused(self) -> None:
        for text in ("", "G", "-1", "0", "0GiB", "1.5", "big", "1e9", "٣GiB",
                     "0.1T", "1GiB\n", "inf", ".", "8192PiB"):
            with self.subTest(text):
                self.assertRaises(argparse.ArgumentTypeError, command.size,
                                  text)


class TestDigest(base.TestCase):

    def test_a_digest_names_its_algorithm(self) -> None:
        value = "AB" * 32
        self.assertEqual(f"sha256:{value.lower()}",
                         str(command.digest(f"SHA256:{value}")))

    def test_a_mistake_is_explained(self) -> None:
        for text in ("", "sha256", "sha256:12", "crc:12", "12" * 32):
            with self.subTest(text):
                self.assertRaisesRegex(argparse.ArgumentTypeError,
                                       "give it as", command.digest, text)


class TestHumanSize(base.TestCase):

    def test_sizes_are_shown_as_people_read_them(self) -> None:
        for size, text in (
                (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"),
                (1536, "1.5 KiB"), (1024 ** 2 - 1, "1.0 MiB"),
                (20 * GiB, "20.0 GiB"), (1024 ** 4, "1.0 TiB"),
                (3000 * 1024 ** 4, "2.9 PiB")):
            with self.subTest(text):
                self.assertEqual(text, columns.human_size(size))
