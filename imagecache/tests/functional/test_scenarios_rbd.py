# SPDX-License-Identifier: Apache-2.0
"""The scenarios of images_type=rbd: raw, converted once, and cloned."""

from __future__ import annotations

import json
import sys

import ddt

from imagecache import ImageCache, imagebackend
from imagecache.model import Format
from imagecache.tests.functional import boot, ceph_cluster, rbd_case, scenarios
from imagecache.tests.functional.scenarios import (
    FETCH_RAW,
    IMAGE_SIZE,
    SIZE,
    run,
)

# Into the base's volume, through a socket that this library serves.
INTO_POOL = [*FETCH_RAW[:3], FETCH_RAW[3].replace("-T writeback ", "").replace(
    " output", ' json:{"driver": "raw", "file": {"driver": "nbd", "server":'
    ' {"type": "fd", "str": "0"}}}'), "rm download"]


@ddt.ddt
class RbdTest(scenarios.ScenarioTestCase):

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ceph = ceph_cluster.CephCluster()
        cls.ceph.setUp()
        cls.addClassCleanup(cls.ceph.cleanUp)

    def configure(self, **options: object) -> None:
        super().configure(
            libvirt__images_type="rbd", libvirt__images_rbd_pool="vms",
            libvirt__rbd_user="imagecache",
            libvirt__rbd_connect_timeout=rbd_case.PATIENCE,
            libvirt__images_rbd_ceph_conf=self.ceph.conf,
            image_cache__rbd_base_pool="bases", **options)

    @ddt.data(True, False)
    def test_a_qcow2_image_is_converted_into_the_pool_once(self, cow):
        """use_cow_images makes no difference."""
        raw = self.filesystem()
        self.publish(self.qcow2(raw))
        self.configure(use_cow_images=cow)
        self.assert_made(INTO_POOL)
        self.assert_volume(raw)
        self.assert_made([])    # but for what librbd does
        self.assert_volume(raw)
        [base] = [each for each in ImageCache(self.conf()).bases()
                  if each.key == self.key]
        self.assertEqual((Format.RAW, IMAGE_SIZE),
                         (base.record.format, base.record.virtual_size))
        self.assert_files(disks=0)

    def test_a_partitioned_image_is_what_it_was(self):
        raw = self.partitioned()
        self.publish(self.qcow2(raw))
        self.configure()
        self.assert_made(INTO_POOL)
        self.assert_volume(raw)

    def test_bases_that_are_not_raw_are_refused_before_anything_is_done(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(force_raw_images=False)
        for api in ("ImageCache", "imagebackend"):
            outcome = self.make(api=api)
            self.assertEqual("InvalidConfiguration", outcome.error[0])
            self.assertIn("force_raw_images", outcome.error[1])
            self.assertEqual([], outcome.steps)
        self.assert_files(disks=0)

    def test_a_guest_sees_the_size(self):
        image = self.useFixture(boot.BootImage())
        self.publish(image.path)
        self.configure()
        self.assertIsNone(self.make().error)
        report = image.boot(self.described().path, "raw")
        self.assertEqual((SIZE, boot.TOKEN),
                         (report.disk_bytes, report.token))

    def assert_volume(self, content) -> None:
        """Check a disk, and that all APIs describe it in the same way."""
        disk, image = self.disk(), self.described()
        self.assertEqual((SIZE, Format.RAW, f"vms/{self.instance}_disk"),
                         (disk.size(), disk.format, str(disk.path)))
        found = json.loads(run("qemu-img", "info", "-U", "--output=json",
                               "-f", "raw", image.path))
        self.assertEqual((SIZE, "raw"),
                         (found["virtual-size"], found["format"]))
        element = image.libvirt_info("none", {}).format_dom()
        self.assertEqual(
            ("network", "raw", "raw", str(disk.path)), (
                element.get("type"), image.driver_format,
                element.find("driver").get("type"),
                element.find("source").get("name")))
        shown = json.loads(run(
            sys.executable, "-c", scenarios.COMMAND, "--config-file",
            self.config, "disk", "show", "--instance", self.instance,
            "-f", "json"))
        self.assertEqual((str(disk.path), "raw", SIZE), (
            shown["path"], shown["format"], shown["size"]))
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", content,
            image.path)

    def described(self) -> imagebackend.Image:
        return imagebackend.Backend(conf=self.conf()).by_name(
            {"uuid": self.instance}, "disk",
            disk_info_mapping=scenarios.MAPPING)
