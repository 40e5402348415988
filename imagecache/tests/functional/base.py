# SPDX-License-Identifier: Apache-2.0
"""The base class of functional tests: it makes caches as an agent does."""

from __future__ import annotations

import pathlib

from oslo_config import cfg

import imagecache
from imagecache import opts
from imagecache.tests import base


class TestCase(base.TestCase):

    def cache(self, instances: pathlib.Path | None = None,
              **options: object) -> imagecache.ImageCache:
        """Return a cache over a directory; ``options`` are of [DEFAULT]."""
        conf = cfg.ConfigOpts()
        opts.register_opts(conf)
        conf([], default_config_files=[])
        conf.set_override("instances_path",
                          str(instances or self.root / "instances"))
        for name, value in options.items():
            conf.set_override(name, value)
        return imagecache.ImageCache(conf)
