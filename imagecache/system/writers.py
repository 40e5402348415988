# SPDX-License-Identifier: Apache-2.0
"""Refuse to change a file that another process has open for writing."""

from __future__ import annotations

import fcntl
import os
import pathlib
import struct

from imagecache import exception
from imagecache.system import durable, leases

# qemu locks a byte of an image for each thing that it may do with it.  This
# one is locked by each qemu that may write (block/file-posix.c of qemu).
_QEMU_WRITES = 101
_FLOCK = struct.Struct("@hhqqi4x")


def require_none(path: pathlib.Path, what: str) -> None:
    """Refuse a file that is open for writing, as far as that can be known.

    A process of this host is found where the kernel gives leases: on a local
    file system, to the file's owner and to root.  qemu is found on any host
    that shares the file's locks.  The file can be opened right afterwards.

    :param what: what is not done, for the message
    :raises StorageBusy: a process has the file open for writing
    """
    with durable.translated(what, path), path.open("rb") as f:
        if _qemu_writes(f.fileno()) or leases.is_written(f.fileno()):
            raise exception.StorageBusy(
                what=what, path=path, reason="a process has it open for"
                " writing; stop its guest first, or let the hypervisor resize"
                " it")


def _qemu_writes(descriptor: int) -> bool:
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _QEMU_WRITES, 1, 0)
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
    except OSError:    # this file system has no locks
        return False
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
