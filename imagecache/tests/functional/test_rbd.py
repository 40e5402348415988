# SPDX-License-Identifier: Apache-2.0
"""Disks in a real Ceph: what only they do."""

from __future__ import annotations

import pathlib
import threading
import time
import uuid
from unittest import mock

import imagecache
from imagecache import exception, imagebackend, imagemodel
from imagecache.backends import Rbd
from imagecache.backends.rbd import clones
from imagecache.backends.rbd.cluster import RbdName
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import command, processes
from imagecache.tests.functional import boot, rbd_case
from imagecache.tests.functional.rbd_case import SIZE
from imagecache.tools import rbd


class RbdTestCase(rbd_case.ImageTestCase):

    @property
    def cache(self):
        return self.images.cache

    def make(self, instance=INSTANCE, size=2 * SIZE, **options):
        return self.cache.create_disk(instance, self.ref, size=size,
                                      **options)


class DiskTest(RbdTestCase):

    base_pool = "bases"

    def test_a_disk_is_named_as_novas_and_a_clone_of_a_protected_base(self):
        disk = self.make()
        self.assertEqual(pathlib.Path("vms", f"{INSTANCE}_disk"), disk.path)
        with self.volume(disk.path) as volume:
            pool, name, snapshot = volume.parent()
        self.assertEqual(("bases", f"imagecache_base_{disk.base_key()}"),
                         (pool, name))
        with self.volume(f"{pool}/{name}") as volume:
            self.assertTrue(volume.is_protected(snapshot))
            self.assertEqual([str(disk.path)], volume.children(snapshot))

    def test_a_disk_of_a_cached_base_takes_three_looks_by_one_client(self):
        """Is it there?  Is the base?  And what it must be when it is made."""
        self.make(OTHER)
        opened, open_volume = [], rbd.Pool.open

        def opening(pool, name, *args, **options):
            opened.append(name)
            return open_volume(pool, name, *args, **options)

        with mock.patch.object(rbd.Pool, "open", opening), \
                mock.patch.object(rbd, "_client",
                                  wraps=rbd._client) as clients, \
                mock.patch.object(clones, "is_whole",
                                  wraps=clones.is_whole) as looks:
            disk = self.make()
        name = f"{INSTANCE}_disk"
        self.assertEqual(
            [name, f"imagecache_base_{disk.base_key()}", name], opened)
        self.assertEqual((1, 1), (clients.call_count, looks.call_count))

    def test_the_disk_of_a_new_image_is_looked_for_once(self):
        with mock.patch.object(clones, "is_whole",
                               wraps=clones.is_whole) as looks:
            self.make()
        self.assertEqual(1, looks.call_count)

    def test_a_clone_takes_no_space(self):
        self.assertEqual(0, self.make().allocated())

    def test_a_volume_of_no_size_occupies_nothing(self):
        with self.pool() as pool:
            pool.create(f"{INSTANCE}_disk", 0)
        self.assertEqual(0, self.cache.disk(INSTANCE).allocated())

    def test_what_nova_made_is_used_as_it_is(self):
        with self.pool() as pool:
            for name in (f"{INSTANCE}_disk", f"{INSTANCE}_disk.eph0",
                         f"{OTHER}_disk", "volume-of-cinder", "x_disk"):
                pool.create(name, SIZE)
        self.write_volume(f"vms/{INSTANCE}_disk", b"precious")
        disk = self.cache.disk(INSTANCE)
        self.assertEqual((True, SIZE, None),
                         (disk.exists(), disk.size(), disk.base_key()))
        self.assertEqual(
            [(INSTANCE, "disk"), (INSTANCE, "disk.eph0")],
            [(d.instance, d.name) for d in self.cache.disks(INSTANCE)])
        self.assertEqual(3, len(list(self.cache.disks())))
        self.make()
        self.assertEqual(0, self.images.store.reads)
        self.assertTrue(self.read_volume(disk.path).startswith(b"precious"))

    def test_a_flattened_disk_lets_its_base_go(self):
        disk = self.make()
        disk.flatten()
        disk.flatten()
        self.assertIsNone(disk.base_key())
        for entry in list(self.cache.bases()):
            self.cache.remove_base(entry.key)
        self.assertEqual({str(disk.path)}, self.volumes())
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(disk.path))

    def test_a_disk_goes_back_to_a_snapshot(self):
        disk = self.make()
        disk.create_snapshot("nova-resize")
        self.write_volume(disk.path, b"regretted")
        disk.grow(4 * SIZE)
        disk.roll_back("nova-resize")
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(disk.path))
        self.assertRaises(exception.StorageExists, disk.create_snapshot,
                          "nova-resize")
        disk.remove_snapshot("nova-resize")
        for act in (disk.roll_back, disk.remove_snapshot):
            self.assertRaises(exception.SnapshotNotFound, act, "nova-resize")

    def test_a_disk_is_removed_with_its_snapshots(self):
        disk = self.make()
        disk.create_snapshot("nova-resize")
        disk.create_snapshot("left-by-a-snapshot")
        with self.volume(disk.path) as volume:
            volume.protect("left-by-a-snapshot")
        disk.remove()
        self.assertFalse(disk.exists())

    def test_a_disk_that_others_are_made_of_stays(self):
        disk = self.make()
        disk.create_snapshot("snap")
        with self.volume(disk.path) as volume:
            volume.protect("snap")
        with self.pool() as pool:
            pool.clone(pool, disk.path.name, "snap", "of-another")
        with self.assertRaises(exception.StorageBusy) as caught:
            disk.remove()    # there is nothing to wait for
        self.assertIn("vms/of-another", str(caught.exception))
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume("vms/of-another"))

    def test_a_disk_in_use_is_removed_as_soon_as_it_is_not(self):
        disk = self.make()
        released = threading.Event()

        def hold(held):
            with self.volume(disk.path):
                held.set()
                released.wait(60)

        held = threading.Event()
        guest = threading.Thread(target=hold, args=(held,))
        guest.start()
        held.wait(60)
        self.images.config("libvirt", rbd_destroy_volume_retries=1)
        self.assertRaises(exception.StorageBusy,
                          self.cache.disk(INSTANCE).remove)
        self.assertTrue(disk.exists())
        threading.Timer(1, released.set).start()
        disk.remove()      # it has more patience
        guest.join()
        self.assertFalse(disk.exists())

    def test_a_file_becomes_a_disk_and_replaces_one(self):
        source = self.root / "config.iso"
        disk = self.cache.disk(INSTANCE, "disk.config")
        for content in (b"old" * 10_000, b"new" * 1000):
            source.write_bytes(content)
            disk.import_file(source)
        padded = content + bytes(-len(content) % 512)
        self.assertEqual(len(padded), disk.size())
        self.assertEqual(padded, self.read_volume(disk.path))

    def test_a_file_that_cannot_be_imported_costs_no_disk(self):
        disk = self.make()
        for source in (self.root / "nothing", self.root):
            self.assertRaises(exception.HostError, disk.import_file, source)
            self.assertTrue(self.content + bytes(SIZE)
                            == self.read_volume(disk.path))

    def test_a_running_guests_disk_is_extracted(self):
        disk = self.make()
        with self.volume(disk.path) as volume:
            volume.lock()
            disk.extract(self.root / "out", "raw")
        self.assertTrue(self.content + bytes(SIZE)
                        == (self.root / "out").read_bytes())

    def test_threads_make_disks_of_two_images_at_once(self):
        other = self.images.add(images.qcow2(images.content(SIZE, 2)),
                                "qcow2")
        made = []

        def make(ref):
            cache = self.cache
            made.append((ref, cache.create_disk(
                str(uuid.uuid4()), ref, size=2 * SIZE)))

        threads = [threading.Thread(target=make, args=(ref,))
                   for ref in (self.ref, other) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(6, len(made))
        self.assertEqual(2, len(list(self.cache.bases())))
        for ref, disk in made:
            content = self.content if ref == self.ref \
                else images.content(SIZE, 2)
            self.assertTrue(content + bytes(SIZE)
                            == self.read_volume(disk.path))

    def test_nothing_raw_is_written_to_this_host(self):
        content = bytes(range(256)) * (32 * MiB // 256)    # compresses well
        image = images.convert(content, "qcow2", "-c")
        self.assertLess(len(image), 8 * MiB)
        self.ref = self.images.add(image, "qcow2")
        most = 0

        def watch(event):
            nonlocal most
            most = max(most, sum(
                path.stat().st_blocks * 512
                for path in self.images.instances_path.rglob("*")
                if path.is_file()))

        cache = imagecache.ImageCache(
            self.images.conf, glance=self.images.store, observe=watch)
        disk = cache.create_disk(INSTANCE, self.ref)
        self.assertTrue(content == self.read_volume(disk.path))
        self.assertLess(0, most)
        self.assertLess(most, len(image) + MiB)


class KilledGuestTest(RbdTestCase):

    missed = 5

    def test_a_killed_guests_disk_is_removed_when_the_cluster_notices(self):
        disk = self.make()

        def run():
            with self.volume(disk.path) as volume:
                volume.lock()
                (self.root / "runs").touch()
                time.sleep(600)

        guest = processes.Child(run)
        processes.wait_for((self.root / "runs").exists)
        guest.kill()
        guest.wait()
        disk.remove()
        self.assertFalse(disk.exists())


class NovaTest(RbdTestCase):

    def image(self, **options):
        return self.images.backend().by_name(
            {"uuid": INSTANCE}, "disk", disk_info_mapping={
                "bus": "virtio", "dev": "vda", "type": "disk"}, **options)

    def test_libvirt_is_told_of_a_network_disk(self):
        self.images.config("libvirt", rbd_secret_uuid=OTHER)
        element = self.image().libvirt_info("writeback", {}).format_dom()
        host = element.find("source/host")
        with self.ceph.connect() as connection:
            [(_, port)] = [each.split(":") for each in
                           [connection.conf_get("mon_host")
                            .strip("[]").removeprefix("v2:")
                            .removesuffix("/0")]]
        self.assertEqual("network", element.get("type"))
        self.assertEqual(("rbd", f"vms/{INSTANCE}_disk"),
                         (element.find("source").get("protocol"),
                          element.find("source").get("name")))
        self.assertEqual(("127.0.0.1", port),
                         (host.get("name"), host.get("port")))
        self.assertEqual(self.user, element.find("auth").get("username"))
        self.assertEqual(("ceph", OTHER), (
            element.find("auth/secret").get("type"),
            element.find("auth/secret").get("uuid")))
        self.assertEqual("raw", element.find("driver").get("type"))

    def test_a_model_says_where_the_bytes_are(self):
        model = self.image().get_model(None)
        self.assertIsInstance(model, imagemodel.RBDImage)
        self.assertEqual((f"{INSTANCE}_disk", "vms", self.user, None, "raw"),
                         (model.name, model.pool, model.user, model.password,
                          model.format))
        self.assertTrue(model.servers[0].startswith("127.0.0.1:"))

    def test_a_disk_is_what_libvirt_calls_it(self):
        self.make()
        image = self.image()
        self.assertTrue(image.exists())
        self.assertEqual(
            f"rbd:vms/{INSTANCE}_disk:id={self.user}:conf={self.conf_path}",
            image.path)
        for path in (image.path, f"vms/{INSTANCE}_disk"):
            found = self.images.backend().by_libvirt_path(
                {"uuid": INSTANCE}, path)
            self.assertEqual((image.path, True, 2 * SIZE),
                             (found.path, found.exists(),
                              found.get_disk_size("whatever")))
        self.assertRaises(
            exception.InvalidDevicePath,
            self.images.backend().by_libvirt_path, {"uuid": INSTANCE}, "vda")

    def test_what_nova_asks_of_the_class(self):
        image = self.image()
        self.assertTrue(image.SUPPORTS_CLONE)
        self.assertTrue(image.is_shared_block_storage())
        self.assertFalse(image.is_file_in_instance_path())
        self.assertFalse(image.is_block_dev)
        self.assertEqual("raw", image.driver_format)
        self.assertEqual("raw", image.resolve_driver_format())

    def test_a_disk_is_made_of_what_a_function_fetches(self):
        def fetch(target, **_):
            pathlib.Path(target).write_bytes(images.qcow2(self.content))

        image = self.image()
        image.cache(fetch, "the-base", 2 * SIZE, image_id=self.ref)
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(image.disk.path))
        self.assertEqual("the-base", image.disk.base_key())

    def test_a_function_may_clone_the_disk_and_fetch_nothing(self):
        with self.pool("images") as pool:
            pool.create("of-glance", SIZE)
            with pool.open("of-glance") as volume:
                volume.create_snapshot("snap")
                volume.protect("snap")
        image = self.image()

        def clone(target, **_):
            image.disk.clone_snapshot(RbdName("images", "of-glance"), "snap",
                                      None)

        self.assertRaises(exception.FlavorDiskSmallerThanImage, image.cache,
                          clone, "base", SIZE // 2, image_id=self.ref)
        self.assertFalse(image.exists())
        image.cache(clone, "base", 3 * SIZE, image_id=self.ref)
        self.assertEqual(3 * SIZE, image.get_disk_size(image.path))
        self.assertEqual([], list(self.cache.bases()))

    def test_snapshots_and_files_by_novas_names(self):
        self.make()
        image = self.image()
        image.create_snap("nova-resize")
        self.write_volume(image.disk.path, b"regretted")
        image.rollback_to_snap("nova-resize")
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(image.disk.path))
        image.remove_snap("nova-resize")
        image.remove_snap("nova-resize")
        self.assertRaises(exception.SnapshotNotFound, image.rollback_to_snap,
                          "nova-resize")
        (self.root / "config").write_bytes(b"drive" * 1000)
        image.import_file({"uuid": INSTANCE}, str(self.root / "config"),
                          "disk.config")
        self.assertTrue(self.read_volume(f"vms/{INSTANCE}_disk.config")
                        .startswith(b"drive" * 1000))
        image.snapshot_extract(str(self.root / "out"), "raw")
        self.assertTrue(self.content + bytes(SIZE)
                        == (self.root / "out").read_bytes())
        image.resize_image(3 * SIZE)
        self.assertEqual(3 * SIZE, image.get_disk_size(""))
        image.flatten()
        self.assertIsNone(image.disk.base_key())

    def test_what_cannot_be_is_refused_when_the_backend_is_built(self):
        self.images.backend()
        self.images.config(force_raw_images=False)
        self.assertRaises(exception.InvalidConfiguration, self.images.backend)
        self.assertRaises(RuntimeError, imagebackend.Backend,
                          conf=self.images.conf)
        self.images.config(force_raw_images=True)
        self.images.config("libvirt", images_rbd_pool="")
        self.assertRaises(exception.InvalidConfiguration, self.images.backend)


class CommandTest(rbd_case.RbdMixin, command.CommandTestCase):
    """The same commands as for bases that are files."""

    base_pool = "bases"

    def setUp(self):
        super().setUp()
        self.addCleanup(self.clear)
        self.conf = self.root / "imagecache.conf"
        self.conf.write_text(
            "[libvirt]\nimages_type = rbd\nimages_rbd_pool = vms\n"
            f"rbd_user = {self.user}\n"
            f"images_rbd_ceph_conf = {self.conf_path}\n"
            f"rbd_connect_timeout = {rbd_case.PATIENCE}\n"
            "[image_cache]\nrbd_base_pool = bases\n")

    def succeed(self, *argv):
        return super().succeed("--config-file", self.conf, *argv)

    def fails(self, code, *argv):
        return super().fails(code, "--config-file", self.conf, *argv)

    def test_bases_are_listed_shown_with_their_clones_and_removed(self):
        image = self.image("server.qcow2")
        self.succeed("disk", "create", "--image", image, "--instance",
                     INSTANCE, "--size", "2MiB")
        [listed] = self.succeed("base", "list", "-f", "json").json
        shown = self.succeed("base", "show", image, "-f", "json").json
        disk = f"vms/{INSTANCE}_disk"
        self.assertEqual((1, listed["key"]), (listed["users"], shown["key"]))
        self.assertEqual(
            ("rbd:bases", f"bases/imagecache_base_{listed['key']}", [disk]),
            (shown["store"], shown["path"], shown["users"]))
        self.assertIn(disk, self.fails(7, "base", "remove", listed["key"]))
        self.assertEqual(2, len(self.volumes()))
        self.succeed("disk", "remove", "--instance", INSTANCE)
        self.succeed("base", "remove", listed["key"])
        self.assertEqual(set(), self.volumes())

    def test_parts_of_disks_stop_no_list_and_can_be_removed(self):
        with self.pool() as pool:
            for name in ("disk", "disk.eph0"):
                pool.create(f"{INSTANCE}_{name}", SIZE)
            pool._context.remove_object(f"rbd_id.{INSTANCE}_disk")
        [listed] = self.succeed("disk", "list", "-f", "json").json
        self.assertEqual("disk.eph0", listed["name"])
        self.succeed("disk", "remove", "--instance", INSTANCE, "--all")
        self.assertEqual(set(), self.volumes())


class BootTest(RbdTestCase):

    def test_a_guest_boots_from_a_clone_of_its_size(self):
        image = self.useFixture(boot.BootImage())
        size = 256 * MiB
        one, other = (self.cache.create_disk(
            instance, self.images.add(image.path.read_bytes(), "qcow2"),
            size=size) for instance in (INSTANCE, OTHER))
        report = image.boot(self.nova_image(one).path, one.format)
        self.assertEqual((size, boot.TOKEN, 1),
                         (report.disk_bytes, report.token, report.boots))
        self.assertEqual(2, image.boot(self.nova_image(one).path, "raw").boots)
        self.assertEqual(
            1, image.boot(self.nova_image(other).path, "raw").boots)

    def nova_image(self, disk):
        return self.images.backend().by_name(
            {"uuid": disk.instance}, disk.name)


class ListedTest(RbdTestCase):

    def test_an_abandoned_list_holds_no_connection(self):
        disk = self.make()
        bases = self.cache.bases()
        next(bases)
        with disk.session():
            del bases
            self.assertEqual(2 * SIZE, disk.size())

    def test_another_backends_disks_are_left_to_it(self):
        self.images.config("libvirt", images_type="qcow2")
        self.make()
        self.images.config("libvirt", images_type="rbd")
        self.make(OTHER)
        self.assertEqual(
            {INSTANCE: False, OTHER: True},
            {disk.instance: isinstance(disk, Rbd)
             for disk in self.cache.disks()})
        self.assertEqual(2, len(list(self.cache.bases())))
