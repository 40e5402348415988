# SPDX-License-Identifier: Apache-2.0
"""An image store that misbehaves causes an error in time, and no harm."""

from __future__ import annotations

import dataclasses

import ddt

import hostile_images as corpus
from hostile_images import transports
from imagecache import fixture
from imagecache.image_cache import ImageCache
from imagecache.sources.glance import GlanceStore
from imagecache.testing import images
from imagecache.tests import base

INSTANCE = "0b7f1a52-9d0e-4a53-a5a9-8a9f2b0c9d11"


@ddt.ddt
class HostileStoreTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.canary = self.enterContext(corpus.Canary(self.root / "canary"))
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("image_cache", download_retries=1,
                           connect_timeout=2, read_timeout=1)
        self.stage = self.enterContext(
            transports.Stage(self.canary.sentinel, self.root))
        store = GlanceStore.from_token(self.stage.glance.url,
                                       self.stage.glance.token)
        self.cache = ImageCache(self.images.conf, glance=store)
        host = self.cache.host
        self.cache.host = dataclasses.replace(host, policy=dataclasses.replace(
            host.policy, max_image_size=transports.LIMIT))
        self.stage.cache = self.cache

    @ddt.named_data(*((play.id, play) for play in transports.plays()))
    def test_misbehaviour(self, play: transports.Play) -> None:
        ref = play.arrange(self.stage)
        before = self._files()
        if play.error is None:
            self._make(ref)
        else:
            with self.assertRaises(play.error) as caught:
                self._make(ref)
            self.assertNotIn(transports.SECRET, str(caught.exception))
            self.assertEqual(before, self._files())
        self.assertEqual([], self.canary.complaints())

    def _make(self, ref: str) -> None:
        disk = self.cache.create_disk(INSTANCE, ref, image_type="raw")
        self.assertTrue(images.content() == disk.path.read_bytes())

    def _files(self) -> set[str]:
        root, locks = self.images.instances_path, self.cache.host.locks
        return {str(path) for path in root.rglob("*") if path.is_file()
                and path.parent != locks.directory}
