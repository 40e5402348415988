# SPDX-License-Identifier: Apache-2.0
"""The image stores a host can read from, each made when it is first asked."""

from __future__ import annotations

import dataclasses
import functools

from oslo_config import cfg

from imagecache.model import Description, Digest
from imagecache.sources import Image, ImageStore
from imagecache.sources.resolve import kind_of


class ImageStores:
    """Finds the store of a reference, and what it says of the image.

    :param glance: stands for the one that the configuration describes; an
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
        :param disk_format: what it must be; None: what its store says
        :param digest: what its bytes must be; None: what its store says
        :raises InvalidImageRef: it is neither of these
        :raises ImageError, SourceError: there is no such image to be had
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

    # Imported when needed: an agent that reads files alone does not load a
    # web client, nor one that reads from the web Glance's.

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
