# SPDX-License-Identifier: Apache-2.0
"""imagebackend: the API for code written against nova, used as nova does."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import uuid

from oslo_config import cfg

from imagecache import backends, exception, fixture, imagebackend, imagemodel
from imagecache.model import GiB, MiB
from imagecache.tests import base

MAPPING = {"bus": "virtio", "dev": "vda", "type": "disk"}


class _Instance:
    def __init__(self) -> None:
        self.uuid = str(uuid.uuid4())
        self.name = "instance-00000001"


def write_qcow2(target: str, **kwargs: object) -> None:
    subprocess.check_call(["qemu-img", "create", "-q", "-f", "qcow2",
                           target, "64M"])


class ImageBackendTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.instance = _Instance()
        self.bases = self.images.instances_path / "_base"
        self.targets: list[str] = []

    def image(self, image_type: str | None = None, name: str = "disk"
              ) -> imagebackend.Image:
        return self.images.backend().by_name(
            self.instance, name, image_type, MAPPING)

    def fetch(self, target: str, **kwargs: object) -> None:
        self.targets.append(target)
        write_qcow2(target)

    def write_raw(self, target: str, **kwargs: object) -> None:
        self.targets.append(target)
        pathlib.Path(target).write_bytes(bytes(MiB))


class BackendTest(ImageBackendTestCase):

    def test_default_follows_use_cow(self) -> None:
        for use_cow, expected in ((True, imagebackend.Qcow2),
                                  (False, imagebackend.Raw)):
            found = self.images.backend(use_cow).by_name(
                self.instance, "disk")
            self.assertIsInstance(found, expected)

    def test_use_cow_of_none_means_the_option(self) -> None:
        self.images.config(use_cow_images=False)
        self.assertIsInstance(self.image(), imagebackend.Flat)

    def test_images_type_decides_before_use_cow(self) -> None:
        self.images.config(group="libvirt", images_type="raw")
        found = self.images.backend(True).by_name(self.instance, "disk")
        self.assertIsInstance(found, imagebackend.Raw)

    def test_raw_and_flat_are_the_same_backend(self) -> None:
        for name in ("raw", "flat"):
            self.assertIsInstance(self.image(name), imagebackend.Flat)

    def test_unknown_type_is_a_runtime_error_that_names_it(self) -> None:
        with self.assertRaises(RuntimeError) as caught:
            self.image("ploop")
        self.assertIn("image_type=ploop", str(caught.exception))
        self.assertIsInstance(caught.exception,
                              exception.InvalidConfiguration)

    def test_a_changed_option_applies_to_the_next_disk(self) -> None:
        backend = self.images.backend()
        self.images.config(use_cow_images=False)
        self.assertIsInstance(backend.by_name(self.instance, "disk"),
                              imagebackend.Raw)

    def test_a_disk_keeps_its_format_when_the_options_change(self) -> None:
        self.images.config(use_cow_images=False)
        self.image().cache(self.fetch, "base", image_id="42")
        self.images.config(use_cow_images=True)
        again = self.image()
        self.assertIsInstance(again, imagebackend.Raw)
        again.cache(self.fetch, "base", GiB, image_id="42")
        self.assertEqual(GiB, again.disk.size())
        by_path = self.images.backend().by_libvirt_path(
            self.instance, again.path)
        self.assertIsInstance(by_path, imagebackend.Raw)

    def test_describing_a_disk_creates_no_file(self) -> None:
        for image_type in ("raw", "qcow2"):
            self.image(image_type)
        self.assertEqual([], list(self.images.instances_path.iterdir()))

    def test_a_class_from_backend_keeps_its_configuration(self) -> None:
        kind = self.images.backend().backend("qcow2")
        image = kind(self.instance, "disk")
        self.assertEqual(self.images.instances_path,
                         pathlib.Path(image.path).parent.parent)

    def test_the_class_of_the_global_configuration_is_the_public_one(
            self) -> None:
        self.useFixture(fixture.ImageCacheFixture(cfg.CONF))
        backend = imagebackend.Backend(True)
        self.assertIs(imagebackend.Qcow2, backend.backend("qcow2"))
        self.assertIs(imagebackend.Qcow2, backend.backend())

    def test_a_disk_is_found_by_its_path(self) -> None:
        self.image("raw").cache(self.fetch, "base", image_id="42")
        path = self.image("raw").path
        found = self.images.backend().by_libvirt_path(
            self.instance, path, "raw")
        self.assertEqual(64 * MiB, found.get_disk_size(path))

    def test_an_instance_may_be_a_mapping(self) -> None:
        found = self.images.backend().by_name({"uuid": "u"}, "disk")
        self.assertEqual(str(self.images.instances_path / "u" / "disk"),
                         found.path)

    def test_an_instance_without_uuid_is_refused(self) -> None:
        self.assertRaises(exception.InvalidName,
                          self.images.backend().by_name, {}, "disk")


class CacheTest(ImageBackendTestCase):

    def test_the_image_is_fetched_once_for_two_disks(self) -> None:
        self.image().cache(self.fetch, "base", 1 * GiB, image_id="42")
        self.instance = _Instance()
        self.image().cache(self.fetch, "base", 1 * GiB, image_id="42")
        self.assertEqual(1, len(self.targets))
        self.assertEqual(1 * GiB, self.image().disk.size())

    def test_arguments_of_a_driver_reach_its_fetch_function(self) -> None:
        seen: list[object] = []

        def fetch(*args: object, target: str, **kwargs: object) -> None:
            seen.append((args, kwargs))
            write_qcow2(target)

        self.image().cache(fetch, "base", None, False, "positional",
                           context="c", image_id="42")
        self.assertEqual(
            [(("positional",), {"context": "c", "image_id": "42"})], seen)

    def test_raw_generates_a_template_in_place(self) -> None:
        self.image("raw", "disk.swap").cache(
            self.write_raw, "swap_1", MiB, safe=True, swap_mb=1)
        self.assertFalse(self.bases.exists())
        self.assertEqual(MiB, self.image("raw", "disk.swap").disk.size())

    def test_qcow2_caches_a_template(self) -> None:
        self.image(None, "disk.swap").cache(
            self.write_raw, "swap_1", MiB, safe=True, swap_mb=1)
        self.assertTrue((self.bases / "swap_1").exists())

    def test_a_template_that_is_not_trusted_is_inspected(self) -> None:
        def evil(target: str) -> None:
            subprocess.check_call(
                ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b",
                 "/etc/passwd", "-F", "raw", target, "4096"])

        for image_type in ("raw", "qcow2"):
            image = self.image(image_type)
            self.assertRaises(exception.ImageUnacceptable, image.cache,
                              evil, "thing", 4096)
            self.assertFalse(image.exists())

    def test_raw_converts_a_template_that_is_qcow2(self) -> None:
        image = self.image("raw")
        image.cache(self.fetch, "thing", 64 * MiB)
        self.assertEqual("raw", image.driver_format)
        self.assertEqual(64 * MiB, os.path.getsize(image.path))

    def test_a_base_can_be_copied_from_another_host_to_its_path(self) -> None:
        key = hashlib.sha1(b"42", usedforsecurity=False).hexdigest()
        self.image().cache(self.write_raw, key, 2 * MiB)
        self.assertEqual([str(self.bases / key)], self.targets)
        self.assertTrue(self.image().exists())

    def test_create_image_accepts_the_path_of_the_base(self) -> None:
        self.image().create_image(self.fetch, str(self.bases / "base"),
                                  GiB, image_id="42")
        self.assertTrue((self.bases / "base").exists())
        self.assertTrue(self.image().exists())

    def test_a_later_call_with_a_larger_size_grows_the_disk(self) -> None:
        for size in (1 * GiB, 2 * GiB):
            self.image().cache(self.fetch, "base", size, image_id="42")
        self.assertEqual(2 * GiB, self.image().disk.size())

    def test_a_size_smaller_than_the_image_is_refused(self) -> None:
        self.assertRaises(exception.FlavorDiskTooSmall, self.image().cache,
                          self.fetch, "base", MiB, image_id="42")
        self.assertFalse(self.image().exists())


class FormatTest(ImageBackendTestCase):

    def test_the_record_of_the_format_is_the_one_of_nova(self) -> None:
        image = self.image("raw")
        image.cache(self.fetch, "base", image_id="42")
        with open(image.disk_info_path) as f:
            self.assertEqual({image.path: "raw"}, json.load(f))
        self.assertEqual("raw", image.resolve_driver_format())

    def test_a_disk_without_record_gets_one(self) -> None:
        image = self.image("raw", "disk.config")
        os.makedirs(os.path.dirname(image.path))
        self.write_raw(image.path)
        self.assertEqual("raw", image.resolve_driver_format())
        with open(image.disk_info_path) as f:
            self.assertEqual({image.path: "raw"}, json.load(f))

    def test_raw_keeps_a_qcow2_copy_if_raw_is_not_forced(self) -> None:
        self.images.config(force_raw_images=False)
        image = self.image("raw")
        image.cache(self.fetch, "base", GiB, image_id="42")
        self.assertEqual("qcow2", image.driver_format)
        self.assertEqual("qcow2", image.libvirt_info("none", {}
                                                     ).driver_format)
        self.assertEqual(
            imagemodel.LocalFileImage(image.path, "qcow2"),
            image.get_model(None))
        self.assertEqual(GiB, image.disk.size())


class DescriptionTest(ImageBackendTestCase):

    def test_libvirt_xml_is_the_one_of_nova(self) -> None:
        self.images.config(preallocate_images="space")
        self.images.config(group="libvirt", hw_disk_discard="unmap")
        info = self.image().libvirt_info(
            "none", {"quota:disk_read_iops_sec": "10"}, boot_order="1")
        self.assertEqual(
            ("file", self.image().path, "qcow2", "qemu", "none", "native",
             "unmap", "vda", "virtio", "disk", "10", "1"),
            (info.source_type, info.source_path, info.driver_format,
             info.driver_name, info.driver_cache, info.driver_io,
             info.driver_discard, info.target_dev, info.target_bus,
             info.source_device, info.disk_read_iops_sec, info.boot_order))

    def test_libvirt_info_needs_the_mapping(self) -> None:
        image = self.images.backend().by_name(self.instance, "disk")
        self.assertRaises(AttributeError, image.libvirt_info, "none", {})

    def test_libvirt_xml_of_a_container_is_the_one_of_nova(self) -> None:
        info = self.image("raw").libvirt_fs_info("/")
        self.assertEqual(
            ("file", self.image("raw").path, "/", "loop"),
            (info.source_type, info.source_file, info.target_dir,
             info.driver_type))

    def test_sizes_of_disk_and_base(self) -> None:
        image = self.image()
        image.cache(self.fetch, "base", GiB, image_id="42")
        base_path = str(self.bases / "base")
        self.assertEqual(GiB, image.get_disk_size(image.path))
        self.assertEqual(64 * MiB, image.get_disk_size(base_path))
        self.assertRaises(exception.FlavorDiskSmallerThanImage,
                          image.verify_base_size, base_path, MiB)
        image.verify_base_size(base_path, None)
        image.verify_base_size(base_path, GiB)

    def test_the_size_of_a_missing_disk_is_an_error(self) -> None:
        self.assertRaises(exception.DiskNotFound,
                          self.image().get_disk_size, "/nowhere")

    def test_get_model_describes_where_the_disk_is(self) -> None:
        self.assertFalse(imagebackend.Qcow2.is_shared_block_storage())
        self.assertTrue(imagebackend.Flat.is_file_in_instance_path())


class SnapshotTest(ImageBackendTestCase):

    def test_a_snapshot_has_the_requested_format(self) -> None:
        image = self.image()
        image.cache(self.fetch, "base", image_id="42")
        for wanted, expected in (("qcow2", "qcow2"), ("iso", "raw"),
                                 ("vmdk", "vmdk")):
            out = self.root / f"out.{wanted}"
            image.snapshot_extract(str(out), wanted)
            info = json.loads(subprocess.check_output(
                ["qemu-img", "info", "--output=json", "-f", expected, out]))
            self.assertEqual(64 * MiB, info["virtual-size"])

    def test_a_flattened_disk_needs_no_base(self) -> None:
        image = self.image()
        image.cache(self.fetch, "base", image_id="42")
        image.flatten()
        (self.bases / "base").unlink()
        subprocess.check_call(["qemu-img", "check", "-q", "-f", "qcow2",
                               image.path])

    def test_methods_that_files_do_not_support_raise_the_errors_of_nova(
            self) -> None:
        image = self.image()
        self.assertRaises(exception.ImageUnacceptable, image.clone, None,
                          "42")
        self.assertRaises(NotImplementedError, image.direct_snapshot,
                          None, "s", "raw", "42", "43")
        self.assertRaises(NotImplementedError, self.image("raw").flatten)

    def test_methods_that_files_do_not_need_do_nothing(self) -> None:
        image = self.image()
        image.cleanup_direct_snapshot("location")
        image.import_file(self.instance, "file", "name")
        image.create_snap("s")
        image.remove_snap("s")
        image.rollback_to_snap("s")


class OtherBackendTest(ImageBackendTestCase):

    def test_a_backend_of_another_project_gets_the_same_methods(
            self) -> None:
        class Other(backends.Qcow2):
            """An overlay of another project."""

        self.addCleanup(backends.BACKENDS.pop, "other")
        backends.BACKENDS["other"] = Other
        image = self.image("other")
        image.cache(self.fetch, "base", image_id="42")
        self.assertIsInstance(image.disk, Other)
        self.assertTrue(image.exists())
