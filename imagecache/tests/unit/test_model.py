# SPDX-License-Identifier: Apache-2.0
"""Facts that travel."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import ddt

from imagecache import exception, model
from imagecache.tests import base


@ddt.ddt
class DigestTest(base.TestCase):

    @ddt.data("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b")
    def test_a_digest_is_of_an_algorithm_python_knows(self, name: str
                                                      ) -> None:
        value = hashlib.new(name, b"x").hexdigest()
        self.assertEqual(f"{name}:{value}", str(model.Digest(name, value)))

    @ddt.data(("crc32", "0" * 8), ("", ""), (None, "x"), ("sha256", ""),
              ("sha256", "0" * 63), ("sha256", "0" * 65),
              ("sha256", "A" * 64), ("sha256", "g" * 64),
              ("sha256", "../" + "0" * 61), ("sha256", "0" * 64 + "\n"),
              ("shake_128", ""), ("shake_128", "0" * 32))
    @ddt.unpack
    def test_anything_else_is_refused(self, name: str, value: str) -> None:
        """It is what a store says, and a store may say anything."""
        self.assertRaises(exception.InvalidName, model.Digest, name, value)


class DescriptionTest(base.TestCase):

    def test_the_key_is_novas(self) -> None:
        described = model.Description("ref", identity="an id")
        self.assertEqual(hashlib.sha1(b"an id").hexdigest(), described.key)


class FactsTest(base.TestCase):

    def test_facts_are_frozen(self) -> None:
        for each in vars(model).values():
            if dataclasses.is_dataclass(each):
                self.assertTrue(each.__dataclass_params__.frozen, each)

    def test_formats_are_words_of_qemu(self) -> None:
        self.assertEqual("raw qcow2 vmdk vpc vhdx vdi", " ".join(model.Format))

    def test_whole_sectors(self) -> None:
        self.assertEqual([0, 512, 512, 1024],
                         [model.whole_sectors(n) for n in (0, 1, 512, 513)])

    def test_an_unproven_entry_is_no_base(self) -> None:
        entry = model.Entry("key", pathlib.Path("/x"), 1, 1, 0.0, None)
        self.assertRaises(ValueError, entry.as_base)

    def test_a_proven_entry_is_the_base_on_record(self) -> None:
        record = model.Record(model.Format.QCOW2, 100, 10, 1, "x",
                              cluster_size=512)
        entry = model.Entry("key", pathlib.Path("/x"), 10, 10, 0.0, record)
        self.assertEqual(
            model.Base("key", pathlib.Path("/x"), model.Format.QCOW2, 100,
                       512), entry.as_base())
