# SPDX-License-Identifier: Apache-2.0
"""Bounded reads from a file whose headers may be wrong."""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

from imagecache.formats.rules import RuleViolation

Order = Literal["little", "big"]

_MOST = 8 * 1024 * 1024    # bytes in one read
_PART = 64 * 1024          # bytes of a table that are in memory at a time
_CODES = {4: "I", 8: "Q"}


def read(f: BinaryIO, offset: int, size: int) -> bytes:
    """Return exactly ``size`` bytes.

    :raises RuleViolation: the file has not so many, or it is too much to read
    """
    if not 0 <= offset < 2**63 or size > _MOST:
        raise RuleViolation("bounds", "a table is at a place that no file has")
    f.seek(offset)
    found = f.read(size)
    if len(found) < size:
        raise RuleViolation("truncated", "it is cut off: the file ends within"
                            " its headers or tables")
    return found


def unpack(f: BinaryIO, offset: int, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, read(f, offset, struct.calcsize(layout)))


def table(f: BinaryIO, offset: int, count: int, width: int,
          order: Order) -> Iterator[tuple[int, array.array[int]]]:
    """Yield the parts of a table: the index of the first number, the numbers.

    :param width: bytes of a number, 4 or 8
    :raises RuleViolation: the file ends before the table does
    """
    step = _PART // width
    for first in range(0, count, step):
        part = read(f, offset + first * width,
                    min(step, count - first) * width)
        yield first, numbers(part, width, order)


def numbers(data: bytes, width: int, order: Order) -> array.array[int]:
    found = array.array(_CODES[width], data)
    if order != sys.byteorder:
        found.byteswap()
    return found
