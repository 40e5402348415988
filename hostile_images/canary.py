# SPDX-License-Identifier: Apache-2.0
"""A file of the host that no image may reach, and a watch on it.

The kernel reports every open of the file, under any name and in any process.
For a whole batch of processes, use strace instead.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import pathlib
import secrets
import socket
import stat
import struct
import threading
from typing import Self

_SIZE = 64 * 1024
_EVENT = struct.Struct("iIII")
# Events of the file, and of its directory, which include those of its files.
_WATCHED = {0x001: "read", 0x002: "written to", 0x004: "changed its mode",
            0x020: "opened", 0x100: "given company", 0x200: "deleted",
            0x080: "replaced", 0x040: "moved away"}


@dataclasses.dataclass(frozen=True)
class Sentinel:
    """The places that hostile images point at; builders take one."""

    path: pathlib.Path     # a file of the host's
    port: int              # of a server on 127.0.0.1


# For code that only needs the bytes of samples.
NOWHERE = Sentinel(pathlib.Path("/nonexistent/canary/secret"), 9)


class Canary:
    """Makes a file in a new directory, and listens on a port.

        with Canary(directory) as canary:
            ...
            self.assertEqual([], canary.complaints())
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.token = secrets.token_hex(16)

    def __enter__(self) -> Self:
        self.directory.mkdir()
        path = self.directory / "secret"
        line = f"{self.token}\n".encode()
        path.write_bytes((line * (_SIZE // len(line) + 1))[:_SIZE])
        path.chmod(0o640)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._calls: list[str] = []
        threading.Thread(target=self._answer, daemon=True).start()
        self.sentinel = Sentinel(path, self._server.getsockname()[1])
        self._before = _look(path)
        self._events = _watch(self.directory)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._events)
        self._server.shutdown(socket.SHUT_RDWR)     # wakes the thread
        self._server.close()

    def complaints(self) -> list[str]:
        """Return each access since the last call."""
        found = self._heard() + self._calls
        self._calls = []
        if _look(self.sentinel.path) != self._before:
            found.append("it is not what it was")
        self._heard()      # looking was heard, too
        return found

    def is_in(self, data: bytes) -> bool:
        """Return whether bytes contain the secret."""
        return self.token.encode() in data

    def _heard(self) -> list[str]:
        try:
            events = os.read(self._events, 1 << 20)
        except BlockingIOError:
            return []
        found: list[str] = []
        at = 0
        while at < len(events):
            _, mask, _, length = _EVENT.unpack_from(events, at)
            name = events[at + _EVENT.size:at + _EVENT.size + length]
            what = [word for bit, word in _WATCHED.items() if mask & bit]
            found.append(f"{name.rstrip(bytes(1)).decode() or '.'}"
                         f" was {' and '.join(what) or hex(mask)}")
            at += _EVENT.size + length
        return found

    def _answer(self) -> None:
        """Close each connection, so that its client need not time out."""
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._calls.append("its port was called")
            connection.close()


def _look(path: pathlib.Path) -> tuple[object, ...]:
    with path.open("rb") as f:
        status = os.fstat(f.fileno())
        return (f.read(), stat.filemode(status.st_mode), status.st_size,
                status.st_mtime_ns, status.st_ino, os.listdir(path.parent))


def _watch(directory: pathlib.Path) -> int:
    """Return a descriptor to read inotify's events from."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0 or libc.inotify_add_watch(
            descriptor, os.fsencode(directory), sum(_WATCHED)) < 0:
        raise OSError(ctypes.get_errno(), "inotify cannot watch", directory)
    return descriptor
