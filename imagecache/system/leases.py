# SPDX-License-Identifier: Apache-2.0
"""A file lease shows whether a process has a file open for writing.

The kernel grants a read lease only on a file that no process of this host
has open for writing or mapped for writing.  It grants leases on local file
systems, to the file's owner and to root.

Source: https://man7.org/linux/man-pages/man2/fcntl.2.html, F_SETLEASE
"""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import signal
import time

from imagecache import exception

# For these, a server decides on leases: a refusal does not mean a writer.
_REMOTE = ("nfs", "nfs4", "cifs", "smb3")
_MOUNTS = pathlib.Path("/proc/self/mountinfo")

# Seconds.  A process that is just being started by another thread has a copy
# of each descriptor of this process, until it executes its program.
_PATIENCE, _PAUSE = 2.0, 0.01


def require_no_writer(descriptor: int, path: pathlib.Path) -> None:
    """Refuse a file that a program should have finished writing.

    :param descriptor: of the file, open for reading only
    :raises StorageFailed: a process has the file open for writing
    """
    deadline = time.monotonic() + _PATIENCE
    while is_written(descriptor):
        if time.monotonic() > deadline:
            raise exception.StorageFailed(
                what="finishing", path=path,
                reason="a process that should have ended still has the file"
                " open for writing, and could change it")
        time.sleep(_PAUSE)


def is_written(descriptor: int) -> bool:
    """Say whether a process has a file open for writing.

    False also means that the kernel cannot tell: the file system has no
    leases, its server decides on them, or the file is another user's.

    :param descriptor: of the file, open for reading only
    """
    # If a process opens the file for writing while this one has the lease,
    # the kernel signals this process.  SIGIO, the default, would end it;
    # SIGURG is ignored.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as e:
        return e.errno == errno.EAGAIN \
            and _file_system(descriptor) not in _REMOTE
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _file_system(descriptor: int) -> str | None:
    """Return the type of the file system that a file is on."""
    device = os.fstat(descriptor).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text().splitlines():
        mount, _, about = line.partition(" - ")
        if mount.split()[2] == wanted:
            return about.split()[0]
    return None
