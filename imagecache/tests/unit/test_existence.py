# SPDX-License-Identifier: Apache-2.0
"""To make a disk, its storage is asked once whether the disk exists."""

from __future__ import annotations

import os
import pathlib
from unittest import mock

from imagecache import fixture
from imagecache.backends import Qcow2
from imagecache.encryption import Encryption
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import base


class ExistenceTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.image = self.images.add(images.qcow2(images.content(MiB)),
                                     "qcow2")

    def looks(self, instance: str, **options: object) -> int:
        """Make a disk, and return how often its path was looked at."""
        path = self.images.instances_path / instance / "disk"
        found = 0

        def counting(name: str) -> mock.mock._patch[object]:
            function = getattr(os, name)

            def look(what: object, *args: object, **kwargs: object) -> object:
                nonlocal found
                found += isinstance(what, (str, pathlib.Path)) \
                    and pathlib.Path(what) == path
                return function(what, *args, **kwargs)

            return mock.patch.object(os, name, look)

        with counting("stat"), counting("lstat"), counting("access"):
            self.images.cache.create_disk(instance, self.image, **options)
        return found

    def test_a_new_disk_is_looked_for_once(self) -> None:
        for image_type in ("qcow2", "raw"):
            for instance in (INSTANCE, OTHER):    # its base is new; or not
                with self.subTest(f"{image_type} {instance}"):
                    name = f"{image_type}-{instance}"
                    self.assertEqual(1, self.looks(
                        name, image_type=image_type))

    def test_a_new_encrypted_disk_is_looked_for_once(self) -> None:
        for image_type in ("qcow2", "raw"):
            self.assertEqual(1, self.looks(
                image_type, image_type=image_type,
                encryption=Encryption(b"passphrase", iter_time=1)))

    def test_the_backend_makes_one_object_of_a_new_disk(self) -> None:
        made = mock.Mock(wraps=Qcow2.__init__)

        def construct(disk: Qcow2, *args: object) -> None:
            made(disk, *args)

        with mock.patch.object(Qcow2, "__init__", construct):
            self.images.cache.create_disk(INSTANCE, self.image)
        self.assertEqual(1, made.call_count)
