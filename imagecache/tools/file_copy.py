# SPDX-License-Identifier: Apache-2.0
"""How a file takes its blocks: shared with another, all at once, or not."""

from __future__ import annotations

import os
import pathlib

from imagecache import exception
from imagecache.model import Limits
from imagecache.system import execute

_UNSUPPORTED = ("unsupported", "not supported")

# File systems that cannot preallocate.  Each is asked once: by the first file
# there that wants it, and not by a test file, as success need not be known.
_unable: set[tuple[int, int]] = set()


def copy(source: pathlib.Path, output: pathlib.Path, *,
         share: bool = True) -> None:
    """Fill an existing, empty file with what another holds.

    The two share their blocks where the file system can do that (XFS,
    btrfs); elsewhere the holes of the source stay holes.  Uses cp(1), which
    knows more file systems than we do, and under a limit, as what has one
    dies with this process.

    :param share: False where space must be there for whatever is written: a
        block that is shared needs another then, and none is reserved
    """
    # One byte more: cp asks for what is behind the end, to find it.
    limits = Limits(file_size=source.stat().st_size + 1)
    execute.run("cp", f"--reflink={'auto' if share else 'never'}",
                "--sparse=auto", "--",
                str(source), str(output), limits=limits)


def preallocate(path: pathlib.Path, size: int) -> bool:
    """Give a file ``size`` bytes of disk space, without changing its length.

    :return: False if the file system cannot do it
    :raises NoSpace: there is not as much
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
    # The kernel gives the number of a device again to the next file system,
    # and some have no identity of their own.
    directory = path.parent
    return directory.stat().st_dev, os.statvfs(directory).f_fsid
