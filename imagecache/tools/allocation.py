# SPDX-License-Identifier: Apache-2.0
"""How a file takes its blocks: shared with another, all at once, or not."""

from __future__ import annotations

import pathlib

from imagecache import exception, execute
from imagecache.model import Limits

_UNSUPPORTED = ("unsupported", "not supported")


def copy(source: pathlib.Path, output: pathlib.Path) -> None:
    """Fill an existing, empty file with what another holds.

    The two share their blocks where the file system can do that (XFS,
    btrfs); elsewhere the holes of the source stay holes.  Uses cp(1), which
    knows more file systems than we do, and under a limit, as what has one
    dies with this process.
    """
    # One byte more: cp asks for what is behind the end, to find it.
    limits = Limits(file_size=source.stat().st_size + 1)
    execute.run("cp", "--reflink=auto", "--sparse=auto", "--",
                str(source), str(output), limits=limits)


def preallocate(path: pathlib.Path, size: int) -> bool:
    """Give a file ``size`` bytes of disk space, without changing its length.

    :return: False if the file system cannot do it
    :raises NoSpace: there is not as much
    """
    try:
        execute.run("fallocate", "--keep-size", "--length", str(size),
                    str(path))
    except exception.CommandNotFound:
        raise
    except exception.CommandFailed as e:
        # util-linux 2.38: "keep size mode is unsupported".
        if any(words in e.message for words in _UNSUPPORTED):
            return False
        raise
    return True
