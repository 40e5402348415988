# SPDX-License-Identifier: Apache-2.0
"""Disks in Ceph: what can be tested without a cluster."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from unittest import mock

from imagecache import exception, fixture
from imagecache.backends import BACKENDS, Rbd, backend_for
from imagecache.backends.rbd.cluster import RbdName
from imagecache.bases import record_json
from imagecache.host import Host
from imagecache.model import Format, Record
from imagecache.policy import Policy, RbdPolicy
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import base
from imagecache.tools import ceph

RECORD = Record(Format.RAW, 512, 512, 3, "image", committed="2026-01-01")


class NamesTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.host = Host(Policy(self.root, rbd=RbdPolicy(pool="vms")))

    def test_a_disk_has_novas_name(self):
        self.assertEqual(pathlib.Path("vms", f"{INSTANCE}_disk.eph0"),
                         Rbd(self.host, INSTANCE, "disk.eph0").path)

    def test_a_disk_is_found_by_its_libvirt_and_qemu_names(self):
        for path in (f"vms/{INSTANCE}_disk", f"rbd:vms/{INSTANCE}_disk",
                     f"rbd:vms/{INSTANCE}_disk:id=nova:conf=/etc/a/b"):
            disk = Rbd.by_path(self.host, path)
            self.assertEqual((INSTANCE, "disk"), (disk.instance, disk.name))
            self.assertEqual(pathlib.Path(f"vms/{INSTANCE}_disk"), disk.path)
        for path in ("vda", "", "vms/", "rbd:vms:id=nova"):
            self.assertRaises(exception.InvalidDevicePath, Rbd.by_path,
                              self.host, path)

    def test_a_volume_is_a_name_in_a_pool_and_the_path_shows_it(self):
        disk = Rbd(self.host, INSTANCE, "disk")
        self.assertEqual(RbdName("vms", f"{INSTANCE}_disk"), disk.volume)
        self.assertEqual(str(disk.path), str(disk.volume))
        self.assertEqual(disk.volume, RbdName.parse(str(disk.path)))
        for text in ("", "vms", "vms/", "/disk"):
            self.assertIsNone(RbdName.parse(text))

    def test_a_name_that_means_more_to_ceph_or_qemu_is_refused(self):
        for name in ("disk@snap", "disk:id=admin", "a/b", ".", ""):
            with self.subTest(name), \
                    self.assertRaises(exception.InvalidName):
                _ = Rbd(self.host, INSTANCE, name).path

    def test_a_disk_is_not_named_as_a_base(self):
        with self.assertRaises(exception.InvalidName):
            _ = Rbd(self.host, "imagecache", "base_swap_64").path

    def test_the_qemu_name_holds_the_place_of_a_disk_and_no_secret(self):
        host = Host(Policy(self.root, rbd=RbdPolicy(
            pool="vms", conf="/etc/ceph/a:b.conf", user="nova", secret="s")))
        self.assertEqual(
            {"driver": "rbd", "pool": "vms", "image": f"{INSTANCE}_disk",
             "user": "nova", "conf": "/etc/ceph/a:b.conf"},
            Rbd(host, INSTANCE, "disk")._for_qemu())


class RequireTest(base.TestCase):

    def setUp(self):
        super().setUp()
        there = mock.patch.object(ceph, "bindings")
        self.bindings = there.start()
        self.addCleanup(there.stop)
        self.policy = Policy(self.root, images_type="rbd")

    def test_rbd_is_in_the_table_of_backends(self):
        self.assertIs(Rbd, BACKENDS["rbd"])
        self.assertIs(Rbd, backend_for(self.policy))

    def test_bases_that_are_not_raw_are_refused(self):
        self.assertRaises(
            exception.InvalidConfiguration, backend_for,
            dataclasses.replace(self.policy, force_raw=False))

    def test_a_pool_must_be_named(self):
        self.assertRaises(
            exception.InvalidConfiguration, backend_for,
            dataclasses.replace(self.policy, rbd=RbdPolicy(pool="")))

    def test_missing_bindings_are_explained_when_a_backend_is_built(self):
        mock.patch.stopall()
        images = self.useFixture(fixture.ImageCacheFixture())
        with mock.patch.dict(sys.modules, {"rbd": None, "rados": None}):
            images.backend()
            images.config("libvirt", images_type="rbd")
            with self.assertRaises(exception.InvalidConfiguration) as caught:
                images.backend()
        for word in ("python3-rados", "python3-rbd", ".pth"):
            self.assertIn(word, str(caught.exception))


class OptionsTest(base.TestCase):

    def test_bases_are_in_the_pool_of_disks_by_default(self):
        images = self.useFixture(fixture.ImageCacheFixture())
        images.config("libvirt", images_rbd_pool="vms")
        self.assertEqual("vms", images.cache.host.policy.rbd.base_pool)
        images.config("image_cache", rbd_base_pool="bases")
        self.assertEqual("bases", images.cache.host.policy.rbd.base_pool)

    def test_the_defaults_are_those_of_the_policy(self):
        images = self.useFixture(fixture.ImageCacheFixture())
        self.assertEqual(RbdPolicy(), images.cache.host.policy.rbd)


class RecordTest(base.TestCase):

    def test_a_record_survives_as_text(self):
        self.assertEqual(RECORD, record_json.loads(record_json.dumps(RECORD)))

    def test_text_that_is_not_a_record_is_none(self):
        text = record_json.dumps(RECORD)
        for other in ("", "{", "[]", "{}", text.replace('"raw"', '"vmdk"'),
                      text.replace("512", '"512"'),
                      text.replace('"source"', '"sauce"')):
            self.assertIsNone(record_json.loads(other), other)
