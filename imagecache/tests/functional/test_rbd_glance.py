# SPDX-License-Identifier: Apache-2.0
"""A real Glance that keeps images in a real Ceph."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import random
import subprocess
import uuid
from concurrent import futures
from unittest import mock

import fixtures
from oslo_config import cfg

import imagecache
from imagecache import exception, imagebackend, provision, sources
from imagecache.model import Digest, GiB, MiB
from imagecache.sources import Copy, glance
from imagecache.tests import base, processes, signing
from imagecache.tests.functional import ceph_cluster, glance_server, rbd_case
from imagecache.tools import rbd

MEMBER = "jo:ours:member,reader"
SIGNED = """
[glance]
verify_glance_signatures = true
[key_manager]
backend = imagecache.tests.directory_keys.DirectoryKeys
directory = {keys}
"""
DATA = random.Random(5).randbytes(4 * MiB) + bytes(4 * MiB)


class RbdGlanceTestCase(base.TestCase):
    """One class, so one cluster and one server."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ceph = cls._started(ceph_cluster.CephCluster())
        cls.server = cls._started(glance_server.GlanceServer(cls.ceph))

    @classmethod
    def _started(cls, fixture):
        fixture.setUp()
        cls.addClassCleanup(fixture.cleanUp)
        return fixture

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        self.client = self.server.client(MEMBER)
        self.store = glance.GlanceStore.from_token(self.server.url, MEMBER)

    def _queued(self, disk_format="raw", **properties):
        return self.client.images.create(
            name=self.id(), disk_format=disk_format,
            container_format="bare", **properties).id

    def _upload(self, data=DATA, disk_format="raw", store="ceph",
                **properties):
        image_id = self._queued(disk_format, **properties)
        self.client.images.upload(image_id, io.BytesIO(data), backend=store)
        return image_id

    @contextlib.contextmanager
    def _cluster(self, user="imagecache"):
        access = rbd.Access(str(self.ceph.conf), user, rbd_case.PATIENCE)
        with rbd.connected(access) as cluster:
            yield cluster

    def _names(self, pool):
        with self._cluster("admin") as cluster, cluster.pool(pool) as found:
            return found.names()

    def _cache(self, user="imagecache", ceph_conf=None, extra=""):
        """An agent on a host whose disks are in Ceph."""
        (self.root / "agent.conf").write_text(f"""
[DEFAULT]
instances_path = {self.root}/instances
[glance]
auth_type = admin_token
endpoint = {self.server.url}
token = {MEMBER}
[libvirt]
images_type = rbd
images_rbd_pool = vms
images_rbd_ceph_conf = {ceph_conf or self.ceph.conf}
rbd_user = {user}
rbd_connect_timeout = {rbd_case.PATIENCE}
images_rbd_glance_copy_poll_interval = 1
{extra}
""")
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[str(self.root / "agent.conf")])
        self.events = []
        return imagecache.ImageCache(conf, observe=self.events.append)

    def _create(self, cache, image_id, size=GiB, **demands):
        """Make a disk, and check that it has the data of the image."""
        disk = cache.create_disk(str(uuid.uuid4()), image_id, size=size,
                                 **demands)
        self.assertEqual(size, disk.size())
        with self._cluster("admin") as cluster, \
                cluster.pool("vms") as pool, \
                pool.open(disk.path.name) as volume:
            self.assertTrue(volume.read(0, len(DATA)) == DATA,
                            "the content differs")
        return disk

    def _parent(self, disk):
        with self._cluster("admin") as cluster, \
                cluster.pool("vms") as pool, \
                pool.open(disk.path.name) as volume:
            return volume.parent()

    def _check_clone(self, disk, image_id):
        """Check that it is a clone of Glance's image, and not downloaded."""
        self.assertEqual(("images", image_id, "snap"), self._parent(disk))
        self.assertEqual([], self.server.downloads(image_id))
        self.assertIsNone(disk.base_key())

    def _check_base(self, disk, image_id):
        """Check that it is a clone of a base that was downloaded once."""
        pool, name, _ = self._parent(disk)
        self.assertEqual("vms", pool)
        self.assertIn(disk.base_key(), name)
        # Glance notes it when it has been received.
        processes.wait_for(lambda: self.server.downloads(image_id))
        self.assertEqual(1, len(self.server.downloads(image_id)))

    def _bases(self, cache, image_id):
        return sum(entry.record.source == image_id
                   for entry in cache.bases())

    def _reasons(self, name="location_not_usable"):
        return {event.facts["reason"] for event in self.events
                if event.name == name}

    def _qcow2(self):
        content, path = self.root / "content", self.root / "image.qcow2"
        content.write_bytes(DATA)
        subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O",
                        "qcow2", content, path], check=True)
        return path.read_bytes()

    def _content(self, name, pool="vms"):
        with self._cluster("admin") as cluster, \
                cluster.pool(pool) as found, found.open(name) as volume:
            return volume.read(0, volume.size())


