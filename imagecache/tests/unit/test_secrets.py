# SPDX-License-Identifier: Apache-2.0
"""What must not reach records, messages, events and terminals."""
from __future__ import annotations

import hashlib
import logging
import os
import pathlib
import re
import traceback
from collections.abc import Callable
from typing import Any

import fixtures
from oslo_config import cfg

from imagecache import exception, opts, text
from imagecache.image_cache import ImageCache
from imagecache.model import MiB
from imagecache.sources import file, glance, http
from imagecache.sources.registry import ImageStores
from imagecache.testing import glance as fake
from imagecache.testing import web
from imagecache.tests import base

DATA = bytes(MiB)
QUERY = "X-Amz-Signature=5ecret"
ESCAPES = "\x1b[2J\x1b]0;title\x07 \r\nforged: line\x00\x9b\u202e"


def all_text(error: BaseException) -> str:
    """Return what a log shows of an error, and what programs read of it."""
    return "".join(traceback.format_exception(error)) \
        + repr(getattr(error, "facts", ""))


def configured(root: pathlib.Path) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    opts.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override("instances_path", str(root / "instances"))
    return conf


class SecretsTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger(
            "imagecache", level=logging.DEBUG))
        self.server = web.WebServer()
        self.server.start()
        self.addCleanup(self.server.stop)
        self.page = self.server.add("/disk.raw", DATA)
        self.ref = f"{self.page.url}?{QUERY}"

    def _error(self, function: Callable[..., object], *args: Any,
               **options: Any) -> exception.ImageCacheError:
        with self.assertRaises(exception.ImageCacheError) as caught:
            function(*args, **options)
        return caught.exception


class QueryTest(SecretsTestCase):
    """The query of a presigned URL is as good as a password."""

    def setUp(self) -> None:
        super().setUp()
        self.store = http.HttpStore(read_timeout=0.3)

    def _read(self, image: Any) -> bytes:
        with self.store.read(image) as stream:
            return b"".join(stream.chunks)

    def test_query_is_sent(self) -> None:
        self._read(self.store.describe(self.ref))
        self.assertEqual([f"/disk.raw?{QUERY}"] * 2,
                         [request.path for request in self.server.requests])

    def test_description_does_not_show_it(self) -> None:
        self.assertNotIn("5ecret", repr(self.store.describe(self.ref)))
        self.assertNotIn("5ecret", self.store.describe(self.ref).ref)

    def test_key_of_the_base_depends_on_it(self) -> None:
        digest = "ab" * 32
        self.assertEqual(
            hashlib.sha1(f"{self.ref}#sha256:{digest}".encode()).hexdigest(),
            self.store.describe(f"{self.ref}#sha256={digest}").key)

    def test_errors_do_not_show_it(self) -> None:
        image = self.store.describe(self.ref)
        for manner in ({"status": 403}, {"status": 404}, {"status": 500},
                       {"status": 418}, {"cut": -1}, {"cut": 9}, {"stall": 9},
                       {"stall": -1}, {"length": "x"}, {"encoding": "x"},
                       {"status": 302, "location": f"http://x.invalid/?{QUERY}"
                        }, {"status": 302, "location": f"ftp://x/?{QUERY}"}):
            self.page.always(**manner)
            with self.subTest(manner):
                self.assertNotIn("5ecret", all_text(
                    self._error(self._read, image)))

    def test_errors_of_connections_do_not_show_it(self) -> None:
        for url in ("http://127.0.0.1:1/x", "http://x.invalid/y",
                    f"http://{'a' * 70}.invalid/z", "https://127.0.0.1:1/x",
                    "http://a..b/x", "http://\u2100.invalid/x",
                    self.server.url.replace("http:", "https:")):
            with self.subTest(url):
                self.assertNotIn("5ecret", all_text(self._error(
                    self.store.describe, f"{url}?{QUERY}")))

    def test_references_that_are_refused_do_not_show_it(self) -> None:
        stores = ImageStores(configured(self.root))
        for ref in (f"ftp://h/x?{QUERY}", f"http:/h/x?{QUERY}",
                    f"http://h:x/y?{QUERY}", f"http://[::1/?{QUERY}",
                    f"http://h/?{QUERY}#sha256=1", f"file:///x?{QUERY}"):
            with self.subTest(ref):
                self.assertNotIn("5ecret", all_text(self._error(
                    stores.image, ref)))


class PasswordTest(SecretsTestCase):

    def test_no_misspelt_url_shows_a_password(self) -> None:
        stores = ImageStores(configured(self.root))
        for ref in ("http:/u:pass@h", "http://u:pass/@h", "http:u:pass@h/x",
                    "http:///u:pass@h/x", "http://u:pa?pass@h/x",
                    "http://u:x#pass@h/x", "ftp://u:pass@h/x",
                    "file://u:pass@h/x", "http:\\\\u:pass@h/x",
                    "u:pass@h/x", "http://u:pass@/x", "http://u:pass@h:x/y",
                    "http://u:pass@[h/x", " http://u:pass@h"):
            with self.subTest(ref):
                self.assertNotIn("pass", all_text(self._error(
                    stores.image, ref)))

    def test_mask_leaves_the_rest(self) -> None:
        for url, shown in (
                ("http://h/x@2.raw", "http://h/x@2.raw"),
                ("http://u:p@h:80/x", "http://***@h:80/x"),
                ("http://h/x#sha256=ab", "http://h/x#sha256=ab"),
                ("/a/b@c", "/a/b@c"), ("name", "name")):
            self.assertEqual(shown, text.mask_url(url))

    def test_mask_of_a_masked_url_is_the_same(self) -> None:
        for url in ("http://u:p@h/x?y", "http:/u:p@h/x?y", "x:y@z?a"):
            self.assertEqual(text.mask_url(url),
                             text.mask_url(text.mask_url(url)))


