# SPDX-License-Identifier: Apache-2.0
"""ImageCache: the API for new code."""

from __future__ import annotations

import json
import os
import sys
import types
import uuid
from unittest import mock

import ddt
import fixtures
from oslo_config import cfg

import imagecache
from imagecache import exception, fixture
from imagecache.backends import Qcow2, Raw
from imagecache.events import Event
from imagecache.model import Digest, Format, MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE
from imagecache.tests import base


class ImageCacheTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.content = images.content(SIZE)
        self.ref = self.images.add(self.content, "raw")

    @property
    def cache(self) -> imagecache.ImageCache:
        return self.images.cache


@ddt.ddt
class CreateTest(ImageCacheTestCase):

    @ddt.data(INSTANCE, uuid.UUID(INSTANCE), {"uuid": INSTANCE, "name": "x"},
              types.SimpleNamespace(uuid=INSTANCE))
    def test_an_instance_is_any_object_with_a_uuid(
            self, instance: object
                                                ) -> None:
        disk = self.cache.create_disk(instance, self.ref)
        self.assertEqual(self.images.instances_path / INSTANCE / "disk",
                         disk.path)

    @ddt.data({}, {"uuid": None}, {"uuid": ""}, object(), None, "", 3)
    def test_an_object_without_a_uuid_is_not_an_instance(
            self, instance: object) -> None:
        self.assertRaises(exception.InvalidName, self.cache.create_disk,
                          instance, self.ref)
        self.assertEqual([], os.listdir(self.images.instances_path))

    def test_a_path_names_an_image(self) -> None:
        path = self.root / "image.qcow2"
        path.write_bytes(images.qcow2(self.content))
        for instance, ref in ((INSTANCE, str(path)), (OTHER, path.as_uri())):
            disk = self.cache.create_disk(instance, ref, size=2 * SIZE)
            self.assertEqual(2 * SIZE, disk.size())
        self.assertEqual(1, self.images.heard.count("miss"))

    @ddt.data("", "no-such-kind", "ftp://x/y", "rbd:pool/x", "json:{}")
    def test_a_reference_that_names_no_image_is_refused(
            self, ref: str) -> None:
        self.assertRaises(exception.InvalidImageRef, self.cache.create_disk,
                          INSTANCE, ref)

    def test_a_missing_image_is_not_found(self) -> None:
        self.images.store.remove(self.ref)
        self.assertRaises(exception.ImageNotFound, self.cache.create_disk,
                          INSTANCE, self.ref)
        self.assertEqual([], os.listdir(self.images.instances_path))

    def test_the_caller_can_pass_the_format_and_digest_of_an_image(
            self) -> None:
        for wrong in ({"disk_format": "qcow2"},
                      {"digest": Digest("sha256", "0" * 64)}):
            self.assertRaises(exception.ImageUnacceptable,
                              self.cache.create_disk, INSTANCE, self.ref,
                              **wrong)
        self.assertFalse(self.cache.disk(INSTANCE).exists())

    def test_an_unknown_backend_is_an_error_of_the_configuration(self) -> None:
        with self.assertRaises(exception.InvalidConfiguration) as caught:
            self.cache.create_disk(INSTANCE, self.ref, image_type="ploop")
        self.assertIn("ploop", str(caught.exception))
        self.assertIn("qcow2", str(caught.exception))

    def test_the_error_of_a_backend_that_cannot_be_loaded_says_why(
            self) -> None:
        info = self.root / "broken-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: broken\nVersion: 1\n")
        (info / "entry_points.txt").write_text(
            "[imagecache.backends]\nbroken = no_such_module:Broken\n")
        self.useFixture(fixtures.MonkeyPatch(
            "sys.path", [*sys.path, str(self.root)]))
        self.useFixture(fixtures.MonkeyPatch(
            "stevedore.extension.ExtensionManager.ENTRY_POINT_CACHE", {}))
        with self.assertRaises(exception.InvalidConfiguration) as caught:
            self.cache.create_disk(INSTANCE, self.ref, image_type="broken")
        self.assertIn("No module named 'no_such_module'",
                      str(caught.exception))

    @ddt.data((True, Qcow2), (False, Raw))
    @ddt.unpack
    def test_the_default_backend_follows_use_cow(self, use_cow: bool,
                                                 kind: type) -> None:
        self.images.config(use_cow_images=use_cow)
        self.assertIs(kind, type(self.cache.disk(INSTANCE)))

    def test_an_ephemeral_disk_has_the_configured_file_system(self) -> None:
        self.images.config(default_ephemeral_format="ext2")
        disk = self.cache.create_ephemeral(INSTANCE, MiB, image_type="raw")
        self.assertEqual("disk.eph0", disk.name)
        with disk.path.open("rb") as f:
            self.assertEqual(b"\x53\xef", os.pread(f.fileno(), 2, 1080))

    @ddt.data("qcow2", "raw")
    def test_generated_disks_may_have_any_size(self, kind: str) -> None:
        cache = self.cache
        for make in (cache.create_blank, cache.create_swap,
                     cache.create_ephemeral):
            disk = make(INSTANCE, size=SIZE + 1, name=make.__name__,
                        image_type=kind)
            self.assertGreater(disk.size(), SIZE)
            self.assertEqual(0, disk.size() % 512)

    @ddt.data(0, -1)
    def test_generated_disks_need_a_size(self, size: int) -> None:
        for make in (self.cache.create_blank, self.cache.create_swap,
                     self.cache.create_ephemeral):
            self.assertRaises(exception.SizeRequired, make, INSTANCE,
                              size=size, name="disk")
        self.assertEqual([], os.listdir(self.images.instances_path))

    def test_several_threads_can_share_an_image_cache(self) -> None:
        cache = self.cache
        self.assertEqual(cache.host.policy, cache.host.policy)
        self.images.config(use_cow_images=False)
        self.assertIs(Qcow2, type(cache.disk(INSTANCE)))   # read once

    def test_the_observer_receives_the_events_in_order(self) -> None:
        heard: list[Event] = []
        cache = imagecache.ImageCache(
            self.images.conf, glance=self.images.store,
            observe=heard.append)
        disk = cache.create_disk(INSTANCE, self.ref)
        self.assertEqual(str(disk.path), heard[-1].subject)

    def test_an_observer_that_raises_ends_the_operation(self) -> None:
        for name in ("miss", "download", "verified", "validated", "committed",
                     "hit"):
            def stop(event: Event, name: str = name) -> None:
                if event.name == name:
                    raise KeyboardInterrupt

            cache = imagecache.ImageCache(
                self.images.conf, glance=self.images.store, observe=stop)
            with self.subTest(name):
                self.assertRaises(KeyboardInterrupt, cache.create_disk,
                                  INSTANCE, self.ref)
                self.assertFalse(cache.disk(INSTANCE).exists())

    def test_an_observer_that_raises_ends_a_conversion(self) -> None:
        def stop(event: Event) -> None:
            if event.name == "convert":
                raise KeyboardInterrupt

        cache = imagecache.ImageCache(
            self.images.conf, glance=self.images.store, observe=stop)
        ref = self.images.add(images.qcow2(self.content), "qcow2")
        self.assertRaises(KeyboardInterrupt, cache.create_disk, INSTANCE,
                          ref)
        self.assertEqual([], list(cache.bases()))

    def test_an_image_cache_without_a_configuration_has_defaults(self) -> None:
        cache = imagecache.ImageCache(cfg.ConfigOpts())
        self.assertEqual("/var/lib/imagecache/instances",
                         str(cache.host.policy.instances))