class GlanceStoreTest(RbdGlanceTestCase):

    def _copied(self, image_id):
        """Wait until Glance is done with a copy; return how that ended."""
        processes.wait_for(lambda: self.store.copy_of(image_id, "ceph")
                           is not Copy.COMING)
        return self.store.copy_of(image_id, "ceph")

    def _url(self, image_id):
        return f"rbd://{self.ceph.fsid}/images/{image_id}/snap"

    def test_image_is_where_glance_says(self):
        image_id = self._upload()
        urls = self.store.locations(image_id)
        self.assertEqual((self._url(image_id),), urls)
        self.assertEqual(urls, self.store.describe(image_id).locations)
        with self._cluster() as cluster:
            self.assertEqual(len(DATA), cluster.clonable(
                "images", image_id, "snap"))

    def test_image_is_copied_once(self):
        image_id = self._upload(store="main")
        self.assertIs(Copy.ABSENT, self.store.copy_of(image_id, "ceph"))
        # It must still be at it when it is asked again.
        self.ceph.pause("osd")
        self.addCleanup(self.ceph.resume, "osd")
        self.store.request_copy(image_id, "ceph")
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            self.store.request_copy(image_id, "ceph")
        self.assertIn("active task", str(caught.exception))
        self.ceph.resume("osd")
        self.assertIs(Copy.THERE, self._copied(image_id))
        self.assertIn(self._url(image_id), self.store.locations(image_id))
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            self.store.request_copy(image_id, "ceph")
        self.assertIn("already present", str(caught.exception))

    def test_copy_into_no_store_is_refused(self):
        image_id = self._upload(store="main")
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            self.store.request_copy(image_id, "nowhere")
        self.assertIn("nowhere", str(caught.exception))

    def _published(self):
        """Return a queued image whose data are in the pool."""
        source, image_id = self._upload(), self._queued()
        with self._cluster("glance") as cluster, \
                cluster.pool("images") as images:
            images.clone(images, source, "snap", image_id)
            with images.open(image_id) as volume:
                volume.create_snapshot("snap")
                volume.protect("snap")
        return image_id

    def test_location_makes_a_queued_image_active(self):
        image_id = self._published()
        self.store.register(image_id, self._url(image_id))
        self.assertEqual((self._url(image_id),),
                         self.store.describe(image_id).locations)
        self.assertEqual(DATA, b"".join(self.client.images.data(image_id)))

    def test_service_needs_no_locations_to_be_shown(self):
        image_id = self._published()
        service = self.store.from_token(self.server.url, f"{MEMBER},service")
        service.register(image_id, self._url(image_id))
        processes.wait_for(lambda: self.client.images.get(image_id).status
                           != "queued")
        self.assertEqual((self._url(image_id),),
                         service.locations(image_id))

    def test_location_where_nothing_is_is_refused(self):
        image_id = self._queued()
        with self.assertRaises(exception.ImageUnacceptable):
            self.store.register(image_id, self._url(image_id))


