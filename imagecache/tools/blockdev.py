# SPDX-License-Identifier: Apache-2.0
"""Block devices: how large one is, and how it is wiped."""

from __future__ import annotations

import os
import pathlib

from imagecache.model import MiB
from imagecache.system import execute

_SECTOR = 512    # of sysfs, whatever the device has
# Between two of its steps blkdiscard can be stopped.
_STEP = 256 * MiB


def size(path: pathlib.Path) -> int:
    """Return the bytes of a device; whoever may not read it may ask, too.

    :raises OSError: there is no such device
    """
    number = path.stat().st_rdev
    about = pathlib.Path("/sys/dev/block",
                         f"{os.major(number)}:{os.minor(number)}")
    return int((about / "size").read_text()) * _SECTOR


def zero(path: pathlib.Path, size: int) -> None:
    """Make a device's first bytes read as zeros.

    The kernel writes them, past the page cache, and a device that can write
    zeros by itself is left to do so.
    """
    execute.run("blkdiscard", "--zeroout", "--length", str(size),
                "--step", str(_STEP), str(path))


def shred(path: pathlib.Path, size: int) -> None:
    """Write noise over a device's first bytes three times, and then zeros.

    shred(1) opens devices for direct I/O: nothing of it is cached.
    """
    execute.run("shred", "--iterations=3", "--zero", f"--size={size}",
                str(path))