class DisksTest(ImageCacheTestCase):

    def test_describing_a_disk_creates_no_file(self) -> None:
        self.cache.disk(INSTANCE)
        self.assertEqual([], os.listdir(self.images.instances_path))

    def test_a_disk_is_described_by_its_record(self) -> None:
        self.cache.create_disk(INSTANCE, self.ref, image_type="raw")
        self.assertIs(Raw, type(self.cache.disk(INSTANCE)))
        self.assertRaises(exception.InvalidDiskFormat, self.cache.disk,
                          INSTANCE, image_type="qcow2")

    def test_a_disk_that_exists_grows_in_its_recorded_format(self) -> None:
        self.cache.create_disk(INSTANCE, self.ref, image_type="raw")
        disk = self.cache.create_disk(INSTANCE, self.ref, size=2 * SIZE)
        self.assertEqual((Raw, 2 * SIZE), (type(disk), disk.size()))
        self.assertRaises(
            exception.InvalidDiskFormat, self.cache.create_disk, INSTANCE,
            self.ref, size=3 * SIZE, image_type="qcow2")

    def test_all_disks_are_listed(self) -> None:
        for instance in (INSTANCE, OTHER):
            self.cache.create_disk(instance, self.ref)
            self.cache.create_swap(instance, SIZE, image_type="raw")
        self.assertEqual(
            [(instance, name, kind) for instance in sorted((INSTANCE, OTHER))
             for name, kind in (("disk", Qcow2), ("disk.swap", Raw))],
            [(disk.instance, disk.name, type(disk))
             for disk in self.cache.disks()])
        self.assertEqual(2, len(list(self.cache.disks(INSTANCE))))

    def test_a_host_without_disks_lists_none(self) -> None:
        self.assertEqual([], list(self.cache.disks()))
        self.assertEqual([], list(self.cache.disks(INSTANCE)))
        self.images.instances_path.rmdir()
        self.assertEqual([], list(self.cache.disks()))
        self.images.instances_path.mkdir()

    def test_other_directories_of_nova_are_not_instances(self) -> None:
        self.cache.create_disk(INSTANCE, self.ref)
        (self.images.instances_path / "compute_nodes").write_text("{}")
        (self.images.instances_path / "empty").mkdir()
        self.assertEqual(1, len(list(self.cache.disks())))

    def test_lost_and_found_is_not_an_instance(self) -> None:
        self.cache.create_disk(INSTANCE, self.ref)
        (self.images.instances_path / "lost+found" / "disk.info").mkdir(
            parents=True)    # as unreadable as it is to others than root
        with mock.patch("os.access", return_value=False):
            self.assertEqual(1, len(list(self.cache.disks())))

    def test_a_damaged_record_ends_the_list_or_is_reported(self) -> None:
        for instance in ("a", "b", "c"):
            self.cache.create_disk(instance, self.ref)
        for name in ("disk.info", "disk.luks"):
            record = self.images.instances_path / "b" / name
            before = record.read_bytes() if record.exists() else b"{}"
            record.write_text("{")
            with self.subTest(name):
                self.assertRaises(exception.InvalidDiskInfo, list,
                                  self.cache.disks())
                reported: list[exception.ImageCacheError] = []
                self.assertEqual(["a", "c"], [
                    disk.instance for disk in self.cache.disks(
                        report=reported.append)])
                [error] = reported
                self.assertIn(str(record), str(error))
            record.write_bytes(before)

    def test_a_disk_that_is_recorded_twice_is_listed_once(self) -> None:
        """The directory was moved, and the disk was recorded again."""
        disk = self.cache.create_disk(INSTANCE, self.ref)
        record = disk.path.parent / "disk.info"
        record.write_text(json.dumps({
            "/old/disk": "raw", str(disk.path): "qcow2"}))
        [found] = self.cache.disks()
        self.assertEqual((Qcow2, Format.QCOW2), (type(found), found.format))