class RbdGlanceTest(RbdGlanceTestCase):

    def test_raw_image_in_glances_pool_is_cloned(self):
        image_id = self._upload()
        cache = self._cache()
        for _ in range(2):
            self._check_clone(self._create(cache, image_id), image_id)
        self.assertEqual(0, self._bases(cache, image_id))

    def test_processes_that_make_the_same_disk_all_get_it(self):
        image_id, instance = self._upload(), str(uuid.uuid4())
        cache = self._cache()
        self.assertEqual([0] * 4, processes.at_once([
            lambda: cache.create_disk(instance, image_id, size=GiB)] * 4))
        self._check_clone(cache.disk(instance), image_id)

    def test_disc_in_glances_pool_is_cloned(self):
        disc = bytearray(DATA)
        disc[32769:32774] = b"CD001"
        image_id = self._upload(bytes(disc), "iso")
        self._check_clone(self._cache().create_disk(
            str(uuid.uuid4()), image_id), image_id)

    def test_disk_takes_one_connection_and_a_new_base_another(self):
        cache, image_id = self._cache(), self._upload(self._qcow2(), "qcow2")
        for connections in (2, 1):
            with mock.patch.object(rbd, "_client",
                                   wraps=rbd._client) as made:
                cache.create_disk(str(uuid.uuid4()), image_id, size=GiB)
            self.assertEqual(connections, made.call_count)

    def test_connection_is_shared_in_its_own_block_and_thread_only(self):
        access = rbd.Access(conf=str(self.ceph.conf), user="imagecache")
        other = dataclasses.replace(access, user="nova")
        with rbd.connected(access) as one:
            with rbd.connected(access) as same:
                self.assertIs(one, same)
            with rbd.connected(other) as another:
                self.assertIsNot(one, another)
            with futures.ThreadPoolExecutor() as pool:
                self.assertTrue(pool.submit(
                    self._connects_anew, access, one).result())
            self.assertEqual(self.ceph.fsid, one.fsid)
        self.assertTrue(self._connects_anew(access, one))

    def _connects_anew(self, access, before):
        with rbd.connected(access) as cluster:
            return cluster is not before and cluster.fsid == self.ceph.fsid

    def test_clone_holds_no_data_of_its_own(self):
        disk = self._create(self._cache(), self._upload())
        self.assertLess(disk.allocated(), MiB)

    def test_flattened_disk_outlives_the_image(self):
        image_id = self._upload()
        cache = self._cache(extra="[image_cache]\nrbd_flatten_disks = true")
        disk = self._create(cache, image_id)
        self.assertIsNone(self._parent(disk))
        self.client.images.delete(image_id)
        self.assertNotIn(image_id, self._names("images"))

    def test_qcow2_image_has_a_base_of_its_own(self):
        image_id = self._upload(self._qcow2(), "qcow2")
        cache = self._cache()
        for _ in range(2):
            self._check_base(self._create(cache, image_id), image_id)
        self.assertEqual(1, self._bases(cache, image_id))

    def test_image_is_copied_into_glances_pool_first(self):
        image_id = self._upload(store="main")
        cache = self._cache(extra="images_rbd_glance_store_name = ceph")
        self._check_clone(self._create(cache, image_id), image_id)
        self.assertIn("glance_copy_started",
                      [event.name for event in self.events])
        # And once is enough.
        cache = self._cache(extra="images_rbd_glance_store_name = ceph")
        self._check_clone(self._create(cache, image_id), image_id)
        self.assertNotIn("glance_copy_started",
                         [event.name for event in self.events])

    def test_copy_that_another_host_asked_for_is_waited_for(self):
        image_id = self._upload(store="main")
        cache = self._cache(extra="images_rbd_glance_store_name = ceph")
        self.store.request_copy(image_id, "ceph")
        self._check_clone(self._create(cache, image_id), image_id)

    def test_image_that_cannot_be_copied_has_a_base(self):
        image_id = self._upload(store="main")
        cache = self._cache(extra="images_rbd_glance_store_name = nowhere")
        self._check_base(self._create(cache, image_id), image_id)
        self.assertIn("nowhere", str(self._reasons("glance_copy_failed")))

    def test_image_in_another_store_has_a_base(self):
        image_id = self._upload(store="main")
        self._check_base(self._create(self._cache(), image_id), image_id)
        self.assertEqual({"it is not a snapshot in Ceph"}, self._reasons())

    def test_image_that_may_not_be_read_has_a_base(self):
        image_id = self._upload()
        disk = self._create(self._cache(user="blind"), image_id)
        self._check_base(disk, image_id)
        self.assertEqual({"it cannot be cloned from here"}, self._reasons())

    def test_reading_glances_pool_is_enough_to_clone(self):
        image_id = self._upload()
        disk = self._create(self._cache(user="reader"), image_id)
        self._check_clone(disk, image_id)

    def test_clone_that_nova_made_and_no_guest_has_used_is_a_disk(self):
        image_id = self._upload()
        for clone_format in (1, 2):
            instance = str(uuid.uuid4())
            conf = self.ceph.conf_with(rbd_default_clone_format=clone_format)
            access = rbd.Access(str(conf), "nova", rbd_case.PATIENCE)
            with rbd.connected(access) as cluster, \
                    cluster.pool("vms") as vms, \
                    cluster.pool("images") as images:
                vms.clone(images, image_id, "snap", f"{instance}_disk")
            for user in ("imagecache", "reader"):
                with self.subTest(clone_format=clone_format, user=user):
                    self.assertTrue(
                        self._cache(user=user).disk(instance).exists())

    def test_image_whose_data_are_gone_is_not_found(self):
        image_id = self._upload()
        with self._cluster("glance") as cluster, \
                cluster.pool("images") as images:
            with images.open(image_id) as volume:
                volume.unprotect("snap")
                volume.remove_snapshot("snap")
            images.remove(image_id)
        with self.assertRaises(exception.ImageError):
            self._cache().create_disk(str(uuid.uuid4()), image_id)

    def test_unprotected_snapshot_is_cloned_in_the_newer_format_only(self):
        image_id = self._upload()
        with self._cluster("glance") as cluster, \
                cluster.pool("images") as images, \
                images.open(image_id) as volume:
            volume.unprotect("snap")
        newer = self.ceph.conf_with(rbd_default_clone_format=2)
        self._check_clone(self._create(
            self._cache(ceph_conf=newer), image_id), image_id)
        older = self.ceph.conf_with(rbd_default_clone_format=1)
        self._check_base(self._create(
            self._cache(ceph_conf=older), image_id), image_id)

    def test_image_whose_bytes_are_demanded_has_a_base(self):
        image_id = self._upload()
        digest = self.store.describe(image_id).digest
        # As the store itself says it, it is no news.
        self._check_clone(self._create(
            self._cache(), image_id, digest=digest), image_id)
        other = Digest("sha256", hashlib.sha256(DATA).hexdigest())
        self._check_base(self._create(
            self._cache(), image_id, digest=other), image_id)

    def _signed(self, signature):
        image_id = self._upload()
        # Glance verifies a signature at the upload only.
        self.client.images.update(image_id,
                                  **signing.properties_of(signature))
        return image_id

    def test_signed_image_has_a_base_whose_signature_was_verified(self):
        keys = signing.Keys(self.server.root / "keys")
        cache = self._cache(extra=SIGNED.format(keys=keys.directory))
        signature = keys.signed(DATA, signing.Party("alice"))
        image_id = self._signed(signature)
        disk = self._create(cache, image_id)
        self._check_base(disk, image_id)
        self.assertTrue(cache.base(image_id).record.signature.startswith(
            signature.certificate_id))
        wrong = self._signed(keys.signed(b"other data",
                                         signing.Party("alice")))
        instance = str(uuid.uuid4())
        with self.assertRaises(exception.ImageSignatureInvalid):
            cache.create_disk(instance, wrong, size=GiB)
        self.assertFalse(cache.disk(instance).exists())
        self.assertEqual(0, self._bases(cache, wrong))

    def test_disk_of_another_instance_is_never_cloned(self):
        cache = self._cache()
        theirs = self._create(cache, self._upload())
        with self._cluster() as cluster, cluster.pool("vms") as pool, \
                pool.open(theirs.path.name) as volume:
            volume.create_snapshot("snap")
            volume.protect("snap")

        self._check_not_cloned(
            cache, f"rbd://{self.ceph.fsid}/vms/{theirs.path.name}/snap")

    def test_image_in_another_cluster_is_not_cloned(self):
        self._check_not_cloned(
            self._cache(), f"rbd://{uuid.uuid4()}/images/{{}}/snap")

    def _check_not_cloned(self, cache, location):
        """Check that an image with this location gets a base."""
        image_id = self._upload()
        image = sources.Image(self.store, dataclasses.replace(
            self.store.describe(image_id),
            locations=(location.format(image_id),)))
        disk = cache.disk(str(uuid.uuid4()))
        provision.provision(disk, image, GiB)
        self._check_base(disk, image_id)

    def test_disk_smaller_than_the_image_is_refused(self):
        image_id = self._upload()
        cache, instance = self._cache(), str(uuid.uuid4())
        with self.assertRaises(exception.FlavorDiskSmallerThanImage):
            cache.create_disk(instance, image_id, size=len(DATA) - 512)
        image_id = self._upload(min_disk=2)
        with self.assertRaises(exception.FlavorDiskSmallerThanMinDisk):
            cache.create_disk(instance, image_id, size=GiB)
        self.assertFalse(cache.disk(instance).exists())
        self.assertEqual([], self.server.downloads(image_id))

    def test_download_is_refused_where_it_is_forbidden(self):
        extra = "[workarounds]\nnever_download_image_if_on_rbd = true"
        image_id = self._upload(store="main")
        with self.assertRaises(exception.ImageUnacceptable):
            self._create(self._cache(extra=extra), image_id)
        self.assertEqual([], self.server.downloads(image_id))
        # A base that is there needs no download.
        self._create(self._cache(), image_id)
        self._check_base(self._create(self._cache(extra=extra), image_id),
                         image_id)
        image_id = self._upload()
        self._check_clone(self._create(self._cache(extra=extra), image_id),
                          image_id)


