# SPDX-License-Identifier: Apache-2.0
"""To make a disk, its storage is asked once whether the disk exists."""

from __future__ import annotations

from unittest import mock

from imagecache.backends import Qcow2
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import looks


class ExistenceTest(looks.LooksTestCase):

    def test_a_new_disk_is_looked_for_once(self) -> None:
        for image_type in ("qcow2", "raw"):
            for instance in (INSTANCE, OTHER):    # its base is new; or not
                with self.subTest(f"{image_type} {instance}"):
                    name = f"{image_type}-{instance}"
                    self.assertEqual(1, self.looks(
                        name, image_type=image_type))

    def test_the_backend_makes_one_object_of_a_new_disk(self) -> None:
        made = mock.Mock(wraps=Qcow2.__init__)

        def construct(disk: Qcow2, *args: object) -> None:
            made(disk, *args)

        with mock.patch.object(Qcow2, "__init__", construct):
            self.images.cache.create_disk(INSTANCE, self.image)
        self.assertEqual(1, made.call_count)
