# SPDX-License-Identifier: Apache-2.0
"""The set-up of the benchmarks of options: an image, volumes, caches."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import imagecache
from benchmarks import harness
from benchmarks.harness import Row, Run, Subject
from benchmarks.scratch import CloudImage, command, configuration
from imagecache import events
from imagecache.model import GiB, MiB


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes, in bytes, and counts."""

    image: int = GiB           # the image's virtual size
    data: int = 500 * MiB      # files in it
    disk: int = 2 * GiB        # of a small flavor
    large: int = 20 * GiB      # of one whose file system must grow
    instances: int = 4
    rounds: int = 3            # where bytes count, the same in each round
    io_rounds: int = 5
    reads: int = 400 * MiB     # by a guest, in order
    slow_reads: int = 100 * MiB     # the same, where the storage is slow
    random_reads: int = 3000   # of 4 KiB
    writes: int = 256 * MiB    # by a guest, in order
    random_writes: int = 2000  # of 4 KiB


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of making a disk."""

    use_cow: bool = True
    force_raw: bool = True
    preallocate: bool = False
    resized_bases: bool = False
    kind: str = "compressed"    # of the image
    file_system: str = "ext4"
    size: int | None = None     # of the disk, if not the image's
    mode: str = "none"          # the hypervisor's cache mode

    def __str__(self) -> str:
        return ", ".join([
            f"use_cow {'yes' if self.use_cow else 'no'}",
            f"force_raw {'yes' if self.force_raw else 'no'}",
            *["preallocate_images = space"] * self.preallocate,
            *["resized_bases yes"] * self.resized_bases]) \
            + f"; {self.kind} image on {self.file_system}"

    def also(self, **others: Any) -> Way:
        """Return this way with other values of these fields."""
        return dataclasses.replace(self, **others)

    def cache(self, instances: pathlib.Path,
              observe: events.Observer = events.silent
              ) -> imagecache.ImageCache:
        """Return a cache in a directory, with these options."""
        conf = configuration(
            instances, image_cache={"resized_bases": self.resized_bases},
            DEFAULT={"use_cow_images": self.use_cow,
                     "force_raw_images": self.force_raw,
                     "preallocate_images":
                         "space" if self.preallocate else "none"})
        return imagecache.ImageCache(conf, observe=observe)


OVERLAY = Way()
OVERLAY_KEPT = Way(force_raw=False)
COPY = Way(use_cow=False)
COPY_KEPT = Way(use_cow=False, force_raw=False)


@dataclasses.dataclass(frozen=True)
class Site:
    """A host: its image, and its empty volumes by kind of file system."""

    image: CloudImage
    scale: Scale
    volume: Callable[[str], contextlib.AbstractContextManager[Volume]]
    file_systems: tuple[str, ...] = ("ext4", "xfs", "btrfs")

    def race(self, ways: Mapping[str, Way],
             run: Callable[[Volume, Way], Run], rounds: int) -> list[Row]:
        """Run each way once a round, on new volumes."""
        with contextlib.ExitStack() as stack:
            volumes = {
                each: stack.enter_context(self.volume(each))
                for each in self.file_systems
                if each in {way.file_system for way in ways.values()}}
            subjects = [
                Subject(name, str(way), functools.partial(
                    run, volumes[way.file_system], way))
                for name, way in ways.items() if way.file_system in volumes]
            return harness.rows(subjects, harness.race(subjects, rounds))


# Larger than all that is written: the file below a volume has holes.
SIZE = 32 * GiB

# mkfs writes all tables at once: later they would count as a benchmark's.
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0",
             "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-m", "single"),
}
# ioctl(2): flush a file system, with its journal, and block writes; unblock.
_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878


@contextlib.contextmanager
def opened(parent: pathlib.Path, kind: str) -> Iterator[Volume]:
    """Yield an empty volume, which is removed at the end; needs root."""
    path = pathlib.Path(tempfile.mkdtemp(dir=parent))
    file = path.with_suffix(f".{kind}")
    command("truncate", "--size", str(SIZE), file)
    command(*_MKFS[kind], file)
    with contextlib.ExitStack() as stack:
        stack.callback(file.unlink)
        # Direct I/O: the host's page cache has none of its data.
        device = command("losetup", "--find", "--show", "--direct-io=on", file)
        stack.callback(command, "losetup", "--detach", device)
        command("mount", device, path)
        stack.callback(command, "umount", path)
        yield Volume(path, device)


class Volume:
    """A file system on a loop device that nothing else uses.

    The device writes the bytes that a real disk would have to: data, tables,
    journal.  All numbers are in bytes.
    """

    def __init__(self, path: pathlib.Path, device: str) -> None:
        self.path = path
        self._device = device

    def written(self) -> int:
        """Flush, and return the bytes ever written to the storage."""
        self._flush()
        return self._statistics(6) * 512

    def read(self) -> int:
        """Return the bytes ever read from the storage."""
        return self._statistics(2) * 512

    def used(self) -> int:
        """Return the space that is taken."""
        self.cool()    # some free the space of removed files at unmount only
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def cool(self) -> None:
        """Empty the page cache of this file system."""
        command("umount", self.path)
        command("mount", self._device, self.path)

    def clear(self) -> None:
        """Remove all files, and give their space back."""
        for each in self.path.iterdir():
            if each.name != "lost+found":
                shutil.rmtree(each)
        self._flush()
        command("fstrim", self.path)

    def _statistics(self, column: int) -> int:
        name = pathlib.Path(self._device).name
        return int(pathlib.Path(
            f"/sys/block/{name}/stat").read_text().split()[column])

    def _flush(self) -> None:
        # After sync(2) alone, a journal is written a second time, later.
        descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(descriptor, _FIFREEZE, 0)
        fcntl.ioctl(descriptor, _FITHAW, 0)
        os.close(descriptor)