class BasesTest(ImageCacheTestCase):

    def test_a_base_is_fetched_before_any_disk_needs_it(self) -> None:
        found = self.cache.fetch(self.ref)
        self.assertEqual((Format.RAW, SIZE),
                         (found.format, found.virtual_size))
        self.cache.create_disk(INSTANCE, self.ref)
        self.assertEqual(1, self.images.store.reads)

    def test_a_base_is_found_by_key_or_by_source(self) -> None:
        key = self.cache.fetch(self.ref).key
        for name in (key, self.ref):
            self.assertEqual(key, self.cache.base(name).key)
        self.assertEqual([key], [each.key for each in self.cache.bases()])

    def test_a_missing_base_is_not_found(self) -> None:
        for name in ("x", "", "../x", INSTANCE):
            self.assertRaises(exception.BaseNotFound, self.cache.base, name)
            self.assertRaises(exception.BaseNotFound,
                              self.cache.remove_base, name)

    def test_a_base_with_disks_is_not_removed(self) -> None:
        disk = self.cache.create_disk(INSTANCE, self.ref)
        entry = self.cache.base(self.ref)
        self.assertEqual([str(disk.path)], self.cache.users(entry))
        self.assertRaises(exception.BaseInUse, self.cache.remove_base,
                          self.ref)
        disk.remove()
        self.cache.remove_base(self.ref)
        self.assertEqual([], list(self.cache.bases()))

    def test_the_base_of_a_flattened_disk_can_be_removed(self) -> None:
        self.cache.create_disk(INSTANCE, self.ref).flatten()
        self.cache.remove_base(self.ref)
        self.assertEqual([], list(self.cache.bases()))
