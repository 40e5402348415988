# SPDX-License-Identifier: Apache-2.0
"""A key manager with one secret, and nova's disks that it encrypts."""

from __future__ import annotations

import pathlib
import types

from castellan import key_manager as castellan
from castellan.common import utils

from imagecache import fixture, imagebackend
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base, directory_keys

INSTANCE = {"uuid": "8a6a8b1f-7f0c-4b3c-a8a2-3f7d2b6d6d5e"}
SECRET = "2d9a0f5c-41f2-4fd7-9d3c-6c9e7f3a1b20"
MAPPING = {"bus": "virtio", "dev": "vda", "type": "disk", "encrypted": True,
           "encryption_format": "luks", "encryption_secret_uuid": SECRET}
CONTENT = images.content(MiB)
ALICE, BOB = (types.SimpleNamespace(username=name)
              for name in ("alice", "bob"))


class KeyTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        for options in (castellan.key_manager_opts, utils.credential_opts,
                        directory_keys.OPTS):
            self.images.conf.register_opts(options, group="key_manager")
        self.keys = self.root / "keys"
        self.keys.mkdir()
        self.images.config(
            "key_manager", directory=str(self.keys),
            backend="imagecache.tests.directory_keys.DirectoryKeys")
        (self.keys / f"{SECRET}.pass").write_bytes(b"open sesame")

    def disk(self, image_type: str = "raw", **mapping: object
             ) -> imagebackend.Image:
        return self.images.backend().by_name(
            INSTANCE, "disk", image_type,
            disk_info_mapping=MAPPING | mapping)

    def cache(self, disk: imagebackend.Image, **options: object) -> None:
        def fetch(context: object, target: str, image_id: str) -> None:
            pathlib.Path(target).write_bytes(CONTENT)

        disk.cache(fetch, "a" * 40, 2 * MiB, image_id="x", **options)
