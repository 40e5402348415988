# SPDX-License-Identifier: Apache-2.0
"""A file lease shows whether a process has a file open for writing.

The kernel grants a read lease only on a file that no process, on this host,
has open for writing or mapped for writing.

Source: https://man7.org/linux/man-pages/man2/fcntl.2.html, F_SETLEASE
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import signal
import time

from imagecache import exception

# For these, a server decides on leases: a refusal does not mean a writer.
_REMOTE = ("nfs", "nfs4", "cifs", "smb3")

# Seconds.  A process that is just being started by another thread has a copy
# of each descriptor of this process, until it executes its program.
_PATIENCE, _PAUSE = 2.0, 0.01


def require_no_writer(descriptor: int, path: pathlib.Path) -> None:
    """Refuse a file that a process has open for writing.

    Where the file system has no leases, or its server decides on them, this
    does nothing.

    :param descriptor: of the file, open for reading only
    :raises StorageFailed: a process has it open for writing
    """
    deadline = time.monotonic() + _PATIENCE
    while _has_writer(descriptor):
        if _file_system(os.fstat(descriptor).st_dev) in _REMOTE:
            return
        if time.monotonic() > deadline:
            raise exception.StorageFailed(
                what="finishing", path=path,
                reason="a process that should have ended still has the file"
                " open for writing, and could change it")
        time.sleep(_PAUSE)


def _has_writer(descriptor: int) -> bool:
    """Take a lease and give it back; a refusal means a writer."""
    # If a process opens the file for writing while we have the lease, the
    # kernel signals us: by default with SIGIO, which would end this process.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:    # no leases here, or only for the file's owner
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _file_system(device: int) -> str | None:
    """Return the type of a mounted file system, as mount(8) names it."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, about = line.partition(" - ")
        if mount.split()[2] == wanted:
            return about.split()[0]
    return None
