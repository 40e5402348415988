# SPDX-License-Identifier: Apache-2.0
"""Copy a file by cp(1), sharing blocks if possible; preallocate one."""

from __future__ import annotations

import os
import pathlib

from imagecache import exception
from imagecache.model import Limits
from imagecache.system import execute

_UNSUPPORTED = ("unsupported", "not supported")

# File systems that cannot preallocate.  The first file on each that needs
# preallocation finds out; no test file is made.
_unable: set[tuple[int, int]] = set()


def copy(source: pathlib.Path, output: pathlib.Path, *,
         share: bool = True) -> None:
    """Copy the content of a file into an existing, empty one.

    The two share their blocks where the file system can do that (XFS,
    btrfs); elsewhere the holes of the source stay holes.  cp(1) knows more
    file systems than this library.  It has a limit, because a program with
    limits dies with this process.

    :param share: False if every later write must find its space reserved: a
        write to a shared block needs a new block
    """
    # One byte more: cp tries to read beyond the end to find it.
    limits = Limits(file_size=source.stat().st_size + 1)
    execute.run("cp", f"--reflink={'auto' if share else 'never'}",
                "--sparse=auto", "--",
                str(source), str(output), limits=limits)


def preallocate(path: pathlib.Path, size: int) -> bool:
    """Reserve ``size`` bytes of disk space for a file; keep its length.

    :return: False if the file system cannot do it
    :raises NoSpace: there is less space
    """
    where = _file_system(path)
    if where in _unable:
        return False
    try:
        execute.run("fallocate", "--keep-size", "--length", str(size),
                    str(path))
    except exception.CommandNotFound:
        raise
    except exception.CommandFailed as e:
        # util-linux 2.38: "keep size mode is unsupported".
        if any(words in e.message for words in _UNSUPPORTED):
            _unable.add(where)
            return False
        raise
    return True


def _file_system(path: pathlib.Path) -> tuple[int, int]:
    # Both numbers together: the kernel reuses device numbers, and some file
    # systems have no identifier.
    directory = path.parent
    return directory.stat().st_dev, os.statvfs(directory).f_fsid
