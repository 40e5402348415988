# SPDX-License-Identifier: Apache-2.0
"""What the unit tests of an agent look like: real disks, no Glance."""

from __future__ import annotations

import unittest

import agent
import fixtures

from imagecache import exception, fixture
from imagecache.model import GiB, MiB

INSTANCE = {"uuid": "5717e0c1-bc84-44f4-bb13-19eea918ab4f"}


class AgentTest(fixtures.TestWithFixtures, unittest.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.conf.register_opts(agent.OPTS)
        self.agent = agent.Agent(self.images.conf, glance=self.images.store)

    def test_a_guest_gets_the_disk_it_was_promised(self) -> None:
        self.images.config(image=self.images.add(bytes(MiB)), gib=2)
        with self.agent.disk(INSTANCE) as disk:
            self.assertEqual(2 * GiB, disk.size())
        self.assertFalse(disk.exists())

    def test_an_image_that_is_too_large_is_refused(self) -> None:
        image = self.images.add(bytes(MiB), min_disk=2 * GiB)
        self.images.config(image=image, gib=1)
        with self.assertRaises(exception.FlavorDiskTooSmall), \
                self.agent.disk(INSTANCE):
            self.fail("it was not")
