# SPDX-License-Identifier: Apache-2.0
"""A file system of its own, where what reaches the storage is counted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Protocol

from imagecache.model import GiB

# More than is ever written: the file below it has holes.
SIZE = 32 * GiB

# Nothing is left to be written later, or it would be counted then.
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0",
             "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-m", "single"),
}
# ioctl(2): stop a file system when all is where it belongs, and let it go on.
_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878


class Volume(Protocol):
    """Where disks are made; every number is in bytes."""

    path: pathlib.Path
    kind: str        # of its file system
    counter: str     # who counts, for the report

    def written(self) -> int:
        """Return what was ever written to the storage, all of it flushed."""

    def read(self) -> int:
        """Return what was ever read from the storage."""

    def used(self) -> int:
        """Return the space that is taken."""

    def cool(self) -> None:
        """Let the page cache forget everything here."""

    def clear(self) -> None:
        """Remove everything, and give the space back."""


@contextlib.contextmanager
def opened(parent: pathlib.Path, kind: str = "ext4") -> Iterator[Volume]:
    """Yield an empty volume, gone when the block ends.

    Without root it is a mere directory, whatever file system that is on.
    """
    if os.geteuid() != 0:
        yield Directory(pathlib.Path(tempfile.mkdtemp(dir=parent)))
        return
    with Loop(pathlib.Path(tempfile.mkdtemp(dir=parent)), kind) as volume:
        yield volume


class Loop:
    """A file system on a loop device that nobody else uses.

    What the device writes is what a disk would have to: data, tables,
    journal.  It bypasses the page cache below it, so that cold is cold.
    """

    counter = "written to the block device, with the file system's own"

    def __init__(self, parent: pathlib.Path, kind: str) -> None:
        self.kind = kind
        self.path = parent / "mounted"
        self._file = parent / f"{kind}.img"

    def __enter__(self) -> Loop:
        self.path.mkdir()
        with self._file.open("wb") as f:
            f.truncate(SIZE)
        _run(*_MKFS[self.kind], self._file)
        self._device = _run("losetup", "--find", "--show", "--direct-io=on",
                            self._file)
        try:
            _run("mount", self._device, self.path)
        except BaseException:
            _run("losetup", "--detach", self._device)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _run("umount", self.path)
        _run("losetup", "--detach", self._device)
        self._file.unlink()

    def written(self) -> int:
        self._settle()
        return self._statistics()[6] * 512

    def read(self) -> int:
        return self._statistics()[2] * 512

    def used(self) -> int:
        self.cool()    # some free what was removed later, unless unmounted
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def cool(self) -> None:
        _run("umount", self.path)
        _run("mount", self._device, self.path)

    def clear(self) -> None:
        _empty(self.path)
        self._settle()
        _run("fstrim", self.path)

    def _statistics(self) -> list[int]:
        name = pathlib.Path(self._device).name
        return [int(word) for word in pathlib.Path(
            f"/sys/block/{name}/stat").read_text().split()]

    def _settle(self) -> None:
        # sync(2) leaves a journal to be written a second time, later.
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _FIFREEZE, 0)
            fcntl.ioctl(descriptor, _FITHAW, 0)
        finally:
            os.close(descriptor)


class Directory:
    """A directory, and what this process and its children write."""

    counter = "by this process and its children (/proc/self/io)"

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.kind = _run("df", "--output=fstype", path).split()[-1]

    def written(self) -> int:
        os.sync()
        return _io("write_bytes") - _io("cancelled_write_bytes")

    def read(self) -> int:
        return _io("read_bytes")

    def used(self) -> int:
        os.sync()    # until then some file systems have not decided
        return sum(each.lstat().st_blocks * 512
                   for each in self.path.rglob("*"))

    def cool(self) -> None:
        os.sync()    # what is dirty stays
        for each in self.path.rglob("*"):
            if each.is_file():
                with each.open("rb") as f:
                    os.posix_fadvise(f.fileno(), 0, 0,
                                     os.POSIX_FADV_DONTNEED)

    def clear(self) -> None:
        _empty(self.path)


def _io(name: str) -> int:
    """What the kernel counts for this process, and its children that ended."""
    lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)[name])


def _empty(directory: pathlib.Path) -> None:
    for each in directory.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()


def _run(*command: str | os.PathLike[str]) -> str:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return subprocess.run(command, check=True, text=True,
                          stdout=subprocess.PIPE,
                          env=os.environ | {"PATH": path}).stdout.strip()
