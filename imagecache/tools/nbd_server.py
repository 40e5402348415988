# SPDX-License-Identifier: Apache-2.0
"""An NBD server in this process, to which a confined program writes.

    with nbd_server.serving(device, size) as client:
        qemu_img.convert(source, format, NbdExport(client), ...)

A thread of this process serves the device, and the program gets one end of a
pair of sockets.  So the program needs neither network nor key, also if its
input has taken it over.  It may write, and nothing else.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from collections.abc import Iterator

from imagecache import exception
from imagecache.model import MiB
from imagecache.tools.write_buffer import Coalescer, Device

_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPTION = struct.Struct(">QII")             # magic, option, length
_OPTION_MAGIC = 0x49484156454F5054          # IHAVEOPT
_REPLY_TO_OPTION = struct.Struct(">QIII")   # magic, option, kind, length
_REPLY_TO_OPTION_MAGIC = 0x3E889045565A9
_ABORT, _INFO, _GO = 2, 6, 7
_ACK, _INFORMATION, _UNSUPPORTED = 1, 3, 0x80000001
_EXPORT = struct.Struct(">HQH")             # 0, size, flags
_SIZES = struct.Struct(">HIII")             # 3, least, preferred and most
_HAS_FLAGS, _FLUSHES, _WRITES_ZEROES = 1, 4, 64

_REQUEST = struct.Struct(">IHHQQI")  # magic, flags, command, cookie, at, size
_REQUEST_MAGIC = 0x25609513
_REPLY = struct.Struct(">IIQ")              # magic, error, cookie
_REPLY_MAGIC = 0x67446698
_WRITE, _DISCONNECT, _FLUSH, _ZERO = 1, 2, 3, 6

_LARGEST = 32 * MiB                  # data of one request
_LARGEST_OPTION = 4096
# At most this much is being written at a time.
_IN_FLIGHT, _REQUESTS_IN_FLIGHT = 32 * MiB, 64


@contextlib.contextmanager
def serving(device: Device, size: int) -> Iterator[socket.socket]:
    """Yield the client's socket; when the block ends, flush the device.

    :param size: bytes of the device
    :raises HostError: the error of the device, even if the client reported
        another one or none
    """
    ours, theirs = socket.socketpair()
    coalescer = Coalescer(device)
    server = _Server(ours, coalescer, size)
    thread = threading.Thread(target=server.serve, name="nbd")
    with ours, contextlib.closing(coalescer):
        with theirs:
            thread.start()
            try:
                yield theirs
            except exception.CommandFailed as e:
                _end(theirs, thread)
                failure = server.failure or coalescer.failure
                if failure:
                    raise failure from e
                raise
            finally:
                _end(theirs, thread)
        if server.failure:
            raise server.failure
        coalescer.flush()


def _end(client: socket.socket, thread: threading.Thread) -> None:
    """Close the connection, and wait for the requests in flight."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    thread.join()


class _HungUp(Exception):
    """The client closed the connection, or violated the protocol."""


class _Server:

    def __init__(self, connection: socket.socket, device: Device,
                 size: int) -> None:
        self.failure: exception.HostError | None = None
        self._connection = connection
        self._device = device
        self._size = size
        self._sending = threading.Lock()
        self._landed = threading.Condition()
        self._bytes = self._requests = 0     # in flight

    def serve(self) -> None:
        with contextlib.suppress(_HungUp, OSError):
            self._negotiate()
            while self._answer():
                pass
        with self._landed:
            self._landed.wait_for(lambda: not self._requests)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _negotiate(self) -> None:
        self._send(b"NBDMAGIC" + struct.pack(
            ">QH", _OPTION_MAGIC, _FIXED_NEWSTYLE | _NO_ZEROES))
        self._receive(4)     # the client's flags
        option = None
        while option != _GO:
            magic, option, length = _OPTION.unpack(
                self._receive(_OPTION.size))
            if magic != _OPTION_MAGIC or length > _LARGEST_OPTION \
                    or option == _ABORT:
                raise _HungUp
            self._receive(length)
            if option in (_INFO, _GO):
                self._inform(option, _EXPORT.pack(
                    0, self._size, _HAS_FLAGS | _FLUSHES | _WRITES_ZEROES))
                self._inform(option, _SIZES.pack(3, 1, 4 * MiB, _LARGEST))
                self._inform(option, b"", _ACK)
            else:
                self._inform(option, b"", _UNSUPPORTED)

    def _inform(self, option: int, data: bytes,
                kind: int = _INFORMATION) -> None:
        self._send(_REPLY_TO_OPTION.pack(
            _REPLY_TO_OPTION_MAGIC, option, kind, len(data)) + data)

    def _answer(self) -> bool:
        """Start the next request; return False after the last one."""
        magic, _, command, cookie, offset, size = _REQUEST.unpack(
            self._receive(_REQUEST.size))
        if magic != _REQUEST_MAGIC or command == _DISCONNECT:
            return False
        data = self._receive(self._checked(size)) \
            if command == _WRITE else b""
        if command == _FLUSH:
            self._reply(cookie, self._flushed())
        elif command not in (_WRITE, _ZERO) or offset + size > self._size:
            self._reply(cookie, errno.EINVAL)
        else:
            self._begin(command, cookie, data, offset, size)
        return True

    def _checked(self, size: int) -> int:
        if size > _LARGEST:
            raise _HungUp
        return size

    def _flushed(self) -> int:
        try:
            with self._landed:
                self._landed.wait_for(lambda: not self._requests)
            self._device.flush()
        except exception.HostError as e:
            return self._failed(e)
        return 0

    def _begin(self, command: int, cookie: int, data: bytes, offset: int,
               size: int) -> None:
        with self._landed:
            self._landed.wait_for(
                lambda: self._bytes + len(data) <= _IN_FLIGHT
                and self._requests < _REQUESTS_IN_FLIGHT)
            self._bytes += len(data)
            self._requests += 1

        def done(error: exception.HostError | None) -> None:
            self._reply(cookie, self._failed(error) if error else 0)
            with self._landed:
                self._bytes -= len(data)
                self._requests -= 1
                self._landed.notify_all()

        try:
            if command == _WRITE:
                self._device.write(data, offset, done)
            else:
                self._device.zero(size, offset, done)
        except exception.HostError as e:
            done(e)

    def _failed(self, error: exception.HostError) -> int:
        self.failure = self.failure or error
        return errno.EIO

    def _reply(self, cookie: int, error: int) -> None:
        with contextlib.suppress(OSError):    # the client is gone
            self._send(_REPLY.pack(_REPLY_MAGIC, error, cookie))

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._connection.sendall(data)

    def _receive(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._connection.recv_into(view)
            if not count:
                raise _HungUp
            view = view[count:]
        return bytes(data)
