# SPDX-License-Identifier: Apache-2.0
"""A test case that counts how often a new disk is looked for."""

from __future__ import annotations

import os
import pathlib
from unittest import mock

from imagecache import fixture
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base


class LooksTestCase(base.TestCase):

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
