# SPDX-License-Identifier: Apache-2.0
"""Image stores that give wrong or slow answers, or redirect elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Self

from hostile_images.canary import Sentinel
from imagecache import exception
from imagecache.image_cache import ImageCache
from imagecache.model import KiB
from imagecache.testing import hostile_web, images
from imagecache.testing.glance import FakeGlance
from imagecache.testing.web import Page, WebServer

LIMIT = 4 * 1024 * KiB      # more than this must not be downloaded
SECRET = "hunter2"  # noqa: S105   (must reach no other server)

_REPLACED = ("CVE-2015-5251", "CVE-2016-0757", "CVE-2022-4134", "OSSN-0065",
             "OSSN-0075", "OSSN-0090")
_ELSEWHERE = ("CVE-2026-34881", "CVE-2026-71196", "CVE-2026-71197")
_TOO_LATE = ("CVE-2026-50112", "CVE-2026-61422")
_ENDLESS = ("CVE-2014-5356", "CVE-2014-9623", "CVE-2015-5286",
            "CVE-2026-71198")
_LOCATIONS = ("CVE-2014-9493", "CVE-2015-1195", "CVE-2025-44021")


class Stage:
    """The servers of one play, on free ports of 127.0.0.1.

    :param directory: for files
    :param cache: for what is to be in the cache beforehand; it must ask
        ``glance`` for ids
    """

    def __init__(self, sentinel: Sentinel, directory: pathlib.Path) -> None:
        self.sentinel = sentinel
        self.directory = directory
        self.web = WebServer()
        self.glance = FakeGlance()
        self.cache: ImageCache
        self._servers = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._servers.enter_context(self.web)
        self._servers.enter_context(self.glance)
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    def page(self, data: bytes | None = None,
             path: str = "/disk.raw") -> Page:
        return self.web.add(path, images.content() if data is None else data)

    def image(self, **record: object) -> str:
        return self.glance.add_image(images.content(), **record)

    def endless(self) -> str:
        """Start a server whose only page never ends; return its URL."""
        def script(data: bytes) -> Iterator[bytes]:
            yield b"HTTP/1.0 200 OK\r\n\r\n"
            while True:
                yield bytes(64 * KiB)

        server = self._servers.enter_context(hostile_web.RawServer(script))
        return f"http://{server.address}/disk.raw"


@dataclasses.dataclass(frozen=True)
class Play:
    """A way in which a store misbehaves.

    :param arrange: sets it up, and returns the reference to make a disk of
    :param error: what must come of it; None: a disk with the usual content
    """

    id: str
    arrange: Callable[[Stage], str]
    error: type[exception.ImageCacheError] | None
    represents: tuple[str, ...] = ()


def plays() -> Iterator[Play]:
    yield from _lengths()
    yield from _endless()
    yield from _redirects()
    yield from _changes()
    yield from _glances()
    yield from _files()


def _served(data: bytes | None = None, path: str = "/disk.raw",
            **manner: object) -> Callable[[Stage], str]:
    """Return how to serve a page in a manner; see web.Manner."""
    def arrange(stage: Stage) -> str:
        page = stage.page(data, path)
        page.always(**manner)
        return page.url
    return arrange


def _endless() -> Iterator[Play]:
    """Answers that never end, and would keep all hosts' callers waiting."""
    for name, answer in hostile_web.HEADS.items():
        yield Play(f"http-head-{_slug(name)}", _served(**answer),
                   exception.SourceError)
    for name, answer in hostile_web.BODIES.items():
        yield Play(f"http-body-{_slug(name)}", _first_get(**answer),
                   exception.SourceError)


