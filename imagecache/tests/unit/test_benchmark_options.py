# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the options, at a size at which its times mean nothing."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
from unittest import mock

import fixtures

from benchmarks import (
    boot_io,
    cloud_image,
    guest_crowd,
    guest_reads,
    guest_writes,
    options,
    preprocessing,
    report,
    site,
    space,
    volume,
)
from imagecache.model import GiB, KiB, MiB
from imagecache.tests import base

TINY = site.Scale(image=8 * MiB, data=MiB, disk=12 * MiB, large=GiB,
                  instances=2, rounds=1, read_rounds=2, reads=512 * KiB,
                  slow_reads=256 * KiB, random_reads=10,
                  write_rounds=2, writes=512 * KiB, random_writes=10)


class TinyTest(base.TestCase):

    def setUp(self):
        super().setUp()
        sources = self.root / "sources"
        shutil.copytree(pathlib.Path(options.__file__).parent, sources,
                        ignore=shutil.ignore_patterns("__pycache__"))
        for name in range(8):    # and something as large as programs are
            (sources / f"noise-{name}").write_bytes(os.urandom(60 * KiB))
        self.image = cloud_image.make(self.root, TINY.image, TINY.data,
                                      [sources])
        # Others' data are not ours to wait for.
        self.useFixture(fixtures.MockPatch("os.sync"))


class OptionsTest(TinyTest):

    def setUp(self):
        super().setUp()
        self.site = site.Site(self.image, TINY, self.volume)
        self.useFixture(fixtures.MockPatchObject(
            site.Site, "shares_blocks", ()))

    def volume(self, kind):
        path = self.root / f"volume-{kind}"
        path.mkdir(exist_ok=True)
        return mock.MagicMock(__enter__=lambda _: volume.Directory(path))

    def measured(self, part):
        results = list(part.measure(self.site))
        for result in results:
            self.assertTrue(report.table(result))
            if result.chart:
                for row in result.rows:
                    self.assertLessEqual(set(result.chart.bars),
                                         set(row.values))
        return results

    def rows(self, result):
        return {row.name: row.values for row in result.rows}

    def test_every_combination_of_options_meets_every_kind_of_image(self):
        [result] = self.measured(boot_io)
        self.assertEqual(
            {f"{kind}: {each.name}" for kind in cloud_image.KINDS
             for each in site.COMBINATIONS}, set(self.rows(result)))
        for values in self.rows(result).values():
            self.assertGreaterEqual(values["first MiB"], values["next MiB"])

    def test_the_space_is_that_of_the_cache_and_the_disks(self):
        [result] = self.measured(space)
        rows = self.rows(result)
        for values in rows.values():
            self.assertAlmostEqual(
                values["all MiB"], values["cache MiB"] + values["disks MiB"])
            self.assertAlmostEqual(
                values["disks MiB"], TINY.instances * values["each MiB"])
        self.assertLess(rows["overlay, raw base"]["each MiB"],
                        rows["raw copy"]["each MiB"])
        self.assertGreaterEqual(
            rows["raw copy, preallocated"]["each MiB"], TINY.disk / MiB)

    def test_a_resized_base_takes_the_space_of_its_data_again(self):
        large = dataclasses.replace(self.site, scale=dataclasses.replace(
            TINY, disk=GiB))
        layouts = {layout.name: layout for layout in space.LAYOUTS}
        with self.volume("ext4") as where:
            plain, resized = (
                space._row(large, where, layouts[name]).values["cache MiB"]
                for name in ("overlay, raw base", "overlay, resized base"))
        self.assertGreater(resized, 1.5 * plain)

    def test_reads_are_compared_with_those_of_a_raw_disk(self):
        *tables, together = self.measured(guest_reads)
        self.assertEqual(4, len(tables))
        for table in tables:
            rows = self.rows(table)
            self.assertEqual(1, rows["raw disk"]["ratio"])
            for name, values in rows.items():
                self.assertLessEqual(values["slowest MiB/s"],
                                     values["MiB/s "])
                self.assertLessEqual(values["MiB/s "],
                                     values["fastest MiB/s"])
                self.assertIn(values["ratio"],
                              self.rows(together)[name].values())

    def test_writes_are_compared_with_those_to_a_raw_copy(self):
        *tables, together = self.measured(guest_writes)
        self.assertEqual([512 * KiB / MiB, 40 * KiB / MiB], [
            table.rows[0].values["given MiB"] for table in tables])
        for table in tables:
            self.assertEqual(1, self.rows(table)["raw copy"]["ratio"])
            for name, values in self.rows(table).items():
                self.assertIn(values["ratio"],
                              self.rows(together)[name].values())

    def test_a_crowd_of_guests_is_met_by_copies_and_by_overlays(self):
        [result] = self.measured(guest_crowd)
        self.assertEqual(["raw copies, none", "raw copies, writeback",
                          "overlays, none", "overlays, writeback"],
                         list(self.rows(result)))
        self.assertEqual(1, self.rows(result)["raw copies, none"]["ratio"])

    def test_a_read_that_fails_is_an_error(self):
        self.assertRaisesRegex(
            RuntimeError, "read failed",
            guest_reads.obey,
            ["qemu-io", "--image-opts",
             f"driver=raw,file.driver=file,file.filename={self.image.raw}"],
            f"read -q {GiB} 4096\n")

    def test_the_steps_make_up_the_time_of_a_first_disk(self):
        steps, growing = self.measured(preprocessing)
        for name, values in self.rows(steps).items():
            together = sum(values[each] for each in preprocessing._STEPS)
            self.assertLessEqual(together, values["all s"])
            self.assertEqual("to raw" in name and "raw," not in name,
                             values["convert s"] > 0)
        self.assertEqual(5, len(growing.rows))
        self.assertRegex(growing.notes[1], r"changes [1-9]\d* clusters")


class CloudImageTest(TinyTest):

    def test_one_content_is_in_all_three_files(self):
        for path in self.image.plain, self.image.compressed:
            subprocess.run(
                ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2",
                 self.image.raw, path], check=True)
        self.assertLess(self.image.compressed.stat().st_size,
                        self.image.plain.stat().st_size)

    def test_a_sample_is_the_same_each_time_and_not_too_large(self):
        sources = self.root / "small"
        sources.mkdir()
        for number in range(40):
            (sources / str(number)).write_bytes(bytes(KiB))
        one, other = (list(cloud_image.sample([sources], 20 * KiB))
                      for _ in range(2))
        self.assertEqual(one, other)
        self.assertEqual(20, len(one))


class VolumeTest(base.TestCase):

    def test_a_cleared_directory_is_empty_and_takes_no_space(self):
        directory = volume.Directory(self.root)
        (self.root / "file").write_bytes(os.urandom(MiB))
        self.assertGreaterEqual(directory.used(), MiB)
        directory.clear()
        self.assertEqual(0, directory.used())