class BaseTest(SecretsTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.events: list[Any] = []
        self.cache = ImageCache(configured(self.root),
                                observe=self.events.append)
        self.base = self.cache.fetch(self.ref)

    def test_records_events_and_logs_do_not_show_a_query(self) -> None:
        shown = self.log.output + repr(self.events)
        for path in self.root.rglob("*"):
            shown += str(path)
            if path.is_file():
                shown += path.read_bytes().decode("latin-1")
        self.assertIn("/disk.raw", shown)
        self.assertNotIn("5ecret", shown)

    def test_base_is_found_by_its_url_and_by_what_is_shown(self) -> None:
        entry = self.cache.base(self.ref)
        self.assertEqual(self.base.key, entry.key)
        assert entry.record
        self.assertEqual(entry, self.cache.base(entry.record.source))

    def test_bases_of_other_queries_are_told_apart(self) -> None:
        other = self.cache.fetch(f"{self.page.url}?other")
        self.assertEqual(other.key,
                         self.cache.base(f"{self.page.url}?other").key)

    def test_base_that_is_not_found_does_not_show_a_query(self) -> None:
        self.assertNotIn("5ecret", all_text(self._error(
            self.cache.base, f"http://h/x?{QUERY}")))


class PrintableTest(SecretsTestCase):
    """Text from a server, an image or a name cannot steer a terminal."""

    def _check(self, error: BaseException) -> None:
        shown = f"{error}{error.__class__.__name__}"
        self.assertTrue(shown.isprintable(), repr(shown))
        self.assertLess(len(shown), 5000)
        shown.encode()   # without surrogates

    def test_reason_phrases_and_headers(self) -> None:
        store = http.HttpStore(read_timeout=5)
        text = ESCAPES.split("\r")[0].encode("latin-1") + b"\x9b" + b"x" * 9999
        for answer in (b"HTTP/1.1 500 " + text + b"\r\n\r\n",
                       b"HTTP/1.1 403 " + text + b"\r\n\r\n",
                       b"HTTP/1.1 418 " + text + b"\r\n\r\n",
                       b"HTTP/1.1 " + text + b"\r\n\r\n", text + b"\r\n\r\n",
                       b"HTTP/1.1 200 OK\r\nContent-Encoding: " + text
                       + b"\r\n\r\n",
                       b"HTTP/1.1 200 OK\r\nContent-Length: " + text
                       + b"\r\n\r\n",
                       b"HTTP/1.1 206 OK\r\nContent-Range: " + text
                       + b"\r\n\r\n",
                       b"HTTP/1.1 302 OK\r\nLocation: http://" + text
                       + b"/\r\n\r\n"):
            self.page.once(script=lambda data, answer=answer: [answer])
            image = store.describe(self.page.url)
            with self.subTest(answer[:60]):
                error = self._error(
                    store.read(image, 5).__enter__)
                self._check(error)
                self.assertNotIn("\x1b", repr(error.facts))

    def test_records_of_glance(self) -> None:
        server = fake.FakeGlance()
        server.start()
        self.addCleanup(server.stop)
        store = glance.GlanceStore.from_token(server.url, server.token)
        for record in ({"status": ESCAPES}, {"size": ESCAPES},
                       {"os_hash_value": ESCAPES}, {"disk_format": [ESCAPES]},
                       {"locations": ESCAPES}, {"min_disk": ESCAPES},
                       {"status": "x" * 10 ** 6}):
            image_id = server.add_image(DATA, **record)
            with self.subTest(record=str(record)[:60]):
                self._check(self._error(store.describe, image_id))

    def test_what_glance_answers_to_a_request(self) -> None:
        server = fake.FakeGlance()
        server.start()
        self.addCleanup(server.stop)
        store = glance.GlanceStore.from_token(server.url, server.token)
        image_id = server.add_image(DATA)
        body = b"<h1>\x1b[2J \xe2\x80\xae" + b"<" * 10 ** 6
        head = b"HTTP/1.1 409 \x1b[2J\r\nContent-Length: %d\r\n\r\n"
        server.add(f"/v2/images/{image_id}/import", b"").always(
            script=lambda data: [head % len(body), body])
        self._check(self._error(store.request_copy, image_id, "ceph"))

    def test_names_of_files(self) -> None:
        for name in (ESCAPES.replace("\0", ""), "\udcff", "x" * 5000):
            with self.subTest(name[:40]):
                self._check(self._error(file.FileStore().describe,
                                        f"{self.root}/{name}"))

    def test_log_of_an_event(self) -> None:
        path = self.root / "\x1b[2J\nforged\udcff.raw"
        with open(os.fsencode(path), "wb") as f:
            f.write(DATA)
        ImageCache(configured(self.root)).fetch(str(path))
        self.assertNotIn("\x1b", self.log.output)
        self.assertFalse(re.search(r"^forged", self.log.output, re.M))
        self.log.output.encode()
