# SPDX-License-Identifier: Apache-2.0
"""File systems on a raw file or device: make one, or let one grow."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Callable

from imagecache import exception
from imagecache.model import Limits
from imagecache.system import durable, execute

# resize2fs grows nothing before it has seen that it is not mounted.
_MOUNTS = pathlib.Path("/proc/self/mounts")

# Of a partition, in the table of DOS: status, kind, start and size.
_PARTITION = struct.Struct("<B3xB3xII")

_MKFS: dict[str, Callable[[str], list[str]]] = {
    "ext2": lambda label: ["mkfs.ext2", "-q", "-F", "-L", label],
    "ext3": lambda label: ["mkfs.ext3", "-q", "-F", "-L", label],
    "ext4": lambda label: ["mkfs.ext4", "-q", "-F", "-L", label],
    "xfs": lambda label: ["mkfs.xfs", "-q", "-f", "-L", label],
    "vfat": lambda label: ["mkfs.vfat", "-n", label],
    "ntfs": lambda label: ["mkfs.ntfs", "-q", "-Q", "-F", "-L", label],
    "swap": lambda label: ["mkswap", "-q", "-L", label],
}
_LONGEST_LABEL = {"ext2": 16, "ext3": 16, "ext4": 16, "xfs": 12, "vfat": 11,
                  "ntfs": 32, "swap": 15}


def mkfs_command(fs_type: str, label: str) -> list[str]:
    """Return the command that makes a file system, less the path.

    :raises InvalidDiskFormat: no such file system is known here
    :raises InvalidName: it cannot have this label
    """
    if fs_type not in _MKFS:
        raise exception.InvalidDiskFormat(
            f"No file system {fs_type!r} is known; there are "
            + ", ".join(_MKFS), disk_format=fs_type)
    longest = _LONGEST_LABEL[fs_type]
    if not label or not label.isprintable() or len(label.encode()) > longest:
        raise exception.InvalidName(
            name=label, what=f"a label for {fs_type}",
            reason=f"it must have 1 to {longest} bytes, all printable")
    return _MKFS[fs_type](label)


def mkfs(fs_type: str, label: str, path: pathlib.Path) -> None:
    """Make an empty file system, or swap space, that fills ``path``."""
    execute.run(*mkfs_command(fs_type, label), str(path))


def is_ext(path: pathlib.Path, limits: Limits) -> bool:
    """Say whether a disk is one ext2, ext3 or ext4, without partitions.

    :raises CommandFailed: the program that knows was not heard out
    """
    with durable.translated("reading", path), path.open("rb") as f:
        # Whoever made them may have left what was there before.
        if _has_partitions(f.read(512)):
            return False
    try:
        execute.run("dumpe2fs", "-h", str(path), limits=limits.writing(0),
                    reads=[path])
    except exception.CommandNotFound:
        raise
    except exception.CommandFailed as e:
        # Its exit code is part of the number of its error.
        if (e.facts.get("exit_code") or 0) <= 0 or e.facts.get("limit"):
            raise
        return False
    return True


def _has_partitions(start: bytes) -> bool:
    """Say whether the kernel would find any; a GPT has a table of DOS, too."""
    if start[510:] != b"\x55\xaa":
        return False
    entries = list(_PARTITION.iter_unpack(start[446:510]))
    return all(status in (0, 0x80) for status, *_ in entries) \
        and any(kind and size for _, kind, _, size in entries)


def grow_ext(path: pathlib.Path, limits: Limits) -> None:
    """Let an ext file system fill ``path``; it must not be mounted.

    :raises CommandFailed: it is broken beyond what e2fsck mends by itself;
        it is then as large as it was
    """
    size = path.stat().st_size if path.is_file() else None
    if size is not None:
        limits = limits.writing(size)
    # 1: errors were corrected.  2: and whoever had it mounted must reboot.
    execute.run("e2fsck", "-f", "-p", str(path), limits=limits,
                writes=[path], exit_codes=(0, 1, 2))
    try:
        execute.run("resize2fs", str(path), limits=limits, reads=[_MOUNTS],
                    writes=[path])
    finally:
        if size is not None:    # resize2fs cuts a file to whole blocks
            with durable.translated("growing a file system", path):
                os.truncate(path, size)
