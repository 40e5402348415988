# SPDX-License-Identifier: Apache-2.0
"""The tables of qcow2 images: each entry is checked, with bounded work."""

from __future__ import annotations

import io

import ddt

from hostile_images import fields, layout
from hostile_images.layout import CLUSTER, COMPRESSED, COPIED, DATA, END, entry
from imagecache.formats import qcow2, qcow2_tables
from imagecache.formats.rules import RuleViolation
from imagecache.model import GiB, MiB
from imagecache.testing import images
from imagecache.tests import base


class Sparse(io.RawIOBase):
    """A file of which a few places hold data, and which counts reads."""

    def __init__(self, size: int, parts: dict[int, bytes],
                 elsewhere: bytes) -> None:
        self.size, self.parts, self.elsewhere = size, parts, elsewhere
        self.at = self.taken = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        for start, part in self.parts.items():
            if start <= self.at < start + len(part):
                data = part[self.at - start:][:size]
                break
        else:
            data = self.elsewhere[:size]
        self.at += len(data)
        self.taken += len(data)
        return data


@ddt.ddt
class MapTest(base.TestCase):

    def validate(self, data: bytes) -> int:
        return qcow2_tables.validate(io.BytesIO(data), len(data))

    def refused(self, data: bytes) -> str:
        with self.assertRaises(RuleViolation) as caught:
            self.validate(data)
        return caught.exception.rule

    @ddt.data("", "cluster_size=512", "cluster_size=2M", "compat=0.10",
              "extended_l2=on,cluster_size=16k")
    def test_the_last_cluster_may_end_where_the_disk_ends(
            self, options: str) -> None:
        flags = ("-o", options) if options else ()
        for size in (512, MiB + 512):
            for compress in ((), ("-c",)):
                data = images.qcow2(images.content(size), *flags, *compress)
                self.assertEqual(size, self.validate(data))

    def test_the_last_cluster_must_hold_all_that_the_guest_reads(self) -> None:
        data = layout.image(size=512)
        self.assertEqual(512, self.validate(data[:DATA + 512]))
        self.assertEqual("l2-entry", self.refused(data[:DATA + 511]))

    def test_clusters_that_read_as_zeros_need_no_place(self) -> None:
        for first in (1, DATA | 1 | COPIED):
            self.validate(layout.image(l2=entry(first) + entry(DATA)))

    def test_clusters_after_the_end_of_the_disk_must_be_in_the_file(
            self) -> None:
        for last, fits in ((DATA, True), (END, False)):
            data = layout.image(l2=bytes(CLUSTER - 8) + entry(last))
            if fits:
                self.validate(data)
            else:
                self.assertEqual("l2-entry", self.refused(data))

    def test_the_last_sector_of_a_compressed_cluster_may_be_cut(self) -> None:
        at = END - 512
        self.validate(layout.image(l2=entry(COMPRESSED | at))[:-100])

    def test_compressed_clusters_are_noticed(self) -> None:
        for data, expected in (
                (layout.image(), False),
                (layout.image(l2=entry(COMPRESSED | DATA)), True),
                (images.qcow2(images.content(), "-c"), True),
                (images.qcow2(images.content(), "-o", "extended_l2=on"),
                 False),
                (images.qcow2(images.content(), "-c", "-o",
                              "extended_l2=on"), True)):
            header = qcow2.parse(data, len(data))
            self.assertIs(expected, qcow2_tables.has_compressed_clusters(
                io.BytesIO(data), header))

    @ddt.data(False, True)
    def test_one_table_named_a_thousand_times_is_not_read_as_often(
            self, compressed: bool) -> None:
        data = fields.shared(16, 1024 * GiB, compressed=compressed)
        self.assertEqual("l2-size", self.refused(data))

    def test_more_than_256_mib_of_tables_are_not_read(self) -> None:
        cluster, tables = 2 * MiB, 200
        l2 = 10 * cluster
        start = layout.header(
            cluster_bits=21, size=tables * cluster // 8 * cluster,
            l1_size=tables, l1_offset=3 * cluster, refcount_offset=cluster)
        l1 = b"".join(entry(l2 + n * cluster | COPIED) for n in range(tables))
        file = Sparse(l2 + tables * cluster, {
            0: start.ljust(cluster, b"\0"),
            cluster: entry(2 * cluster).ljust(cluster, b"\0"),
            2 * cluster: b"\0\1".ljust(cluster, b"\0"),
            3 * cluster: l1.ljust(cluster, b"\0")}, bytes(cluster))
        with self.assertRaises(RuleViolation) as caught:
            qcow2_tables.validate(file, file.size)
        self.assertEqual("l2-size", caught.exception.rule)
        self.assertLess(file.taken, 270 * MiB)
