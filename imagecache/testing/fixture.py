# SPDX-License-Identifier: Apache-2.0
"""A fixture for the unit tests of a program that embeds this library.

    from imagecache import fixture

    def setUp(self):
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())

    def test_boots(self):
        image_id = self.images.add(content, "qcow2")
        self.driver.spawn(instance, image_id)
        self.assertEqual(["miss", ...], self.images.heard)

The library itself runs, in a directory of the test's own.  Only the image
store is replaced, by one in memory.  Disks are real, so qemu-img must be
installed.
"""

from __future__ import annotations

import pathlib
from typing import Any

import fixtures
from oslo_config import cfg
from oslo_config import fixture as config_fixture

from imagecache import imagebackend, opts
from imagecache.events import PROGRESS, Event
from imagecache.image_cache import ImageCache
from imagecache.testing.memory import MemoryStore


class ImageCacheFixture(fixtures.Fixture):
    """A host for one test.

    :param conf: the configuration to set for the test; its values return
        after the test.  None: a new configuration.  Pass ``cfg.CONF`` for a
        driver that reads the global configuration of oslo.config.
    :param options: to set in the group DEFAULT; ``config()`` sets others

    ``instances_path``
        the directory of the disks
    ``store``
        the image store, in place of Glance
    ``events``
        what ``cache`` told its observer
    ``heard``
        the names of these events, without those that report progress
    """

    def __init__(self, conf: cfg.ConfigOpts | None = None,
                 **options: Any) -> None:
        self.conf = cfg.ConfigOpts() if conf is None else conf
        self._options = options

    def _setUp(self) -> None:
        self.instances_path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.store = MemoryStore()
        self.events: list[Event] = []
        self._config = self.useFixture(config_fixture.Config(self.conf))
        opts.register_opts(self.conf)
        self.config(instances_path=str(self.instances_path))
        self.config(**self._options)

    def config(self, group: str | None = None, **options: Any) -> None:
        """Set options until the test ends."""
        for name, value in options.items():
            self._config.config(group=group, **{name: value})

    def add(self, content: bytes, disk_format: str = "raw", *,
            min_disk: int = 0) -> str:
        """Put an image into the store, and return its id."""
        return self.store.add(content, disk_format, min_disk=min_disk)

    @property
    def cache(self) -> ImageCache:
        """The API for new code, configured with the present options."""
        return ImageCache(self.conf, glance=self.store,
                          observe=self.events.append)

    def backend(self, use_cow: bool | None = None) -> imagebackend.Backend:
        """The API for code written against nova."""
        return imagebackend.Backend(use_cow, conf=self.conf)

    @property
    def heard(self) -> list[str]:
        """The names of the events, without those that report progress."""
        return [event.name for event in self.events
                if event.name not in PROGRESS]