class NovaTest(RbdGlanceTestCase):
    """The calls of nova's driver."""

    def setUp(self):
        super().setUp()
        self._cache()
        self.conf = cfg.ConfigOpts()
        self.conf([], default_config_files=[str(self.root / "agent.conf")])
        self.contexts = []
        self.backend = imagebackend.Backend(conf=self.conf,
                                            glance=self._glance)

    def _glance(self, context):
        self.contexts.append(context)
        return self.store

    def _disk(self):
        return self.backend.by_name({"uuid": str(uuid.uuid4())}, "disk",
                                    "rbd")

    def _boot(self, image_id, size=GiB):
        """Make a disk as nova's driver does: clone, or else download."""
        disk = self._disk()

        def fetch(context, target, image_id):
            try:
                disk.clone(context, image_id)
            except exception.ImageUnacceptable:
                record = self.store.describe(image_id)
                with self.store.read(record) as stream, \
                        open(target, "wb") as f:
                    f.writelines(stream.chunks)

        disk.cache(fetch, hashlib.sha1(image_id.encode()).hexdigest(),
                   size=size, context="jo", image_id=image_id)
        return disk

    def _snapshot(self, disk, base_id, image_format="raw"):
        """Take a snapshot as nova's driver does; return its image id."""
        image_id = self._queued()
        location = disk.direct_snapshot(
            "jo", uuid.uuid4().hex, image_format, image_id, base_id)
        self.store.register(image_id, location)
        return image_id

    def test_driver_clones_where_it_would_download(self):
        image_id = self._upload()
        disk = self._boot(image_id)
        self._check_clone(disk.disk, image_id)
        self.assertEqual(GiB, disk.disk.size())
        self.assertIn("jo", self.contexts)
        self.assertFalse(any(self.conf.instances_path in str(path)
                             for path in self.root.rglob("*/_base/*")
                             if path.is_file()))

    def test_driver_downloads_what_cannot_be_cloned(self):
        image_id = self._upload(store="main")
        for _ in range(2):
            self._check_base(self._boot(image_id).disk, image_id)

    def test_clone_that_is_larger_than_the_flavor_is_taken_away(self):
        image_id, disk = self._upload(), self._disk()
        with self.assertRaises(exception.FlavorDiskSmallerThanImage):
            disk.cache(lambda target, **_: disk.clone("jo", image_id),
                       hashlib.sha1(image_id.encode()).hexdigest(),
                       size=len(DATA) - 512, image_id=image_id)
        self.assertFalse(disk.exists())

    def test_uri_of_an_image_will_do(self):
        image_id, disk = self._upload(), self._disk()
        disk.clone("jo", f"http://glance/v2/images/{image_id}")
        self._check_clone(disk.disk, image_id)
        with self.assertRaises(exception.ImageUnacceptable):
            self._disk().clone("jo", "/etc/passwd")

    def test_copy_is_made_unless_it_is_not_wanted(self):
        self.conf.set_override("images_rbd_glance_store_name", "ceph",
                               "libvirt")
        image_id, disk = self._upload(store="main"), self._disk()
        with self.assertRaises(exception.ImageUnacceptable):
            disk.clone("jo", image_id, copy_to_store=False)
        disk.clone("jo", image_id)
        self._check_clone(disk.disk, image_id)

    def test_driver_may_ask_for_the_copy_itself(self):
        self.conf.set_override("images_rbd_glance_store_name", "ceph",
                               "libvirt")
        image_id, disk = self._upload(store="main"), self._disk()
        disk.copy_to_store("jo", {"id": image_id})
        self.assertIs(Copy.THERE, self.store.copy_of(image_id, "ceph"))

    def test_configured_glance_is_asked_by_default(self):
        image_id = self._upload()
        self.backend = imagebackend.Backend(conf=self.conf)
        disk = self._disk()
        disk.clone("jo", image_id)
        self._check_clone(disk.disk, image_id)
        self.assertEqual([], self.contexts)

    def test_snapshot_is_an_image_that_boots(self):
        base_id = self._upload()
        disk = self._boot(base_id)
        image_id = self._snapshot(disk, base_id)
        # It depends on neither the disk nor its image.
        disk.disk.remove()
        self.client.images.delete(base_id)
        again = self._boot(image_id)
        self._check_clone(again.disk, image_id)
        self.assertTrue(
            self._content(again.rbd_name)[:len(DATA)] == DATA)
        self.assertEqual(GiB, again.disk.size())

    def test_snapshot_of_a_disk_with_a_base_goes_to_glances_pool(self):
        base_id = self._upload(self._qcow2(), "qcow2")
        disk = self._boot(base_id)
        self._check_base(disk.disk, base_id)
        image_id = self._snapshot(disk, base_id)
        self._check_clone(self._boot(image_id).disk, image_id)

    def test_snapshot_leaves_none_on_the_disk(self):
        base_id = self._upload()
        disk = self._boot(base_id)
        self._snapshot(disk, base_id)
        self.assertEqual([], self._snapshots(disk))

    def _snapshots(self, disk):
        with self._cluster() as cluster, cluster.pool("vms") as pool, \
                pool.open(disk.rbd_name) as volume:
            return volume.snapshots()

    def test_image_gone_from_glance_names_its_pool_still(self):
        base_id = self._upload()
        disk = self._boot(base_id)
        self.store = self.store.from_token(
            self.server.url, "eve:theirs:member,reader")
        url = disk.direct_snapshot("eve", "new", "raw", self._queued(),
                                   base_id)
        self.assertIn("/images/", url)

    def test_snapshot_without_a_known_pool_is_left_to_a_copy(self):
        base_id = self._upload(store="main")
        disk = self._boot(base_id)
        with self.assertRaises(exception.ImageUnacceptable):
            self._snapshot(disk, base_id)
        self.assertEqual([], self._snapshots(disk))

    def test_snapshot_in_another_format_is_left_to_a_copy(self):
        base_id = self._upload()
        disk = self._boot(base_id)
        with self.assertRaises(exception.ImageUnacceptable):
            self._snapshot(disk, base_id, "qcow2")

    def test_snapshot_into_a_pool_that_is_only_read_is_forbidden(self):
        base_id = self._upload()
        self.conf.set_override("rbd_user", "reader", "libvirt")
        disk, before = self._boot(base_id), self._names("images")
        with self.assertRaises(exception.Forbidden):
            self._snapshot(disk, base_id)
        self.assertEqual(before, self._names("images"))
        self.assertEqual([], self._snapshots(disk))

    def test_failed_snapshot_leaves_nothing(self):
        base_id = self._upload()
        disk = self._boot(base_id)
        taken = self._upload()    # there is a volume of this name
        before = self._names("images")
        with self.assertRaises(exception.StorageExists):
            disk.direct_snapshot("jo", "new", "raw", taken, base_id)
        self.assertEqual(before, self._names("images"))
        self.assertEqual([], self._snapshots(disk))
        self.assertTrue(self._content(taken, "images") == DATA)

    def test_snapshot_into_a_full_pool_leaves_nothing(self):
        base_id = self._upload()
        disk = self._boot(base_id)
        before = self._names("images")
        self.addCleanup(self.ceph.set_quota, "images", 0)
        self.ceph.set_quota("images", 1)
        self.ceph.await_full("images")
        with self.assertRaises(exception.NoSpace):
            disk.direct_snapshot("jo", "new", "raw", str(uuid.uuid4()),
                                 base_id)
        self.assertEqual(before, self._names("images"))
        self.assertEqual([], self._snapshots(disk))

    def test_snapshot_that_glance_does_not_take_is_cleaned_up(self):
        base_id, image_id = self._upload(), self._queued()
        disk = self._boot(base_id)
        url = disk.direct_snapshot("jo", "new", "raw", image_id, base_id)
        disk.cleanup_direct_snapshot({"url": url}, also_destroy_volume=True)
        self.assertNotIn(image_id, self._names("images"))
        # Once more, or with nothing to do, it does nothing.
        for location in (None, {"url": url}, url):
            disk.cleanup_direct_snapshot(location, also_destroy_volume=True)

    def test_cleaning_up_keeps_an_image_that_has_clones(self):
        base_id = self._upload()
        disk = self._boot(base_id)
        image_id = self._snapshot(disk, base_id)
        clone = self._boot(image_id)
        location = {"url": f"rbd://{self.ceph.fsid}/images/{image_id}/snap"}
        with self.assertRaises(exception.StorageBusy):
            disk.cleanup_direct_snapshot(location, also_destroy_volume=True)
        disk.cleanup_direct_snapshot(location, also_destroy_volume=True,
                                     ignore_errors=True)
        self.assertTrue(self._content(clone.rbd_name)[:len(DATA)] == DATA)
