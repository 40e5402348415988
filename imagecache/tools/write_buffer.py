# SPDX-License-Identifier: Apache-2.0
"""Coalesce many small writes into a few large ones.

qemu-img decodes a compressed image in pieces of 64 KiB, somewhat out of order.
In Ceph each would be a transaction, and take as long as one of 4 MiB.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from imagecache import exception
from imagecache.model import MiB

Done = Callable[[exception.HostError | None], None]

CHUNK = 4 * MiB              # the default size of an object in Ceph
_OPEN = 8                    # chunks that are being filled at a time
_IN_FLIGHT = 32 * MiB        # bytes that are being written


class Device(Protocol):
    """A device that writes in the background.

    It calls ``done`` in another thread, with the error or None.
    """

    def write(self, data: bytes, offset: int, done: Done) -> None: ...
    def zero(self, size: int, offset: int, done: Done) -> None: ...
    def flush(self) -> None: ...


class Coalescer:
    """A buffer in front of a device.

    write() only takes the data.  After flush() all data is on the device.
    flush() and every later write report a write that failed.  One thread at a
    time may use it.
    """

    def __init__(self, device: Device) -> None:
        self.failure: exception.HostError | None = None
        self._device = device
        self._open: dict[int, _Chunk] = {}    # the oldest is first
        self._landed = threading.Condition()
        self._in_flight = 0                   # bytes

    def write(self, data: bytes, offset: int, done: Done) -> None:
        left = memoryview(data)
        while left:
            number, start = divmod(offset, CHUNK)
            part = left[:CHUNK - start]
            self._coalesce(number, start, part)
            left, offset = left[len(part):], offset + len(part)
        done(self.failure)

    def zero(self, size: int, offset: int, done: Done) -> None:
        self._flush_buffers()     # earlier writes may overlap it
        if self.failure:
            done(self.failure)
        else:
            self._device.zero(size, offset, done)

    def flush(self) -> None:
        """Write all buffered data, and flush the device.

        :raises HostError: a write failed
        """
        self._flush_buffers()
        if self.failure:
            raise self.failure
        self._device.flush()

    def close(self) -> None:
        """Drop the buffered data, and wait for the writes in flight."""
        self._open.clear()
        self._flush_buffers()

    def _coalesce(self, number: int, start: int, data: memoryview) -> None:
        chunk = self._open.get(number)
        if chunk is None:
            if len(self._open) == _OPEN:
                self._send(next(iter(self._open)))
            chunk = self._open[number] = _Chunk()
        chunk.add(start, data)
        if chunk.is_full:
            self._send(number)

    def _flush_buffers(self) -> None:
        for number in list(self._open):
            self._send(number)
        with self._landed:
            self._landed.wait_for(lambda: not self._in_flight)

    def _send(self, number: int) -> None:
        chunk = self._open.pop(number)
        for start, data in chunk.runs():
            if not self.failure:
                self._begin(data, number * CHUNK + start)

    def _begin(self, data: bytes, offset: int) -> None:
        with self._landed:
            self._landed.wait_for(
                lambda: self._in_flight + len(data) <= _IN_FLIGHT)
            self._in_flight += len(data)

        def done(error: exception.HostError | None) -> None:
            with self._landed:
                self.failure = self.failure or error
                self._in_flight -= len(data)
                self._landed.notify_all()

        try:
            self._device.write(data, offset, done)
        except exception.HostError as e:
            done(e)


class _Chunk:
    """A part of the device, of CHUNK bytes, that is partly written."""

    def __init__(self) -> None:
        self._data = bytearray(CHUNK)
        # Sorted; no two overlap or touch.
        self._known: list[tuple[int, int]] = []

    @property
    def is_full(self) -> bool:
        return self._known == [(0, CHUNK)]

    def add(self, start: int, data: memoryview) -> None:
        end = start + len(data)
        self._data[start:end] = data
        apart = []
        for each in self._known:
            if each[1] < start or end < each[0]:
                apart.append(each)
            else:
                start, end = min(start, each[0]), max(end, each[1])
        self._known = sorted([*apart, (start, end)])

    def runs(self) -> list[tuple[int, bytes]]:
        """Return each contiguous piece, after the offset where it starts."""
        return [(start, bytes(self._data[start:end]))
                for start, end in self._known]
