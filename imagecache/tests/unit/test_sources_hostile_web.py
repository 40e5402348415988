# SPDX-License-Identifier: Apache-2.0
"""Web servers that try to keep a store waiting: each of them gets an error.

No test asserts a time: a test that reaches its limit fails.
"""
from __future__ import annotations

import contextlib
import gzip
import json
import threading
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import fixtures
from keystoneauth1 import loading, session

from imagecache import exception
from imagecache.model import MiB
from imagecache.sources import glance, http
from imagecache.testing import glance as fake
from imagecache.testing import hostile_web, web
from imagecache.tests import base

LIMIT = 15            # seconds for one answer; time-outs are far shorter
TIMEOUT = 0.3         # seconds that a store waits
DATA = b"hello"


class HostileWebTestCase(base.TestCase):

    server: web.WebServer

    def _serve(self, server: Any) -> Any:
        server.start()
        self.addCleanup(server.stop)
        return server

    @contextlib.contextmanager
    def _refused(self, error: type[Exception] = exception.SourceError,
                 **names: str) -> Iterator[None]:
        with self.subTest(**names), fixtures.Timeout(LIMIT, gentle=True):
            with self.assertRaises(error):
                yield
            self.assertTrue(self.server.is_idle())


class HttpTest(HostileWebTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.server = self._serve(web.WebServer())
        self.page = self.server.add("/disk.raw", DATA)
        self.store = http.HttpStore(connect_timeout=TIMEOUT,
                                    read_timeout=TIMEOUT)

    def _read(self) -> bytes:
        image = self.store.describe(self.page.url)
        with self.store.read(image) as stream:
            return b"".join(stream.chunks)

    def test_head_that_never_ends_is_an_error_to_head(self) -> None:
        for name, answer in hostile_web.HEADS.items():
            self.page.always(**answer)
            with self._refused(answer=name):
                self.store.describe(self.page.url)

    def test_head_that_never_ends_is_an_error_to_get(self) -> None:
        for name, answer in hostile_web.HEADS.items():
            self.page.once(**answer)
            with self._refused(answer=name):
                self._read()

    def test_body_that_never_ends_is_an_error(self) -> None:
        self.page.always(chunked=True)
        for name, answer in hostile_web.BODIES.items():
            self.page.once(**answer)
            with self._refused(answer=name):
                self._read()

    def test_redirect_whose_head_never_ends_is_an_error(self) -> None:
        first = self.server.add("/first", b"")
        first.always(status=302, location="/disk.raw")
        for name, answer in hostile_web.HEADS.items():
            self.page.always(**answer)
            with self._refused(answer=name):
                self.store.describe(first.url)

    def test_body_of_an_error_is_not_read(self) -> None:
        for status in (302, 404, 500):
            head = f"HTTP/1.1 {status} No\r\n\r\n".encode()
            self.page.always(script=lambda data, head=head: (
                head if not n else bytes(1024) for n in range(10 ** 6)))
            with self._refused(exception.ImageCacheError,
                               status=str(status)):
                self.store.describe(self.page.url)

    def test_tls_handshake_that_never_ends_is_an_error(self) -> None:
        for name, answer in hostile_web.HANDSHAKES.items():
            with hostile_web.RawServer(**answer) as server, \
                    self._refused(answer=name):
                self.store.describe(f"https://{server.address}/disk.raw")

    def test_proxy_that_never_answers_is_an_error(self) -> None:
        for name, answer in hostile_web.HEADS.items():
            with hostile_web.RawServer(**answer) as server, \
                    fixtures.EnvironmentVariable(
                        "https_proxy", f"http://{server.address}"), \
                    self._refused(answer=name):
                self.store.describe("https://192.0.2.1/disk.raw")

    def test_half_open_connection_is_an_error(self) -> None:
        # The kernel accepts the connection; no process reads from it.
        with hostile_web.RawServer(lambda data: [], stall=0) as server, \
                self._refused():
            self.store.describe(f"http://{server.address}/disk.raw")

    def test_addresses_of_one_name_share_the_connect_timeout(self) -> None:
        asked: list[object] = []

        def addresses(*args: object, **options: object) -> list[Any]:
            return [(2, 1, 6, "", ("127.0.0.1", port))
                    for port in range(1, 2000)]

        def connect(address: object, timeout: float,
                    **options: object) -> None:
            asked.append(address)
            threading.Event().wait(0.02)
            raise TimeoutError

        self.useFixture(fixtures.MonkeyPatch(
            "socket.getaddrinfo", addresses))
        self.useFixture(fixtures.MonkeyPatch(
            "urllib3.util.connection.create_connection", connect))
        with self._refused():
            self.store.describe("http://many.invalid/disk.raw")
        self.assertLess(len(asked), 1000)

    def test_stores_leave_no_thread_behind(self) -> None:
        self.page.always(**hostile_web.HEADS["a header, byte by byte"])
        with self._refused():
            self.store.describe(self.page.url)
        self.assertEqual([threading.main_thread()], [
            thread for thread in threading.enumerate() if not thread.daemon])


class GlanceTest(HostileWebTestCase):

    server: fake.FakeGlance

    def setUp(self) -> None:
        super().setUp()
        self.server = self._serve(fake.FakeGlance())
        self.image_id = self.server.add_image(DATA)
        self.record = self.server.record(self.image_id)
        self.file = self.server.file(self.image_id)
        self.store = glance.GlanceStore.from_token(
            self.server.url, self.server.token, connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT)

    def _read(self) -> bytes:
        image = self.store.describe(self.image_id)
        with self.store.read(image) as stream:
            return b"".join(stream.chunks)

    def test_record_that_never_ends_is_an_error(self) -> None:
        for name, answer in (hostile_web.HEADS | hostile_web.BODIES).items():
            self.record.always(**answer)
            with self._refused(answer=name):
                self.store.describe(self.image_id)

    def test_file_that_never_ends_is_an_error(self) -> None:
        for name, answer in (hostile_web.HEADS | hostile_web.BODIES).items():
            self.file.always(**answer)
            with self._refused(answer=name):
                self._read()

    def test_record_whose_body_comes_byte_by_byte_is_an_error(self) -> None:
        self.record.always(piece=1, pause=hostile_web.PAUSE)
        with self._refused(exception.DownloadStalled):
            self.store.describe(self.image_id)

    def test_record_of_any_size_is_not_read_into_memory(self) -> None:
        self.store = glance.GlanceStore.from_token(
            self.server.url, self.server.token, read_timeout=LIMIT)
        self.record.data += b" " * (64 * MiB)
        with self._refused(exception.SourceMisbehaved):
            self.store.describe(self.image_id)

    def test_record_is_not_decompressed(self) -> None:
        bomb = zlib.compress(b" " * (64 * MiB))
        for coding, data in (("gzip", gzip.compress(self.record.data)),
                             ("deflate", bomb)):
            self.record.data = data
            self.record.always(encoding=coding)
            with self._refused(exception.SourceMisbehaved, coding=coding):
                self.store.describe(self.image_id)

    def test_body_of_a_redirect_is_not_read(self) -> None:
        def script(data: bytes) -> Iterator[bytes]:
            yield b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"
            while True:
                yield bytes(1024)

        self.file.always(script=script)
        with self._refused(exception.SourceMisbehaved):
            self._read()

    def test_file_that_calls_itself_json_is_not_read_into_the_log(
            self) -> None:
        log = self.useFixture(fixtures.FakeLogger(level=0))
        self.file.headers["Content-Type"] = "application/json"
        self.assertEqual(DATA, self._read())
        self.assertNotIn("hello", log.output)

    def test_keystone_that_never_answers_is_an_error(self) -> None:
        auth = loading.get_plugin_loader("password").load_from_options(
            auth_url=f"{self.server.url}/v3", username="u", password="p",
            user_domain_id="default", project_name="p",
            project_domain_id="default")
        page = self.server.add("/v3", b"{}")
        store = glance.GlanceStore.from_session(
            session.Session(auth=auth), connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT)
        answers: Mapping[str, Any] = hostile_web.HEADS | hostile_web.BODIES
        for name, answer in answers.items():
            page.always(**answer)
            self.server.add("/v3/auth/tokens", b"{}").always(**answer)
            with self._refused(exception.ImageCacheError, answer=name):
                store.describe(self.image_id)

    def test_session_of_the_caller_is_not_changed(self) -> None:
        theirs = session.Session()
        before = dict(theirs.session.adapters)
        glance.GlanceStore.from_session(theirs)
        self.assertEqual(before, dict(theirs.session.adapters))
        self.assertIsNone(theirs.timeout)

    def test_record_is_json(self) -> None:
        for body in (b"[" * MiB, b'{"a":' * MiB,
                     json.dumps({"id": self.image_id, "status": "active",
                                 "size": 0}).replace("0", "1e400").encode()):
            self.record.data = body
            with self._refused(exception.SourceMisbehaved):
                self.store.describe(self.image_id)
