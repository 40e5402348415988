# SPDX-License-Identifier: Apache-2.0
"""HTTP connections on which no server can keep its caller waiting.

requests, urllib3 and http.client limit the time of each read from a socket.
A server that sends a byte now and then never exceeds such a limit.  Here the
limits are for whole parts of an answer:

    connecting                connect time-out, for all addresses of the name
    TLS handshake             connect time-out
    a proxy's own answer      connect time-out
    status line and headers   read time-out, 1xx answers included
    body that is not streamed the same read time-out, and MAX_ANSWER bytes
    body read by read1()      read time-out for each call
    trailer                   read time-out of the last call

A body that is not streamed is never decompressed: few bytes can become many.
"""

from __future__ import annotations

import collections
import functools
import http.client
import io
import math
import socket
import time
from typing import Any

import requests
import urllib3
import urllib3.connection
import urllib3.exceptions

from imagecache.model import KiB, MiB

# Bytes of an answer that is not streamed, headers included: more than any
# image record or catalogue of services has.
MAX_ANSWER = 16 * MiB
# Bytes besides the data that one call of read1() may consume: a chunk's size
# and extension (http.client reads 64 KiB of them at most), and the trailer.
_FRAMING = 256 * KiB


class EndlessAnswer(http.client.HTTPException):
    """An answer has more bytes than any proper one."""


class Session(requests.Session):
    """A session whose connections have deadlines.

    It leaves redirects alone: even when told not to follow one, requests
    prepares to, and for that reads its body into memory, of any size.

    :param like: a session to take the settings and the adapters from
    """

    def __init__(self, like: requests.Session | None = None) -> None:
        super().__init__()
        if like is not None:
            vars(self).update(vars(like))
        self.adapters = collections.OrderedDict(
            (prefix, _with_deadlines(adapter))
            for prefix, adapter in self.adapters.items())

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Adapter(requests.adapters.HTTPAdapter):
    """Mixed into the class of an adapter that shall have deadlines."""

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        return _limited(super().proxy_manager_for(proxy, **options))

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        _limited(self.poolmanager)

    def send(self, request: requests.PreparedRequest, stream: bool = False,
             *args: Any, **options: Any) -> requests.Response:
        request.headers["Accept-Encoding"] = "identity"
        answer = super().send(request, stream, *args, **options)
        coding = answer.headers.get("Content-Encoding", "identity")
        if not stream and coding.lower() != "identity":
            answer.close()
            raise requests.exceptions.ContentDecodingError(
                f"the answer is encoded as {coding}, unasked",
                request=request)
        return answer


def _with_deadlines(adapter: Any) -> Any:
    """Return an adapter with the same settings and connections of its own.

    An adapter that is no HTTPAdapter is returned as it is.
    """
    if not isinstance(adapter, requests.adapters.HTTPAdapter):
        return adapter
    found: Any = object.__new__(_mixed(_Adapter, type(adapter)))
    vars(found).update(vars(adapter))
    given = adapter.poolmanager
    found.poolmanager = _limited(urllib3.PoolManager(
        headers=given.headers, **given.connection_pool_kw))
    found.proxy_manager = {}
    return found


def _limited(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """Let a manager that has no pools yet make pools with deadlines."""
    manager.pool_classes_by_scheme = {
        scheme: _pool_class(pool)
        for scheme, pool in manager.pool_classes_by_scheme.items()}
    return manager


@functools.cache
def _pool_class(pool: Any) -> Any:
    return type(pool.__name__, (pool,), {
        "ConnectionCls": _mixed(_Connection, pool.ConnectionCls)})


def _mixed(mixin: Any, kind: Any) -> Any:
    return mixin if kind in mixin.__mro__ \
        else type(kind.__name__, (mixin, kind), {})


class _Reader(io.RawIOBase):
    """The bytes of an answer, up to a deadline and a number of bytes."""

    def __init__(self, raw: Any, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._timeout = sock.gettimeout()
        self.allow(MAX_ANSWER)

    def allow(self, size: int) -> None:
        """Let so many bytes come, within another time-out."""
        self._left = size
        self._end = time.monotonic() + (self._timeout or math.inf)

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise EndlessAnswer("its answer does not end")
        if self._timeout:
            time_left = self._end - time.monotonic()
            if time_left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(time_left)
        size: int = self._raw.readinto(buffer)
        self._left -= size
        return size

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        number: int = self._raw.fileno()
        return number

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that is read through a _Reader.

    It begins to count when the request is sent.
    """

    def __init__(self, sock: socket.socket, *args: Any,
                 **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader = _Reader(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read the head of the answer; http.client skips 100 alone."""
        super().begin()
        while self.status < 200:
            self.headers = self.msg = None   # type: ignore[assignment]
            super().begin()

    def read1(self, n: int = -1) -> bytes:
        self._reader.allow((n if n >= 0 else MAX_ANSWER) + _FRAMING)
        return super().read1(n)


class _Connection(urllib3.connection.HTTPConnection):
    """Mixed into the class of a connection that shall have deadlines."""

    response_class = _Answer

    def _new_conn(self) -> socket.socket:
        """Try the addresses of the server in turn, within one time-out."""
        addresses = self._addresses()
        if len(addresses) < 2:
            return super()._new_conn()
        name, timeout = self._dns_host, self.timeout
        end = time.monotonic() + (timeout or math.inf)
        try:
            for self._dns_host in addresses:
                try:
                    found = super()._new_conn()
                except urllib3.exceptions.ConnectTimeoutError as e:
                    error = e
                else:
                    found.settimeout(timeout)
                    return found
                if timeout:
                    self.timeout = end - time.monotonic()
                    if self.timeout <= 0:
                        break
            raise error
        finally:
            self._dns_host, self.timeout = name, timeout

    def _addresses(self) -> list[str]:
        """Return what the server's name means; nothing if that is unknown."""
        if hasattr(self, "_socks_options"):   # its proxy finds them
            return []
        try:
            found = socket.getaddrinfo(self._dns_host, self.port,
                                       type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(each[4][0]) for each in found))
        except (OSError, UnicodeError):   # which connecting explains
            return []
