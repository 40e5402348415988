# SPDX-License-Identifier: Apache-2.0
"""The image stores a host can read from, each created at its first use."""

from __future__ import annotations

import dataclasses
import functools

from oslo_config import cfg

from imagecache.model import Description, Digest
from imagecache.sources import Image, ImageStore
from imagecache.sources.resolve import kind_of


class ImageStores:
    """Finds the store of a reference, and the description of its image.

    :param glance: replaces the store that the configuration describes; an
        agent that acts for its users passes one with their credentials
    """

    def __init__(self, conf: cfg.ConfigOpts,
                 glance: ImageStore | None = None) -> None:
        self._conf = conf
        self._given_glance = glance

    def image(self, ref: str, *, disk_format: str | None = None,
              digest: Digest | None = None) -> Image:
        """Describe an image.

        :param ref: a Glance id, a path, or a file, http or https URL
        :param disk_format: the format it must have; None: the store's claim
        :param digest: the digest it must have; None: the store's
        :raises InvalidImageRef: ``ref`` has none of these forms
        :raises ImageError, SourceError: the image cannot be read
        """
        store = self._store(ref)
        described = store.describe(ref)
        if disk_format is not None:   # "" is a claim that no image meets
            described = dataclasses.replace(described,
                                            disk_format=disk_format)
        if digest and digest != described.digest:
            described = _demanding(described, digest)
        return Image(store, described)

    def _store(self, ref: str) -> ImageStore:
        match kind_of(ref):
            case "file":
                return self._file
            case "http":
                return self._http
            case "glance":
                return self._given_glance or self._glance

    # Imported at the first use: an agent that reads only files loads no HTTP
    # client, and one that reads from web servers loads no Glance client.

    @functools.cached_property
    def _file(self) -> ImageStore:
        from imagecache.sources.file import FileStore
        return FileStore()

    @functools.cached_property
    def _http(self) -> ImageStore:
        from imagecache.sources.http import HttpStore
        options = self._conf.image_cache
        return HttpStore(
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            redirects=options.http_redirects, ca_file=options.http_ca_file)

    @functools.cached_property
    def _glance(self) -> ImageStore:
        from imagecache.sources.glance import GlanceStore
        return GlanceStore.from_conf(self._conf)


def _demanding(described: Description, digest: Digest) -> Description:
    """The same image, whose bytes must have a digest its store did not tell.

    A base that was made without this demand cannot be held to it, so this is
    another base.
    """
    return dataclasses.replace(
        described, digest=digest, identity=f"{described.identity}#{digest}")
