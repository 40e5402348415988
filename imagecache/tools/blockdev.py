# SPDX-License-Identifier: Apache-2.0
"""Block devices: read their size, and wipe them."""

from __future__ import annotations

import os
import pathlib

from imagecache.model import MiB
from imagecache.system import execute

_SECTOR = 512    # the unit of sysfs, for every device
# blkdiscard can be stopped between two steps.
_STEP = 256 * MiB


def size(path: pathlib.Path) -> int:
    """Return the size of a device in bytes.

    It is read from sysfs, which needs no permission to read the device.

    :raises OSError: there is no such device
    """
    number = path.stat().st_rdev
    about = pathlib.Path("/sys/dev/block",
                         f"{os.major(number)}:{os.minor(number)}")
    return int((about / "size").read_text()) * _SECTOR


def zero(path: pathlib.Path, size: int) -> None:
    """Overwrite the first ``size`` bytes of a device with zeros.

    The kernel writes them past the page cache, or has the device write them if
    the device can.
    """
    execute.run("blkdiscard", "--zeroout", "--length", str(size),
                "--step", str(_STEP), str(path))


def shred(path: pathlib.Path, size: int) -> None:
    """Overwrite the first ``size`` bytes with noise, 3 times, then zeros.

    shred(1) opens devices for direct I/O, so the page cache stays as it is.
    """
    execute.run("shred", "--iterations=3", "--zero", f"--size={size}",
                str(path))