def _slug(name: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", name.lower()))


def _first_get(**manner: Any) -> Callable[[Stage], str]:
    """Return how to serve a good HEAD, and every GET in a manner."""
    def arrange(stage: Stage) -> str:
        page = stage.page()
        page.always(chunked=True)
        for _ in range(10):    # more than the retries
            page.once(**manner)
        return page.url
    return arrange


def _lengths() -> Iterator[Play]:
    # None of these servers can resume a download.
    for id, arrange in {
            "short": _served(ranges=False, cut=1000),
            "short-rudely": _served(ranges=False, cut=1000, reset=True),
            "short-unsaid": _served(ranges=False, cut=1000, chunked=True),
            "stalled": _served(ranges=False, stall=1000)}.items():
        yield Play(f"http-{id}", arrange, exception.SourceError)
    yield Play("http-silent", _served(stall=-1), exception.SourceError)
    yield Play("http-slow", _served(pause=0.001), None)
    for length in ("-1", "x", "1e3", "0x10", "9" * 30):
        yield Play(f"http-length-{length}", _served(length=length),
                   exception.ImageCacheError)
    yield Play("http-longer-than-said",
               _served(images.qcow2(images.content()), "/disk.qcow2",
                       length="1000"), exception.ImageUnacceptable)
    yield Play("http-endless", Stage.endless, exception.ImageTooLarge,
               _ENDLESS)
    yield Play("http-over-limit", _served(bytes(LIMIT + 1)),
               exception.ImageTooLarge, _ENDLESS)
    yield Play("http-over-limit-unsaid",
               _served(bytes(LIMIT + 1), chunked=True),
               exception.ImageTooLarge, _ENDLESS)
    yield Play("http-bomb-in-gzip", _served(encoding="gzip"),
               exception.SourceMisbehaved)
    yield Play("http-error-page", _served(b"<html>No.</html>",
                                          "/disk.qcow2"),
               exception.ImageUnacceptable)


def _redirects() -> Iterator[Play]:
    places = {
        "other-port": "http://127.0.0.1:{port}/x",
        "name": "http://localhost:{port}/x",
        "number": "http://2130706433:{port}/x",
        "hex": "http://0x7f000001:{port}/x",
        "octal": "http://0177.0.0.1:{port}/x",
        "mapped": "http://[::ffff:127.0.0.1]:{port}/x",
        "zero": "http://0.0.0.0:{port}/x",
        "login": "http://127.0.0.1@127.0.0.1:{port}/x",
        "no-scheme": "//127.0.0.1:{port}/x",
        "file": "file://{path}",
        "ftp": "ftp://127.0.0.1:{port}/x",
        "path": "{path}",
        "data": "data:,x",
        "split": "/x\r\nX-Evil: 1",
    }
    for id, place in places.items():
        yield Play(f"redirect-{id}", _redirected(place),
                   exception.ImageCacheError, _ELSEWHERE if id != "file"
                   else (*_ELSEWHERE, *_LOCATIONS))
    yield Play("redirect-after-describing",
               _redirected("http://127.0.0.1:{port}/x", late=True),
               exception.SourceMisbehaved, _TOO_LATE)
    yield Play("redirect-circle", _redirected("/disk.raw"),
               exception.SourceMisbehaved)
    yield Play("redirect-with-password",
               _redirected("http://127.0.0.1:{port}/x", login=True),
               exception.SourceMisbehaved, ("CVE-2026-90461",))


def _redirected(place: str, *, late: bool = False,
                login: bool = False) -> Callable[[Stage], str]:
    def arrange(stage: Stage) -> str:
        page = stage.page()
        to = place.format(port=stage.sentinel.port, path=stage.sentinel.path)
        if late:     # HEAD is answered properly
            for _ in range(4):
                page.once(status=302, location=to)
        else:
            page.always(status=302, location=to)
        return page.url.replace("://", f"://user:{SECRET}@") if login \
            else page.url
    return arrange


def _changes() -> Iterator[Play]:
    def between_requests(stage: Stage) -> str:
        page = stage.page()
        page.once(etag='"another"')
        return page.url

    def while_it_broke(stage: Stage) -> str:
        page = stage.page()
        page.once(cut=1000)
        page.once(etag='"another"')
        return page.url

    def after_it_was_cached(stage: Stage) -> str:
        page = stage.page(images.content(seed=2))
        stage.cache.fetch(page.url)
        page.data = images.content()
        return page.url

    def digest_of_another(stage: Stage) -> str:
        return f"{stage.page().url}#sha256={'0' * 64}"

    yield Play("changes-between-requests", between_requests,
               exception.ImageUnacceptable)
    yield Play("changes-while-it-broke", while_it_broke,
               exception.ImageUnacceptable)
    yield Play("changes-after-it-was-cached", after_it_was_cached, None,
               ("CVE-2026-122321",))
    yield Play("digest-of-another", digest_of_another,
               exception.ImageDigestMismatch, ("CVE-2024-47211",))


def _glances() -> Iterator[Play]:
    flipped = bytearray(images.content())
    flipped[70_000] ^= 1
    for id, data, error in (
            ("flip-one-bit", bytes(flipped), exception.ImageDigestMismatch),
            ("short", images.content()[:-1], exception.ImageCacheError),
            ("long", images.content() + b"x", exception.ImageCacheError)):
        yield Play(f"glance-{id}", _glance_sends(data), error,
                   ("CVE-2024-47211",))
    yield from _records()

    def location(stage: Stage) -> str:
        url = stage.sentinel.path.as_uri()
        return stage.image(direct_url=url,
                           locations=[{"url": url, "metadata": {}}])

    def replaced(stage: Stage) -> str:
        image_id = stage.image()
        stage.cache.fetch(image_id)
        stage.glance.change(image_id, os_hash_value="0" * 128)
        return image_id

    def cached_then(**manner: object) -> Callable[[Stage], str]:
        def arrange(stage: Stage) -> str:
            image_id = stage.image()
            stage.cache.fetch(image_id)
            stage.glance.record(image_id).always(**manner)
            return image_id
        return arrange

    yield Play("glance-location-is-a-file", location, None, _LOCATIONS)
    yield Play("glance-replaces-data", replaced, exception.ImageChanged,
               _REPLACED)
    yield Play("glance-forbids-what-is-cached", cached_then(status=403),
               exception.Forbidden, ("CVE-2013-4428",))
    yield Play("glance-hides-what-is-cached", cached_then(status=404),
               exception.ImageNotFound, ("CVE-2013-4428",))


def _glance_sends(data: bytes) -> Callable[[Stage], str]:
    def arrange(stage: Stage) -> str:
        image_id = stage.image()
        stage.glance.file(image_id).data = data
        return image_id
    return arrange


def _records() -> Iterator[Play]:
    """Yield descriptions of an image by Glance, or by a false Glance."""
    records: dict[str, dict[str, object]] = {
        "hash-is-a-path": {"os_hash_value": "../../../../tmp/x"},
        "hash-is-short": {"os_hash_value": "0"},
        "hash-has-a-newline": {"os_hash_value": "0" * 127 + "\n"},
        "id-is-a-path": {"id": "../../../../tmp/x"},
        "size-is-negative": {"size": -1},
        "size-is-text": {"size": "many"},
        "size-is-nothing": {"size": None},
        "min-disk-is-text": {"min_disk": "../x"},
        "status-is-odd": {"status": "deactivated"},
        "format-is-a-path": {"disk_format": "../../x"},
        "format-is-a-list": {"disk_format": ["raw"]},
        "format-is-null": {"disk_format": "qcow2\0"},
    }
    for id, record in records.items():
        yield Play(f"glance-{id}", functools.partial(_image, record),
                   exception.ImageCacheError, ("CVE-2024-3727",
                   "CVE-2026-48769") if "hash" in id else ())
    for what in ("record", "file"):
        yield Play(f"glance-redirects-{what}", _glance_redirects(what),
                   exception.SourceError, ("CVE-2026-90461",))


def _image(record: dict[str, object], stage: Stage) -> str:
    return stage.image(**record)


def _glance_redirects(what: str) -> Callable[[Stage], str]:
    def arrange(stage: Stage) -> str:
        image_id = stage.image()
        page = stage.glance.record(image_id) if what == "record" \
            else stage.glance.file(image_id)
        page.always(status=302,
                    location=f"http://127.0.0.1:{stage.sentinel.port}/x")
        return image_id
    return arrange


def _files() -> Iterator[Play]:
    def fifo(stage: Stage) -> str:
        os.mkfifo(stage.directory / "fifo")
        return str(stage.directory / "fifo")

    def link(stage: Stage) -> str:
        (stage.directory / "link").symlink_to("/dev/zero")
        return str(stage.directory / "link")

    for id, arrange in {
            "device": lambda stage: "/dev/zero",
            "device-url": lambda stage: "file:///dev/zero",
            "directory": lambda stage: str(stage.directory) + "/",
            "fifo": fifo, "link-to-device": link}.items():
        yield Play(f"file-is-{id}", arrange, exception.InvalidImageRef,
                   ("CVE-2026-44919",))
