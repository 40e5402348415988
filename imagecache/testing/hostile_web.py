# SPDX-License-Identifier: Apache-2.0
"""Answers of web servers that try to keep their caller waiting for ever.

    page = server.add("/disk.raw", data)
    page.always(**hostile_web.HEADS["a header, byte by byte"])

Each answer is a set of fields for imagecache.testing.web.Manner.  Most of them
never end.  A client that limits the time of each read from the socket, and
nothing else, waits for them for ever.
"""

from __future__ import annotations

import itertools
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

PAUSE = 0.02    # seconds between two bytes: any time-out is longer

Script = Callable[[bytes], Iterable[bytes]]

_STATUS = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _STATUS + b"Transfer-Encoding: chunked\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
_HEADER = b"X-Header: a value\r\n"


def _slow(start: bytes, rest: bytes) -> Mapping[str, Any]:
    """Send the start at once, and then the rest, over and over, in bytes."""
    def script(data: bytes) -> Iterator[bytes]:
        yield start
        for byte in itertools.cycle(rest):
            yield bytes([byte])
    return {"script": script, "pause": PAUSE}


def _fast(start: bytes, rest: bytes) -> Mapping[str, Any]:
    """Send the start, and then the rest over and over, without a pause."""
    block = rest * (64 * 1024 // len(rest))

    def script(data: bytes) -> Iterator[bytes]:
        yield start
        yield from itertools.repeat(block)
    return {"script": script}


def _silent(start: bytes) -> Mapping[str, Any]:
    """Send the start, and then nothing more."""
    return {"script": lambda data: [start], "stall": 0}


def _whole(head: bytes) -> bytes:
    """Return a chunked answer without its trailer: 5 bytes of body."""
    return head + b"5\r\nhello\r\n0\r\n"


# Answers whose status line or headers never end, to any request.
HEADS: Mapping[str, Mapping[str, Any]] = {
    "nothing": _silent(b""),
    "a status line, byte by byte": _slow(b"HTTP/1.1 200 ", b"O"),
    "half a status line": _silent(b"HTTP/1.1 2"),
    "an endless status line": _fast(b"HTTP/1.1 200 ", b"O"),
    "a header, byte by byte": _slow(_STATUS + b"X-Header: ", b"a"),
    "headers, byte by byte": _slow(_STATUS, _HEADER),
    "half a header": _silent(_STATUS + b"X-Hea"),
    "no end of the headers": _silent(_STATUS + _HEADER),
    "an endless header": _fast(_STATUS + b"X-Header: ", b"a"),
    "endless headers": _fast(_STATUS, _HEADER),
    "a header on endless lines": _fast(_STATUS + _HEADER, b" more\r\n"),
    "100 Continue, byte by byte": _slow(b"", _CONTINUE),
    "endless 100 Continue": _fast(b"", _CONTINUE),
    "endless headers of 100 Continue": _fast(_CONTINUE[:-2], _HEADER),
    "endless 103 Early Hints": _fast(b"", _HINTS),
    "endless lines that are empty": _fast(b"", b"\r\n"),
}

# Answers to GET whose body or trailer never ends, and has too few bytes of
# data in it for a limit of the data, or of its rate, to notice.
BODIES: Mapping[str, Mapping[str, Any]] = {
    "a chunk's size, byte by byte": _slow(_CHUNKED, b"0"),
    "an endless size of a chunk": _fast(_CHUNKED, b"0"),
    "half a chunk's size": _silent(_CHUNKED + b"1"),
    "a chunk's extension, byte by byte": _slow(_CHUNKED + b"5;x=", b"a"),
    "an endless extension of a chunk": _fast(_CHUNKED + b"5;x=", b"a"),
    "half a chunk's end": _silent(_CHUNKED + b"5\r\nhello\r"),
    "no trailer": _silent(_whole(_CHUNKED)),
    "a trailer, byte by byte": _slow(_whole(_CHUNKED), _HEADER),
    "a line of the trailer, byte by byte": _slow(
        _whole(_CHUNKED) + b"X-Header: ", b"a"),
    "an endless trailer": _fast(_whole(_CHUNKED), _HEADER),
    "an endless line of the trailer": _fast(
        _whole(_CHUNKED) + b"X-Header: ", b"a"),
}

# What a server sends in place of a TLS handshake: a record of 16 KiB.
_RECORD = b"\x16\x03\x03\x40\x00"
HANDSHAKES: Mapping[str, Mapping[str, Any]] = {
    "nothing": _silent(b""),
    "half a record": _silent(_RECORD),
    "a record, byte by byte": _slow(_RECORD, b"\x02"),
}


class RawServer:
    """Accepts connections on 127.0.0.1 and plays an answer, unasked."""

    def __init__(self, script: Script, pause: float = 0.0,
                 stall: int | None = None) -> None:
        self._server = _RawServer(("127.0.0.1", 0), _RawHandler)
        self._server.script, self._server.pause = script, pause
        self._server.silent = stall is not None
        self._server.stopped = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True,
                         kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stopped.set()
        self._server.shutdown()
        self._server.server_close()


class _RawServer(socketserver.ThreadingTCPServer):

    daemon_threads = True
    allow_reuse_address = True
    script: Script
    pause: float
    silent: bool
    stopped: threading.Event

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: that a client hangs up is expected."""


class _RawHandler(socketserver.BaseRequestHandler):

    server: _RawServer

    def handle(self) -> None:
        for piece in self.server.script(b""):
            time.sleep(self.server.pause)
            self.request.sendall(piece)
            if self.server.stopped.is_set():
                return
        if self.server.silent:
            self.server.stopped.wait()
