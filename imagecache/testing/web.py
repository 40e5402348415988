# SPDX-License-Identifier: Apache-2.0
"""A web server for tests, which can be told to misbehave.

    with web.WebServer() as server:
        page = server.add("/disk.qcow2", data)
        page.once(cut=1000)         # the next GET ends after 1000 bytes
        fetch(page.url)
        server.requests[-1].headers["Range"]

The fields of Manner say how.
"""

from __future__ import annotations

import collections
import dataclasses
import email.message
import hashlib
import http.server
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

_PIECE = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Manner:
    """How to serve a page; the defaults are those of a correct server."""

    status: int | None = None       # answer with this, and no body
    location: str | None = None     # ... and this, to redirect
    heads: bool = True              # False: HEAD is answered with 405
    ranges: bool = True             # False: Range is ignored
    range_status: int | None = None    # answer Range with this instead
    shift: int = 0                  # a range starts so many bytes too late
    etag: str | None = "strong"     # "weak", None, or the text to send
    last_modified: str | None = "Mon, 01 Jan 2024 00:00:00 GMT"
    length: str | None = None       # Content-Length to pretend
    chunked: bool = False           # no Content-Length at all
    encoding: str | None = None     # Content-Encoding to pretend
    cut: int | None = None          # close after so many bytes of the body;
                                    # -1: without any answer
    reset: bool = False             # ... rudely
    stall: int | None = None        # fall silent after so many; -1: the same
    # Send the pieces of script(data) in place of an answer.
    script: Callable[[bytes], Iterable[bytes]] | None = None
    pause: float = 0.0              # seconds before each piece
    piece: int = _PIECE             # bytes sent at a time


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: email.message.Message


class Page:
    """The bytes under one path."""

    def __init__(self, url: str, data: bytes, headers: Mapping[str, str],
                 guard: tuple[str, str] | None) -> None:
        self.url = url
        self.data = data
        self.headers = dict(headers)    # to send besides the usual ones
        self.guard = guard              # a header to ask for, else 401
        self._manner = Manner()
        self._once: collections.deque[Manner] = collections.deque()

    def always(self, **manner: Any) -> None:
        """Serve every request this way; the arguments are as of Manner."""
        self._manner = Manner(**manner)

    def once(self, **manner: Any) -> None:
        """Serve one GET this way: the first without such an order yet."""
        self._once.append(Manner(**manner))

    def manner(self, method: str) -> Manner:
        if method == "GET" and self._once:
            return self._once.popleft()
        return self._manner


class WebServer:
    """Pages on a free port of 127.0.0.1, from start() to stop()."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.pages: dict[str, Page] = {}
        self._tls = tls

    def start(self) -> None:
        self._server = _Server(self, self._tls)
        threading.Thread(target=self._server.serve_forever, daemon=True,
                         kwargs={"poll_interval": 0.01}).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def add(self, path: str, data: bytes,
            headers: Mapping[str, str] | None = None,
            guard: tuple[str, str] | None = None) -> Page:
        """Put a page there.

        :param guard: the header, and its value, without which it is refused
        """
        page = Page(self.url + path, data, headers or {}, guard)
        self.pages[path] = page
        return page

    def is_idle(self, timeout: float = 10.0) -> bool:
        """Whether all connections are closed by ``timeout`` seconds."""
        return self._server.is_idle(timeout)


class _Server(socketserver.ThreadingTCPServer):

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, web: WebServer, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.web = web
        self._tls = tls
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: in tests clients close connections on purpose."""

    def is_idle(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout)

    def hang_up(self) -> None:
        with self._changed:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue   # the other side was faster


class _Handler(http.server.BaseHTTPRequestHandler):

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        web = self.server.web
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        web.requests.append(Request(self.command, self.path, self.headers))
        page = web.pages.get(path)
        manner = page.manner(self.command) if page else Manner(status=404)
        if page is None or manner.status is not None:
            self._refuse(manner.status or 404, manner)
        elif page.guard and self.headers.get(page.guard[0]) != page.guard[1]:
            self._refuse(401)
        elif self.command == "HEAD" and not manner.heads:
            self._refuse(405)
        elif manner.script:
            self._play(manner.script(page.data), manner)
        elif manner.stall == -1:
            self._stall()
        elif manner.cut == -1:
            self._hang_up(manner.reset)
        else:
            self._serve(page, manner)

    do_HEAD = do_POST = do_GET

    def end_headers(self) -> None:
        if self.close_connection:   # as the client asked
            self.send_header("Connection", "close")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing on stderr."""

    def _refuse(self, status: int, manner: Manner | None = None) -> None:
        self.send_response(status)
        if manner and manner.location is not None:
            self.send_header("Location", manner.location)
        self.send_header("Content-Length", (manner and manner.length) or "0")
        self.end_headers()

    def _serve(self, page: Page, manner: Manner) -> None:
        data, total = page.data, len(page.data)
        start = self._start(page, manner)
        if start is not None and manner.range_status is not None:
            self._refuse(manner.range_status)
            return
        if start is not None and start >= total:
            self._refuse(416)
            return
        if start is None:
            self.send_response(200)
        else:
            start += manner.shift
            data = data[start:]
            self.send_response(206)
            self.send_header("Content-Range",
                             f"bytes {start}-{total - 1}/{total}")
        self._send_headers(page, manner, len(data))
        if self.command != "HEAD":
            self._send_body(data, manner)

    def _start(self, page: Page, manner: Manner) -> int | None:
        asked = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        valid = (None, _etag(page, manner), manner.last_modified)
        if not asked or not manner.ranges \
                or self.headers.get("If-Range") not in valid:
            return None
        return int(asked[1])

    def _send_headers(self, page: Page, manner: Manner, length: int) -> None:
        usual = {"ETag": _etag(page, manner),
                 "Last-Modified": manner.last_modified,
                 "Content-Encoding": manner.encoding}
        if manner.chunked:
            usual["Transfer-Encoding"] = "chunked"
        else:
            usual["Content-Length"] = manner.length or str(length)
        for name, value in (usual | page.headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _send_body(self, data: bytes, manner: Manner) -> None:
        end = min(each for each in (manner.cut, manner.stall, len(data))
                  if each is not None)
        for at in range(0, end, manner.piece):
            time.sleep(manner.pause)
            self._send_piece(data[at:min(at + manner.piece, end)], manner)
        if manner.stall is not None:
            self._stall()
        elif manner.cut is not None:
            self._hang_up(manner.reset)
        elif manner.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _play(self, pieces: Iterable[bytes], manner: Manner) -> None:
        self.close_connection = True
        for piece in pieces:
            time.sleep(manner.pause)
            self.wfile.write(piece)
        if manner.stall is not None:
            self._stall()

    def _send_piece(self, piece: bytes, manner: Manner) -> None:
        if manner.chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        self.wfile.write(piece)

    def _stall(self) -> None:
        """Wait until the client closes, or the server stops."""
        self.connection.recv(1)
        self.close_connection = True

    def _hang_up(self, rudely: bool) -> None:
        self.close_connection = True
        if rudely:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            # shutdown() would still end the connection properly.
            self.rfile.close()
            self.wfile.close()
            self.connection.close()


def _etag(page: Page, manner: Manner) -> str | None:
    tag = f'"{hashlib.sha256(page.data).hexdigest()[:16]}"'
    return {"strong": tag, "weak": f"W/{tag}"}.get(
        manner.etag or "", manner.etag)
