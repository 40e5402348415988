# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import subprocess
import uuid

import fixtures
from oslo_config import cfg

import imagecache
from imagecache import events, exception
from imagecache.model import Digest, GiB, MiB
from imagecache.sources import glance
from imagecache.testing import stores
from imagecache.tests import base
from imagecache.tests.functional import glance_server

INSTANCE = "6b2f7c1e-54a0-4d2f-9a7b-1f1c5b0b6a01"
MEMBER = "jo:ours:member,reader"
# More than the buffers between two sockets hold.
BIG = random.Random(3).randbytes(MiB) * 32


class GlanceTest(stores.StoreConformance, base.TestCase):
    """One class, so one server."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = glance_server.GlanceServer()
        cls.server.setUp()
        cls.addClassCleanup(cls.server.cleanUp)

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        self.client = self.server.client(MEMBER)
        self.store = self._store(MEMBER)

    def _store(self, token, **options):
        return glance.GlanceStore.from_token(self.server.url, token,
                                             **options)

    def _upload(self, data, disk_format="raw", **properties):
        image_id = self.client.images.create(
            name=self.id(), disk_format=disk_format, container_format="bare",
            **properties).id
        self.client.images.upload(image_id, io.BytesIO(data))
        return image_id

    def _check(self, expected, found):
        """Compare offset and bytes; a list of differences takes minutes."""
        self.assertEqual(expected[0], found[0])
        self.assertTrue(expected[1] == found[1], "the bytes differ")

    def _read(self, image, offset=0, store=None):
        with (store or self.store).read(image, offset) as stream:
            return stream.offset, b"".join(stream.chunks)

    def publish(self, data):
        return self._upload(data)

    def missing(self):
        return str(uuid.uuid4())

    def _qcow2(self):
        """A qcow2 image of 100 MiB."""
        content, path = self.root / "content", self.root / "disk.qcow2"
        content.write_bytes(BIG + bytes(68 * MiB))
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2",
                        content, path], check=True)
        return path

    def test_image_is_described_as_glance_knows_it(self):
        data = self._qcow2().read_bytes()
        image_id = self._upload(data, "qcow2", min_disk=3)
        image = self.store.describe(image_id)
        self.assertEqual(image_id, image.identity)
        self.assertEqual(len(data), image.size)
        self.assertEqual("qcow2", image.disk_format)
        self.assertEqual(3 * GiB, image.min_disk)
        self.assertEqual(
            Digest("sha512", hashlib.sha512(data).hexdigest()), image.digest)
        self.assertEqual((self.server.file(image_id).as_uri(),),
                         image.locations)
        self._check((0, data), self._read(image))

    def test_bytes_are_those_that_glanceclient_reads(self):
        image_id = self._upload(BIG)
        theirs = b"".join(self.client.images.data(image_id))
        self._check((0, theirs),
                         self._read(self.store.describe(image_id)))

    def test_offset_past_the_end_starts_again(self):
        image = self.store.describe(self._upload(b"bytes"))
        self._check((0, b"bytes"), self._read(image, 5))

    def test_private_image_of_others_is_not_found(self):
        with self.assertRaises(exception.ImageNotFound):
            self._store("eve:theirs:member,reader").describe(self._upload(b"bytes"))

    def test_wrong_token_is_forbidden(self):
        with self.assertRaises(exception.Forbidden) as caught:
            self._store("wrong").describe(self._upload(b"bytes"))
        self.assertNotIn("wrong", str(caught.exception))

    def test_data_that_a_policy_withholds_are_forbidden(self):
        reader = self._store("jim:ours:reader")
        image = reader.describe(self._upload(b"bytes"))
        with self.assertRaises(exception.Forbidden):
            self._read(image, store=reader)

    def test_queued_image_is_not_active(self):
        image_id = self.client.images.create(
            disk_format="raw", container_format="bare").id
        with self.assertRaises(exception.ImageNotActive) as caught:
            self.store.describe(image_id)
        self.assertEqual("queued", caught.exception.facts["status"])

    def test_deactivated_image_is_not_active(self):
        image_id = self._upload(b"bytes")
        image = self.store.describe(image_id)
        self.server.client("root:ours:admin,member,reader").images.deactivate(image_id)
        for attempt in (self.store.describe, self._read):
            with self.assertRaises(exception.ImageNotActive) as caught:
                attempt(image_id if attempt == self.store.describe else image)
            self.assertEqual("deactivated", caught.exception.facts["status"])

    def test_deleted_image_is_not_found(self):
        image_id = self._upload(b"bytes")
        image = self.store.describe(image_id)
        self.client.images.delete(image_id)
        with self.assertRaises(exception.ImageNotFound):
            self.store.describe(image_id)
        with self.assertRaises(exception.ImageNotFound):
            self._read(image)

    def test_data_lost_by_the_store_are_not_found(self):
        image = self.store.describe(self._upload(b"bytes"))
        self.server.file(image.ref).unlink()
        for offset in (0, 2):
            with self.assertRaises(exception.ImageNotFound) as caught:
                self._read(image, offset)
            self.assertIn("not in the store", str(caught.exception))

    def test_data_cut_short_in_the_store_are_truncated(self):
        image = self.store.describe(self._upload(BIG))
        os.truncate(self.server.file(image.ref), 3 * MiB + 5)
        with self.assertRaises(exception.DownloadTruncated) as caught:
            self._read(image)
        self.assertEqual(3 * MiB + 5, caught.exception.facts["received"])

    def test_download_goes_on_after_the_server_died(self):
        image = self.store.describe(self._upload(BIG))
        got = b""
        with self.assertRaises((exception.SourceUnreachable,
                                exception.DownloadTruncated)):
            with self.store.read(image) as stream:
                for chunk in stream.chunks:
                    got += chunk
                    if len(got) == MiB:
                        self.server.kill()
        self.assertLess(len(got), len(BIG))
        with self.assertRaises(exception.SourceUnreachable):
            self._read(image, len(got))
        self.server.start()
        self._check((len(got), BIG[len(got):]),
                         self._read(image, len(got)))

    def test_silent_server_stalls(self):
        image = self.store.describe(self._upload(BIG))
        store = self._store(MEMBER, read_timeout=0.5)
        self.addCleanup(self.server.resume)
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(store.read(image))
            next(stream.chunks)
            self.server.pause()
            with self.assertRaises(exception.DownloadStalled) as caught:
                list(stream.chunks)
        self.assertLess(MiB - 1, caught.exception.facts["received"])
        with self.assertRaises(exception.DownloadStalled):
            store.describe(image.ref)

    def _cache(self, observe=events.silent):
        (self.root / "agent.conf").write_text(
            f"[DEFAULT]\ninstances_path = {self.root}/instances\n"
            f"[glance]\nauth_type = admin_token\n"
            f"endpoint = {self.server.url}\ntoken = {MEMBER}\n")
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[str(self.root / "agent.conf")])
        return imagecache.ImageCache(conf, observe=observe)

    def _bases(self):
        return [path for path in (self.root / "instances/_base").rglob("*")
                if path.is_file()]

    def test_disk_is_made_though_the_server_dies_meanwhile(self):
        source = self._qcow2()
        image_id = self._upload(source.read_bytes(), "qcow2")
        seen = []

        def trouble(event):
            if event.name == "download" and "download" not in seen:
                self.server.kill()
            elif event.name == "retry":
                self.assertGreater(event.facts["offset"], 0)
                self.server.start()
            seen.append(event.name)

        disk = self._cache(trouble).create_disk(
            INSTANCE, image_id, size=GiB)
        self.assertIn("retry", seen)
        self.assertEqual(GiB, disk.size())
        subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F",
                        "qcow2", disk.path, source], check=True)

    def test_image_damaged_in_the_store_leaves_nothing_behind(self):
        image_id = self._upload(self._qcow2().read_bytes(), "qcow2")
        with self.server.file(image_id).open("r+b") as f:
            f.seek(5 * MiB)
            f.write(b"x")
        with self.assertRaises(exception.ImageDigestMismatch):
            self._cache().create_disk(INSTANCE, image_id)
        self.assertEqual([], self._bases())
