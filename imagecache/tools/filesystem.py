# SPDX-License-Identifier: Apache-2.0
"""Make a file system on a raw file or device, or grow one."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Callable

from imagecache import exception
from imagecache.model import Limits
from imagecache.system import durable, execute

# resize2fs reads this table first, and refuses a mounted file system.
_MOUNTS = pathlib.Path("/proc/self/mounts")

# Where an ext file system has its magic number, in bytes.
_SUPERBLOCK, _EXT_MAGIC_AT, _EXT_MAGIC = 1024, 56, b"\x53\xef"

# An entry of a DOS partition table: status, type, start and size.
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
    """Return the command that makes a file system; the path is missing.

    :raises InvalidDiskFormat: the type of file system is not supported
    :raises InvalidName: this type cannot have this label
    """
    if fs_type not in _MKFS:
        raise exception.InvalidDiskFormat(
            f"The file system {fs_type!r} is not supported; use one of "
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
    """Tell whether a disk is an ext2, ext3 or ext4 without partitions.

    :raises CommandFailed: dumpe2fs gave no answer
    """
    with durable.translated("reading", path), path.open("rb") as f:
        start = f.read(_SUPERBLOCK + _EXT_MAGIC_AT + len(_EXT_MAGIC))
    # Partitioning tools may leave an older superblock in place.
    if _has_partitions(start[:512]) or not start.endswith(_EXT_MAGIC):
        return False
    try:
        execute.run("dumpe2fs", "-h", str(path), limits=limits.writing(0),
                    reads=[path])
    except exception.CommandNotFound:
        raise
    except exception.CommandFailed as e:
        # A positive exit code is a part of an error number of libext2fs.
        if (e.facts.get("exit_code") or 0) <= 0 or e.facts.get("limit"):
            raise
        return False
    return True


def _has_partitions(start: bytes) -> bool:
    """Tell whether the kernel would find partitions, in the first sector.

    A GPT disk has a DOS table as well.
    """
    if start[510:] != b"\x55\xaa":
        return False
    entries = list(_PARTITION.iter_unpack(start[446:510]))
    return all(status in (0, 0x80) for status, *_ in entries) \
        and any(kind and size for _, kind, _, size in entries)


def grow_ext(path: pathlib.Path, limits: Limits) -> None:
    """Repair an ext file system, and grow it to the size of ``path``.

    It must not be mounted.  A file keeps its length.

    :raises CommandFailed: e2fsck -p cannot repair the damage; the file system
        keeps its size
    """
    size = path.stat().st_size if path.is_file() else None
    if size is not None:
        limits = limits.writing(size)
    # 1: errors were corrected.  2: the same, and a host that has it mounted
    # should reboot.
    execute.run("e2fsck", "-f", "-p", str(path), limits=limits,
                writes=[path], exit_codes=(0, 1, 2))
    try:
        execute.run("resize2fs", str(path), limits=limits, reads=[_MOUNTS],
                    writes=[path])
    finally:
        if size is not None:    # resize2fs truncates to whole blocks
            with durable.translated("growing a file system", path):
                os.truncate(path, size)
