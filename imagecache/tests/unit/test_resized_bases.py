# SPDX-License-Identifier: Apache-2.0
"""Folsom's layout: a base for each size of its disks."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import threading
from unittest import mock

from imagecache import exception, fixture
from imagecache.backends import Disk
from imagecache.bases import pipeline
from imagecache.model import SECTOR, Format, GiB, MiB
from imagecache.sources import templates
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import base
from imagecache.tools import qemu_nbd


class ResizedTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("image_cache", resized_bases=True)
        self.bases = self.images.instances_path / "_base"
        path = self.root / "image"
        templates.ephemeral(4 * MiB, "ext4", "label").write(path)
        self.content = path.read_bytes()
        self.image = self.images.add(self.content)

    def make(self, size: int | None = GiB, instance: str = INSTANCE) -> Disk:
        return self.images.cache.create_disk(instance, self.image, size=size)

    def keys(self) -> list[str]:
        return [entry.key for entry in self.images.cache.bases()]

    @property
    def key(self) -> str:
        return self.images.store.describe(self.image).key

    def assert_clean(self) -> None:
        """Check that the directory holds only bases and records."""
        self.assertEqual({*self.keys(),
                          *(f"{key}.json" for key in self.keys())},
                         set(os.listdir(self.bases)))


class ResizedTest(ResizedTestCase):

    def test_one_resized_base_is_made_for_each_size(self) -> None:
        made = [self.make(size, name).base_key() for size, name in
                ((GiB, "a"), (2 * GiB, "b"), (GiB, "c"))]
        self.assertEqual([f"{self.key}_{n}" for n in (1, 2, 1)], made)
        self.assertEqual([self.key, f"{self.key}_1", f"{self.key}_2"],
                         self.keys())
        self.assertEqual(1, self.images.store.reads)
        self.assertEqual(3, self.images.heard.count("committed"))
        self.assert_clean()

    def test_the_file_system_of_a_resized_base_fills_it(self) -> None:
        self.make()
        for key, size in ((self.key, 4 * MiB), (f"{self.key}_1", GiB)):
            path = self.bases / key
            self.assertEqual((size, size), (
                images.ext_size(path), path.stat().st_size))
            self.assertEqual(0o444, path.stat().st_mode & 0o777)
        subprocess.run(["e2fsck", "-f", "-n", self.bases / f"{self.key}_1"],
                       check=True, capture_output=True)

    def test_a_resized_base_takes_only_the_space_of_its_data(self) -> None:
        self.make()
        self.assertLess((self.bases / f"{self.key}_1").stat().st_blocks * 512,
                        32 * MiB)

    def test_a_resized_base_is_flushed_before_its_commit(self) -> None:
        self.images.cache.fetch(self.image)
        with mock.patch.object(pipeline.durable, "written",
                               wraps=pipeline.durable.written) as written:
            self.make()
        [flushed] = [call.args[0] for call in written.call_args_list]
        self.assertTrue(flushed.parent.name.startswith(f"{self.key}_1."))

    def test_the_record_of_a_resized_base_names_its_image(self) -> None:
        self.make()
        own, resized = (json.loads((self.bases / f"{key}.json").read_bytes())
                        for key in (self.key, f"{self.key}_1"))
        self.assertEqual(own | {
            "virtual_size": GiB, "size": GiB,
            "committed": resized["committed"]}, resized)

    def test_a_qcow2_base_is_resized_as_qcow2(self) -> None:
        self.images.config(force_raw_images=False)
        self.image = self.images.add(images.qcow2(
            self.content, "-c", "-o", "cluster_size=16k"), "qcow2")
        disk = self.make()
        [_, entry] = self.images.cache.bases()
        self.assertEqual((f"{self.key}_1", Format.QCOW2, GiB, 16 * 1024), (
            disk.base_key(), entry.record.format, entry.record.virtual_size,
            entry.record.cluster_size))
        self.assertEqual((GiB, 16 * 1024), (
            disk.size(), images.info(disk.path)["cluster-size"]))

    def test_a_broken_file_system_keeps_its_size_and_the_disk_is_made(
            self) -> None:
        image = self.root / "image"
        subprocess.run(["debugfs", "-w", "-R", "clri <2>", image], check=True,
                       capture_output=True)    # no root directory
        self.image = self.images.add(image.read_bytes())
        self.assertEqual(GiB, self.make().size())
        [kept] = [e for e in self.images.events
                  if e.name == "filesystem_not_resized"]
        self.assertEqual(f"{self.key}_1", kept.subject)
        self.assertIn("e2fsck", kept.facts["reason"])

    def test_fetching_an_image_does_not_make_a_resized_base(self) -> None:
        self.make()
        self.assertEqual(self.key,
                         self.images.cache.base(self.image).key)

    def test_the_size_limit_of_images_does_not_limit_resized_bases(
            self) -> None:
        self.images.config("image_cache", max_virtual_size=1)
        for name in "ab":
            self.assertEqual(2 * GiB, self.make(2 * GiB, name).size())


class NotResizedTest(ResizedTestCase):
    """The disk is made of the base of its image."""

    def assert_own(self, disk: Disk, *reasons: str) -> None:
        self.assertEqual([self.key], self.keys())
        self.assertEqual(self.key, disk.base_key())
        self.assertEqual(list(reasons), [
            e.facts["reason"] for e in self.images.events
            if e.name == "base_not_resized"])

    def test_no_base_is_resized_without_the_option(self) -> None:
        self.images.config("image_cache", resized_bases=False)
        self.assert_own(self.make())

    def test_no_base_is_resized_to_a_part_of_a_gib(self) -> None:
        with self.assertLogs("imagecache", "DEBUG") as log:
            self.assert_own(
                self.make(GiB + MiB), "bases are resized to whole GiB, and"
                f" {GiB + MiB} bytes are not")
        self.assertIn("base_not_resized", "".join(log.output))

    def test_no_base_is_resized_for_a_disk_without_a_size(self) -> None:
        self.assert_own(self.make(None))

    def test_no_base_is_resized_to_the_size_of_its_image(self) -> None:
        self.image = self.images.add(images.create("qcow2", size=GiB),
                                     "qcow2")
        self.assert_own(self.make())

    def test_the_base_of_a_template_is_not_resized(self) -> None:
        self.images.cache.create_swap(INSTANCE, GiB)
        self.assertEqual(["swap_1024"], self.keys())

    def test_no_base_is_resized_for_a_copy(self) -> None:
        self.images.config(use_cow_images=False)
        disk = self.make()
        self.assertEqual([self.key], self.keys())
        self.assertEqual(GiB, images.ext_size(disk.path))


class LifeTest(ResizedTestCase):

    def test_a_resized_base_is_removed_like_any_base(self) -> None:
        disk = self.make()
        cache, key = self.images.cache, f"{self.key}_1"
        self.assertRaises(exception.BaseInUse, cache.remove_base, key)
        disk.remove()
        cache.remove_base(key)
        self.assertEqual([self.key], self.keys())
        self.assert_clean()

    def test_a_resized_base_does_not_need_the_base_of_its_image(self) -> None:
        self.make()
        self.images.cache.remove_base(self.image)
        self.make(instance=OTHER)
        self.assertEqual(([f"{self.key}_1"], 1),
                         (self.keys(), self.images.store.reads))

    def test_a_lost_resized_base_is_made_again_for_its_disk(self) -> None:
        disk = self.make()
        before = self.beginning(disk)
        for resized in (True, False):
            self.images.config("image_cache", resized_bases=resized)
            disk.cache.store.remove(disk.base_key())
            self.make()
            now = self.beginning(disk)
            # A few sectors differ, because they hold the time of resizing.
            self.assertLess(sum(
                before[i:i + SECTOR] != now[i:i + SECTOR]
                for i in range(0, len(now), SECTOR)), 100)
        self.assertEqual(1, self.images.store.reads)

    def beginning(self, disk: Disk) -> bytes:
        """Return 64 of the 1024 MiB of a disk: its file system holds less."""
        output = self.root / "beginning"
        subprocess.run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw",
                        "bs=1M", "count=64", f"if={disk.path}",
                        f"of={output}"], check=True)
        return output.read_bytes()

    def test_a_lost_resized_base_is_not_replaced_by_another_format(
            self) -> None:
        self.image = self.images.add(images.qcow2(self.content), "qcow2")
        disk = self.make()
        for key in self.keys():
            disk.cache.store.remove(key)
        self.images.config(force_raw_images=False)
        self.images.cache.fetch(self.image)
        self.assertRaises(exception.StorageFailed, self.make)
        self.assertEqual([self.key], self.keys())
        self.images.cache.remove_base(self.key)
        self.make()
        self.assertEqual([Format.RAW] * 2, [
            entry.record.format for entry in self.images.cache.bases()])

    def test_a_failed_resize_leaves_no_base(self) -> None:
        full = exception.NoSpace(path="/", what="cp", needed=2, available=1)
        with mock.patch.object(pipeline.file_copy, "copy",
                               side_effect=full):
            self.assertRaises(exception.NoSpace, self.make)
        self.assertEqual([self.key], self.keys())
        self.assertEqual([], list(self.images.cache.disks()))
        self.assert_clean()
        self.assertEqual(f"{self.key}_1", self.make().base_key())

    def test_the_base_of_the_image_is_locked_while_it_is_resized(self) -> None:
        cache = self.images.cache
        remover = threading.Thread(
            target=lambda: cache.remove_base(self.key))
        copy = pipeline.file_copy.copy

        def copying(source: pathlib.Path, output: pathlib.Path) -> None:
            remover.start()
            remover.join(0.2)
            self.assertTrue(remover.is_alive())
            copy(source, output)

        with mock.patch.object(pipeline.file_copy, "copy", copying):
            self.make()
        remover.join()
        self.assertEqual([f"{self.key}_1"], self.keys())

    def test_threads_that_need_a_resized_base_at_once_share_one(self) -> None:
        with mock.patch.object(pipeline.file_copy, "copy",
                               wraps=pipeline.file_copy.copy) as copy:
            threads = [threading.Thread(target=self.make, args=(GiB, name))
                       for name in "abc"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(1, copy.call_count)
        self.assertEqual(3, len(list(self.images.cache.disks())))

    def test_a_resized_base_is_refused_for_changed_image_data(self) -> None:
        self.make()
        self.images.store.add(images.content(MiB), "raw",
                              image_id=self.image)
        self.images.cache.remove_base(self.key)
        self.assertRaises(exception.ImageChanged, self.make, GiB, OTHER)

    def test_min_disk_applies_to_a_resized_base(self) -> None:
        self.make()
        self.images.store.add(self.content, "raw", image_id=self.image,
                              min_disk=2 * GiB)
        self.assertRaises(exception.FlavorDiskSmallerThanMinDisk,
                          self.make, GiB, OTHER)


class AdoptedTest(ResizedTestCase):
    """Resized bases that nova made, in Folsom or to repair an overlay."""

    def leave(self, size: int) -> None:
        self.bases.mkdir()
        path = self.bases / f"{self.key}_1"
        path.write_bytes(self.content)
        os.truncate(path, size)

    def test_a_resized_base_of_nova_is_validated_and_used(self) -> None:
        self.leave(GiB)
        disk = self.make()
        self.assertEqual((f"{self.key}_1", GiB),
                         (disk.base_key(), disk.size()))
        self.assertEqual(["adopted", "hit", "created"], self.images.heard)
        self.assertEqual(0, self.images.store.reads)

    def test_an_unfinished_resized_base_of_nova_is_refused(self) -> None:
        self.leave(4 * MiB)
        with self.assertRaises(exception.StorageFailed) as caught:
            self.make()
        self.assertIn(f"{self.key}_1", str(caught.exception))
        self.assertEqual([], list(self.images.cache.disks()))
        self.assertEqual(4 * MiB,
                         (self.bases / f"{self.key}_1").stat().st_size)

    def test_a_resized_base_with_a_foreign_backing_file_is_refused(
            self) -> None:
        self.bases.mkdir()
        (self.bases / f"{self.key}_1").write_bytes(
            images.backed_by(pathlib.Path("/etc/passwd"), size=GiB))
        self.assertRaises(exception.ImageUnacceptable, self.make)

    def test_a_resized_base_that_is_too_large_leaves_nothing(self) -> None:
        self.assertRaises(exception.HostError, self.make, 2**62)
        self.assertEqual([self.key], self.keys())
        self.assert_clean()


class BlockDeviceTest(ResizedTestCase):
    """With resize_fs_using_block_device, on a machine without nbd."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(
            qemu_nbd, "devices", return_value=[]))
        self.images.config(resize_fs_using_block_device=True)

    def test_resizing_a_raw_base_needs_no_block_device(self) -> None:
        self.make()
        self.assertEqual(GiB, images.ext_size(self.bases / f"{self.key}_1"))

    def test_a_file_system_in_a_qcow2_base_grows_in_the_disk(self) -> None:
        self.images.config(force_raw_images=False)
        self.image = self.images.add(images.qcow2(self.content), "qcow2")
        self.assertRaises(exception.NbdUnavailable, self.make)
        self.assertEqual([], list(self.images.cache.disks()))
