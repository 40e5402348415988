# SPDX-License-Identifier: Apache-2.0
"""Bounded reads from a file that lies."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

from imagecache.formats.rules import RuleViolation

_MOST = 8 * 1024 * 1024    # bytes in one read: no table we look at is larger


def read(f: BinaryIO, offset: int, size: int) -> bytes:
    """Return exactly ``size`` bytes.

    :raises RuleViolation: they are not all there
    """
    if not 0 <= offset < 2**63 or size > _MOST:
        raise RuleViolation("bounds", "its tables are out of any bounds")
    f.seek(offset)
    found = f.read(size)
    if len(found) < size:
        raise RuleViolation("truncated", "the file ends within its headers")
    return found


def unpack(f: BinaryIO, offset: int, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, read(f, offset, struct.calcsize(layout)))
