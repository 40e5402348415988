# SPDX-License-Identifier: Apache-2.0
"""Scenarios of force_raw_images=False and of images_type."""

from __future__ import annotations

import json
import pathlib

import ddt

from imagecache.model import KiB, MiB
from imagecache.testing import images
from imagecache.tests.functional import scenarios
from imagecache.tests.functional.scenarios import (
    APPEAR,
    COPY,
    FETCH_AS_IT_IS,
    FETCH_RAW,
    GROW,
    IMAGE_SIZE,
    KEEP,
    SIZE,
    overlay,
    run,
)


def compressed(path: pathlib.Path) -> int:
    """Return how many clusters of a qcow2 are compressed."""
    return json.loads(run("qemu-img", "check", "--output=json", "-f",
                          "qcow2", path))["compressed-clusters"]


@ddt.ddt
class AsItIsTest(scenarios.ScenarioTestCase):
    """force_raw_images=False: a qcow2 image stays qcow2."""

    @ddt.data(True, False)
    def test_a_compressed_image_stays_compressed(self, cow):
        image = self.qcow2(self.filesystem(), "-c")
        self.publish(image)
        self.configure(force_raw_images=False, use_cow_images=cow)
        self.assertIsNone(self.make().error)
        self.assertGreater(compressed(image), 0)
        self.assertTrue(self.base().read_bytes() == image.read_bytes())
        if not cow:
            self.assertEqual(compressed(image),
                             compressed(self.disk().path))

    @ddt.data(True, False)
    def test_a_sparse_image_stays_sparse(self, cow):
        image = self.root / "image.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
            "preallocation=metadata", image, str(IMAGE_SIZE))
        images.write(image, "qcow2", images.content(MiB))
        self.assertGreater(image.stat().st_size, IMAGE_SIZE)
        self.publish(image)
        self.configure(force_raw_images=False, use_cow_images=cow)
        self.assertIsNone(self.make().error)
        self.assertEqual(image.stat().st_size, self.base().stat().st_size)
        for path in (self.base(), self.disk().path):
            self.assertLess(path.stat().st_blocks * 512, IMAGE_SIZE // 8)

    def test_an_overlay_has_the_clusters_of_its_base_and_names_its_format(
            self):
        self.publish(self.qcow2(self.filesystem(), "-o", "cluster_size=2M"))
        self.configure(force_raw_images=False)
        self.assert_made([*FETCH_AS_IT_IS,
                          overlay("qcow2", cluster_size=2048 * KiB), *APPEAR])
        self.assert_disk("qcow2", [("base", "qcow2")])

    def test_a_copy_grows_as_qcow2(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(force_raw_images=False, use_cow_images=False)
        self.assertIsNone(self.make().error)
        # The options may have changed since.
        self.configure()
        self.assert_made([
            f"qemu-img resize -q -f qcow2 disk {2 * SIZE}"], size=2 * SIZE,
            instance=self.instance)
        self.assert_disk("qcow2", [], 2 * SIZE)
        self.assert_filesystem(IMAGE_SIZE)

    @ddt.data(True, False)
    def test_a_raw_image_is_a_raw_base(self, cow):
        self.publish(self.filesystem(), "raw")
        self.configure(force_raw_images=False, use_cow_images=cow)
        fetch = ["write download", *KEEP]
        if cow:
            self.assert_made([*fetch, overlay("raw"), *APPEAR])
            self.assert_disk("qcow2", [("base", "raw")])
            self.assert_filesystem(IMAGE_SIZE)
        else:
            self.assert_made([*fetch, COPY, *GROW, *APPEAR])
            self.assert_disk("raw", [])
            self.assert_filesystem(SIZE)


@ddt.ddt
class ImagesTypeTest(scenarios.ScenarioTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.publish(self.qcow2(self.filesystem()))

    def assert_is(self, format: str) -> str:
        """Check what disks are made; return the log of the agent."""
        outcome = self.make()
        self.assertIsNone(outcome.error, outcome.log)
        made = [overlay("raw")] if format == "qcow2" else [COPY, *GROW]
        self.assertEqual([*FETCH_RAW, *made, *APPEAR], outcome.steps)
        self.assert_disk(format, [("base", "raw")] if format == "qcow2"
                         else [])
        return outcome.log

    @ddt.data(("raw", "raw"), ("flat", "raw"), ("qcow2", "qcow2"))
    @ddt.unpack
    def test_a_type_counts_for_each_use_cow_images(self, name, format):
        self.configure(libvirt__images_type=name,
                       use_cow_images=format == "raw")
        self.assert_is(format)

    @ddt.data((True, "qcow2"), (False, "raw"))
    @ddt.unpack
    def test_default_asks_use_cow_images(self, cow, format):
        self.configure(libvirt__images_type="default", use_cow_images=cow)
        self.assertIn('Option "use_cow_images" from group "DEFAULT" is'
                      " deprecated", self.assert_is(format))

    @ddt.data(("raw", "raw"), ("qcow2", "qcow2"))
    @ddt.unpack
    def test_the_name_of_folsom_is_understood_and_deprecated(
            self, name, format):
        self.configure(libvirt_images_type=name,
                       use_cow_images=format == "raw")
        self.assertIn('Option "libvirt_images_type" from group "DEFAULT" is'
                      " deprecated", self.assert_is(format))

    def test_without_any_option_nothing_is_deprecated(self):
        self.configure()
        self.assertNotIn("deprecated", self.assert_is("qcow2"))

    def test_an_unknown_type_is_refused(self):
        self.configure(libvirt__images_type="wax")
        outcome = self.make()
        self.assertEqual("InvalidConfiguration", outcome.error[0])
        self.assertEqual([], outcome.steps)
