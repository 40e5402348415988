# SPDX-License-Identifier: Apache-2.0
"""Validation: which files become a base, and which are refused.

The tests call the cache, so that they show that no file passes by it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import struct
import tracemalloc
from unittest import mock

import ddt
import fixtures

from imagecache import exception, fixture
from imagecache.inspection import verify
from imagecache.inspection.inspector import Found
from imagecache.model import Base, Format, KiB, Limits, MiB, Validated
from imagecache.policy import Policy
from imagecache.testing import images
from imagecache.tests import base

SIZE = MiB
CONTENT = images.content(SIZE)
QCOW2 = images.qcow2(CONTENT)


def with_field(offset: int, format: str, value: int,
               content: bytes = QCOW2) -> bytes:
    """Return a qcow2 image with one field of its header set."""
    changed = bytearray(content)
    struct.pack_into(f">{format}", changed, offset, value)
    return bytes(changed)


class ValidationTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture(
            force_raw_images=False))

    def fetch(self, content: bytes, claim: str | None) -> Base:
        return self.images.cache.fetch(self.images.add(content, claim))

    def refuse(self, content: bytes, claim: str | None = None) -> str:
        """Return the reason why an image is refused; no base may be left."""
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            self.fetch(content, claim)
        self.assertEqual([], list(self.images.cache.bases()))
        return caught.exception.facts["reason"]


@ddt.ddt
class AcceptedTest(ValidationTestCase):

    @ddt.data(
        ("noise", CONTENT), ("zeros", bytes(SIZE)), ("mbr", images.mbr()),
        ("gpt", images.gpt()), ("iso", images.iso()),
        ("hybrid", images.hybrid_iso()), ("sector", b"x" * 512),
        ("text", b"#!/bin/sh\n" * 60))
    @ddt.unpack
    def test_raw_images_are_accepted(self, name: str, content: bytes) -> None:
        for claim in (None, "raw", "ami", "ari", "aki"):
            found = self.fetch(content, claim)
            self.assertEqual((Format.RAW, -(-len(content) // 512) * 512),
                             (found.format, found.virtual_size), claim)
            self.assertTrue(found.path.read_bytes() == content)

    @ddt.data(("compat=0.10",), ("compat=1.1",), ("compression_type=zstd",),
              ("cluster_size=512",), ("cluster_size=2M",),
              ("preallocation=metadata",), ("lazy_refcounts=on",),
              ("refcount_bits=1",))
    @ddt.unpack
    def test_qcow2_images_are_accepted(self, option: str) -> None:
        for more in ((), ("-c",)):
            if more and "preallocation" in option:
                continue
            content = images.qcow2(CONTENT, "-o", option, *more)
            for claim in (None, "qcow2"):
                found = self.fetch(content, claim)
                self.assertEqual((Format.QCOW2, SIZE),
                                 (found.format, found.virtual_size))

    def test_accepted_images_are_converted_to_the_right_content(self) -> None:
        self.images.config(force_raw_images=True)
        for option in ("compat=0.10", "compression_type=zstd",
                       "cluster_size=512"):
            found = self.fetch(
                images.qcow2(CONTENT, "-c", "-o", option), "qcow2")
            self.assertTrue(found.path.read_bytes() == CONTENT, option)


@ddt.ddt
class RefusedTest(ValidationTestCase):

    @ddt.data("vmdk", "vpc", "vdi", "vhdx", "qed")
    def test_other_formats_are_refused_with_any_claim(
            self, format: str) -> None:
        content = images.convert(CONTENT, format)
        for claim in (None, "raw", "qcow2", format, "vhd"):
            self.refuse(content, claim)

    @ddt.data("vmdk", "vhd", "docker", "ploop", "", "RAW", "raw;qcow2")
    def test_claims_of_other_formats_are_refused(self, claim: str) -> None:
        self.refuse(CONTENT, claim)

    def test_a_qcow2_image_that_claims_to_be_raw_is_refused(self) -> None:
        for claim in ("raw", "iso", "ami", "aki", "ari"):
            self.assertIn("qcow2", self.refuse(QCOW2, claim))

    def test_a_raw_image_that_claims_to_be_iso_is_refused(self) -> None:
        for content in (CONTENT, images.mbr()):
            self.refuse(content, "iso")
        self.assertEqual(Format.RAW, self.fetch(images.iso(), "iso").format)

    def test_a_raw_image_that_claims_to_be_qcow2_is_refused(self) -> None:
        for content in (CONTENT, images.mbr(), images.iso()):
            self.assertIn("raw", self.refuse(content, "qcow2"))

    def test_an_empty_file_is_refused(self) -> None:
        for claim in (None, "raw", "qcow2"):
            self.assertIn("empty", self.refuse(b"", claim))

    def test_references_to_files_of_the_host_are_refused(self) -> None:
        secret = pathlib.Path("/etc/passwd")
        for content in (
                images.backed_by(secret),
                images.create("qcow2", "-o", "compat=0.10", "-b",
                              str(secret), "-F", "raw"),
                images.backed_by(pathlib.Path("relative")),
                images.backed_by(pathlib.Path('json:{"driver":"null-co"}'))):
            for claim in (None, "qcow2", "raw"):
                self.refuse(content, claim)

    def test_an_external_data_file_is_refused(self) -> None:
        # The bit, and the name in an extension; either would do.
        for content in (with_field(72, "Q", 1 << 2),):
            self.refuse(content, "qcow2")

    def test_an_encrypted_image_is_refused(self) -> None:
        self.refuse(with_field(32, "I", 1), "qcow2")
        self.refuse(with_field(32, "I", 2), "qcow2")

    def test_unknown_features_are_refused(self) -> None:
        for bit in (5, 8, 63):
            self.refuse(with_field(72, "Q", 1 << bit), "qcow2")

    def test_unknown_versions_are_refused(self) -> None:
        for version in (0, 1, 4, 2 ** 32 - 1):
            self.refuse(with_field(4, "I", version), "qcow2")

    def test_damaged_headers_are_refused(self) -> None:
        for offset, format, value in (
                (20, "I", 8), (20, "I", 31), (36, "I", 2 ** 31),
                (40, "Q", 2 ** 62), (48, "Q", 2 ** 62), (56, "I", 2 ** 31),
                (60, "I", 2 ** 31), (24, "Q", 2 ** 63)):
            with self.subTest(offset):
                self.refuse(with_field(offset, format, value), "qcow2")

    def test_images_that_are_cut_off_are_refused(self) -> None:
        for size in (4, 72, 104, 511, 512, 4096, 65536):
            with self.subTest(size):
                self.refuse(QCOW2[:size], "qcow2")

    def test_an_image_within_an_image(self) -> None:
        """A program that probes the base, as nova does, would follow it."""
        self.images.config(force_raw_images=True)
        for inner in (images.backed_by(pathlib.Path("/etc/passwd")), QCOW2,
                      images.convert(CONTENT, "vmdk")):
            inner = inner.ljust(-(-len(inner) // 512) * 512, b"\0")
            self.refuse(images.qcow2(inner), "qcow2")


class AgainTest(ValidationTestCase):

    def test_a_base_on_record_as_raw_stays_raw(self) -> None:
        """A raw base may begin like any format: no program probes it."""
        key = self.fetch(CONTENT, "raw").key
        path = self.images.cache.base(key).path
        path.chmod(0o644)
        path.write_bytes(QCOW2.ljust(SIZE, b"\0"))
        ref = self.images.cache.base(key).record.source
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.inspection.verify.RULES", verify.RULES + 1))
        self.assertIs(Format.RAW, self.images.cache.fetch(ref).format)
        self.assertIs(Format.RAW, self.images.cache.base(key).record.format)


class BlameTest(base.TestCase):
    """Whether the image or the host is at fault if qemu-img fails."""

    def setUp(self) -> None:
        super().setUp()
        self.image = Validated(self.root / "image", Format.QCOW2, SIZE)
        self.policy = Policy(self.root)

    def blamed(self, content: bytes, error: exception.HostError
               ) -> type[exception.ImageCacheError]:
        self.image.path.write_bytes(content)
        with self.assertRaises(exception.ImageCacheError) as caught, \
                verify.blaming(self.image, "x", self.policy):
            raise error
        return type(caught.exception)

    def failure(self, code: int, limit: str | None = None
                ) -> exception.CommandFailed:
        return exception.CommandFailed(command="qemu-img", exit_code=code,
                                       limit=limit, stderr="it failed")

    def asked(self, error: exception.HostError
              ) -> type[exception.ImageCacheError]:
        """Return what is raised if ``qemu-img info`` fails on the image."""
        with mock.patch.object(verify.qemu_img, "info", side_effect=error), \
                self.assertRaises(exception.ImageCacheError) as caught:
            verify.confirm(self.image.path, Found(Format.QCOW2, SIZE), "x",
                           self.policy)
        return type(caught.exception)

    def test_the_image_is_at_fault_if_qemu_img_cannot_open_it(self) -> None:
        self.image.path.write_bytes(QCOW2)
        for error in (self.failure(1), self.failure(-24, "CPU time"),
                      self.failure(1, "memory")):
            self.assertIs(exception.ImageUnacceptable, self.asked(error))

    def test_the_host_is_at_fault_if_qemu_img_did_not_finish(self) -> None:
        self.image.path.write_bytes(QCOW2)
        for error in (
                self.failure(-9), self.failure(-15),
                exception.CommandNotFound(command="qemu-img"),
                exception.CommandTimedOut(command="qemu-img", timeout=1)):
            self.assertIs(type(error), self.asked(error))

    def test_the_host_is_at_fault_if_qemu_img_met_an_unreadable_file(
            self) -> None:
        self.image.path.mkdir()
        self.assertIs(exception.StorageFailed, self.asked(self.failure(1)))

    def test_the_image_is_at_fault_if_its_tables_cannot_be_read(self) -> None:
        for tables in (with_l2(b"\xff" * 8), with_l2(
                (1 << 62 | 0x50000).to_bytes(8))):
            self.assertIs(exception.ImageUnacceptable,
                          self.blamed(tables, self.failure(1)))

    def test_memory_does_not_grow_with_the_number_of_errors(self) -> None:
        """qemu-img prints each error; a few KiB can have billions."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertIs(exception.ImageUnacceptable, self.blamed(
            with_errors(64 * MiB), self.failure(1)))
        self.assertLess(tracemalloc.get_traced_memory()[1], 6 * MiB)

    def test_the_host_is_at_fault_if_the_image_can_be_read(self) -> None:
        self.assertIs(exception.CommandFailed,
                      self.blamed(QCOW2, self.failure(1)))

    def test_the_host_is_at_fault_if_a_conversion_did_not_finish(self) -> None:
        broken = with_l2(b"\xff" * 8)
        slow = exception.CommandTimedOut(command="x", timeout=1)
        gone = exception.CommandNotFound(command="x")
        full = exception.NoSpace(path="x", what="x", needed=1, available=0)
        for error in (self.failure(-9), self.failure(1, "of memory"),
                      slow, gone, full):
            self.assertIs(type(error), self.blamed(broken, error))

    def test_the_host_is_at_fault_if_the_second_read_takes_too_long(
            self) -> None:
        self.policy = dataclasses.replace(
            self.policy, conversion=Limits(wall_clock=0.0001))
        self.assertIs(exception.CommandTimedOut, self.blamed(
            with_l2(b"\xff" * 8), self.failure(1)))

    def test_the_host_is_at_fault_if_the_file_cannot_be_read(self) -> None:
        self.image.path.mkdir()
        with self.assertRaises(exception.StorageFailed), \
                verify.blaming(self.image, "x", self.policy):
            raise self.failure(1)


def with_l2(entry: bytes) -> bytes:
    """Return a qcow2 image with another first entry in its first table."""
    l1 = int.from_bytes(QCOW2[40:48])
    l2 = int.from_bytes(QCOW2[l1:l1 + 8]) & (1 << 56) - 1
    return QCOW2[:l2] + entry + QCOW2[l2 + 8:]


def with_errors(size: int) -> bytes:
    """Return a qcow2 image of one L2 table, in which each entry is wrong."""
    cluster = KiB
    clusters = size // (cluster // 8 * cluster)    # that L2 tables cover
    l1 = ((1 << 63) | 3 * cluster).to_bytes(8) * clusters
    l2 = ((1 << 63) | 4 * cluster + 512).to_bytes(8) * (cluster // 8)
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 10, size, 0, clusters,
        4 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4, 104)
    table = (2 * cluster).to_bytes(8)
    counts = (1).to_bytes(2) * 5
    return b"".join(each.ljust(cluster, b"\0")
                    for each in (header, table, counts, l2)) \
        + l1.ljust(8 * cluster + len(l1), b"\0")
