# SPDX-License-Identifier: Apache-2.0
"""The scenarios of images_type=lvm: raw, for each force_raw_images."""

from __future__ import annotations

import json
import sys

import ddt

from imagecache import imagebackend, imagemodel
from imagecache.model import Format
from imagecache.testing import images
from imagecache.tests.functional import boot, scenarios
from imagecache.tests.functional.scenarios import (
    FETCH_AS_IT_IS,
    FETCH_RAW,
    GROW,
    SIZE,
    run,
)
from imagecache.tests.guest import volume_group


@ddt.ddt
class LvmTest(volume_group.VolumeGroupMixin, scenarios.ScenarioTestCase):

    def configure(self, **options):
        self.addCleanup(run, "lvremove", "--quiet", "--yes",
                        volume_group.GROUP)
        scenarios.ScenarioTestCase.configure(
            self, libvirt__images_type="lvm",
            libvirt__images_volume_group=volume_group.GROUP, **options)

    @ddt.data(True, False)
    def test_a_volume_is_raw_whatever_its_base(self, force_raw):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(force_raw_images=force_raw)
        outcome = self.make()
        self.assertIsNone(outcome.error, outcome.log)
        base = "raw" if force_raw else "qcow2"
        self.assertEqual([
            *(FETCH_RAW if force_raw else FETCH_AS_IT_IS),
            "lvcreate --yes --wipesignatures y --zero y --size"
            f" {SIZE}b --addtag imagecache.disk --name volume.new vg",
            f"qemu-img convert -q -n -W -T writeback -t none -f {base} -O raw"
            " base volume.new",
            *(each.replace("disk.new", "volume.new") for each in GROW),
            "lvrename vg volume.new volume"],
            [step for step in outcome.steps     # but for questions
             if not step.startswith(("lvs ", "vgs "))])
        self.assert_volume()
        self.assert_files("base", disks=0)

    def test_partitions_are_left_alone(self):
        image = self.partitioned()
        self.publish(self.qcow2(image))
        self.configure()
        outcome = self.make()
        self.assertIsNone(outcome.error, outcome.log)
        self.assertNotIn("dumpe2fs", " ".join(outcome.steps))
        # What is behind is what the last test left there.
        run("cmp", "--bytes", image.stat().st_size, image, self.disk().path)

    def test_a_guest_sees_the_size_and_its_file_system_fills_it(self):
        image = self.useFixture(boot.BootImage())
        self.publish(image.path)
        self.configure()
        self.assertIsNone(self.make().error)
        report = image.boot(self.disk().path, "raw")
        self.assertEqual((SIZE, boot.TOKEN),
                         (report.disk_bytes, report.token))
        self.assertGreater(report.fs_bytes, SIZE * 3 // 4)

    def assert_volume(self) -> None:
        disk = self.disk()
        self.assertEqual([f"{self.instance}_disk"], run(
            "lvs", "--noheadings", "-o", "lv_name",
            volume_group.GROUP).split())
        self.assertEqual(SIZE, int(run("blockdev", "--getsize64",
                                       disk.path)))
        self.assertEqual(SIZE, images.ext_size(disk.path))
        run("e2fsck", "-f", "-n", disk.path)
        self.assertEqual((SIZE, Format.RAW), (disk.size(), disk.format))
        image = imagebackend.Backend(conf=self.conf()).by_name(
            {"uuid": self.instance}, "disk",
            disk_info_mapping=scenarios.MAPPING)
        element = image.libvirt_info("none", {}).format_dom()
        self.assertEqual(
            ("raw", "raw", str(disk.path)), (
                image.driver_format, element.find("driver").get("type"),
                element.find("source").get("dev")))
        self.assertEqual(imagemodel.LocalBlockImage(str(disk.path)),
                         image.get_model(None))
        shown = json.loads(run(
            sys.executable, "-c", scenarios.COMMAND, "--config-file",
            self.config, "disk", "show", "--instance", self.instance,
            "-f", "json"))
        self.assertEqual((str(disk.path), "raw", SIZE), (
            shown["path"], shown["format"], shown["size"]))
