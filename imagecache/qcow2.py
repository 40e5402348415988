# SPDX-License-Identifier: Apache-2.0
"""What the header of a qcow2 file says, read without starting a program.

Source: docs/interop/qcow2.rst of qemu, "Header".  All numbers are
big-endian:

======  =====  ====================================
offset  bytes  field
======  =====  ====================================
     0      4  magic, "QFI" and 0xfb
     4      4  version
     8      8  offset of the backing file's name
    16      4  length of the backing file's name
    20      4  cluster_bits
    24      8  virtual size, in bytes
======  =====  ====================================

For files whose format is on record: asking a file what it is, is not done
here, and is not safe with what a tenant or a guest has written.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct

from imagecache import exception

MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQ")
_LONGEST_NAME = 1023   # bytes, in the specification


@dataclasses.dataclass(frozen=True)
class Header:
    virtual_size: int            # bytes
    cluster_size: int            # bytes
    backing_file: str | None     # as it stands in the file


def read_header(path: pathlib.Path) -> Header:
    """Read the header of a file known to be qcow2.

    :raises FileNotFoundError: there is no such file
    :raises InvalidDiskFormat: it is not qcow2, or is damaged
    """
    with path.open("rb") as f:
        start = f.read(_HEADER.size)
        if len(start) < _HEADER.size or not start.startswith(MAGIC):
            raise exception.InvalidDiskFormat(
                f"{path} should be qcow2, and does not begin as one",
                disk_format="unknown", path=path)
        _, version, offset, length, bits, size = _HEADER.unpack(start)
        if not offset:
            length = 0
        # The name is in the first cluster, or qemu does not open the file.
        if version not in (2, 3) or not 9 <= bits <= 21 \
                or length > _LONGEST_NAME or offset + length > 1 << bits:
            raise _damaged(path)
        f.seek(offset)
        name = f.read(length)
    if len(name) < length or b"\0" in name:
        raise _damaged(path)
    return Header(virtual_size=size, cluster_size=1 << bits,
                  backing_file=os.fsdecode(name) or None)


def _damaged(path: pathlib.Path) -> exception.InvalidDiskFormat:
    return exception.InvalidDiskFormat(
        f"The qcow2 header of {path} is damaged",
        disk_format="qcow2", path=path)
