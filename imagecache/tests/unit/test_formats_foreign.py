# SPDX-License-Identifier: Apache-2.0
"""vhd, vhdx and vdi: what is read of them, and how large they are."""

from __future__ import annotations

import io

import hostile_images as corpus
from hostile_images import foreign
from imagecache import fixture
from imagecache.formats import vdi, vhd, vhdx
from imagecache.formats.rules import RuleViolation
from imagecache.model import KiB, MiB
from imagecache.testing import images
from imagecache.tests import base


class SizeTest(base.TestCase):

    def test_a_vhd_has_the_size_of_its_geometry(self) -> None:
        for geometry, size in ((b"\x01\x00\x04\x11", 256 * 4 * 17 * 512),
                               (b"\x00\x01\x01\x01", 512)):
            data = foreign.vhd(geometry=geometry, size=MiB,
                               entries=(8).to_bytes(4))
            self.assertEqual(size, vhd.validate(io.BytesIO(data), len(data)))

    def test_a_vhd_of_some_programs_has_the_size_it_states(self) -> None:
        for creator in (b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0"):
            data = foreign.vhd(creator=creator, size=MiB + 513)
            self.assertEqual(MiB + 512,
                             vhd.validate(io.BytesIO(data), len(data)))

    def test_a_vhd_of_the_largest_geometry_has_the_size_it_states(
            self) -> None:
        data = foreign.vhd(geometry=b"\xff\xff\x10\xff", size=MiB)
        self.assertEqual(MiB, vhd.validate(io.BytesIO(data), len(data)))

    def test_the_size_of_a_vdi_is_rounded_up_to_sectors(self) -> None:
        data = foreign.vdi(size=MiB - 1000)
        self.assertEqual(MiB - 512,
                         vdi.validate(io.BytesIO(data), len(data)))

    def test_qemu_img_agrees_with_each_size(self) -> None:
        cache = self.useFixture(fixture.ImageCacheFixture())
        cache.config("image_cache", accepted_formats=[
            "raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi"])
        for sample in corpus.allowed():
            with self.subTest(sample.id):
                image = cache.add(sample.build(), sample.claim)
                self.assertEqual(len(sample.seen()),
                                 cache.cache.fetch(image).virtual_size)


class BoundsTest(base.TestCase):

    def test_a_block_table_of_vhdx_larger_than_64_mib_is_refused(
            self) -> None:
        region = (16 * MiB).to_bytes(8, "little")
        for size, rule in ((64, None), (65, "vhdx-bat-size")):
            data = foreign.vhdx(regions={
                32: region + (size * MiB).to_bytes(4, "little")})
            with self.subTest(size):
                self.assertEqual(rule, self._violated(
                    data.ljust(16 * MiB + 64 * KiB, b"\0"), 90 * MiB))

    def test_the_last_block_may_end_where_the_disk_ends(self) -> None:
        half = MiB // 2
        content = images.content(half)
        data = images.convert(content, "vhdx", "-o", "block_size=1M")
        self.assertIsNone(self._violated(data, len(data) - half))
        self.assertEqual("vhdx-bat",
                         self._violated(data, len(data) - half - 1))
        data = images.convert(content, "vdi")
        self.assertEqual(half, vdi.validate(
            io.BytesIO(data[:-half]), len(data) - half))
        with self.assertRaises(RuleViolation):
            vdi.validate(io.BytesIO(data[:-half - 1]), len(data) - half - 1)

    def _violated(self, data: bytes, size: int) -> str | None:
        try:
            vhdx.validate(io.BytesIO(data), size)
        except RuleViolation as e:
            return e.rule
        return None
