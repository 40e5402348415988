# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of the options share: an image, volumes, caches."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import imagecache
from benchmarks.scratch import CloudImage, command, configuration
from imagecache import events
from imagecache.model import GiB, MiB


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large and how often; sizes in bytes."""

    image: int = GiB           # what a guest sees of the image
    data: int = 500 * MiB      # files in it
    disk: int = 2 * GiB        # of a small flavor
    large: int = 20 * GiB      # of one whose file system must grow
    instances: int = 4
    rounds: int = 3            # of what writes: it is always the same
    io_rounds: int = 5
    reads: int = 400 * MiB     # by a guest, one after the other
    slow_reads: int = 100 * MiB     # the same, where the storage is slow
    random_reads: int = 3000   # of 4 KiB
    writes: int = 256 * MiB    # by a guest, one after the other
    random_writes: int = 2000  # of 4 KiB


@dataclasses.dataclass(frozen=True)
class Site:
    image: CloudImage
    scale: Scale
    # Of a kind of file system, an empty one.
    volume: Callable[[str], contextlib.AbstractContextManager[Volume]]
    # File systems on which files can share blocks.
    sharing: tuple[str, ...] = ("xfs", "btrfs")


@dataclasses.dataclass(frozen=True)
class Options:
    """A combination of options, and in a few words what disks are with it."""

    name: str
    use_cow: bool = True
    force_raw: bool = True
    preallocate: bool = False
    resized_bases: bool = False

    def __str__(self) -> str:
        return ", ".join([
            f"use_cow {'yes' if self.use_cow else 'no'}",
            f"force_raw {'yes' if self.force_raw else 'no'}",
            *["preallocate_images = space"] * self.preallocate,
            *["resized_bases yes"] * self.resized_bases])

    def also(self, **others: bool) -> Options:
        """Return these options and others."""
        return dataclasses.replace(self, **others)  # type: ignore[arg-type]

    def cache(self, instances: pathlib.Path,
              observe: events.Observer = events.silent
              ) -> imagecache.ImageCache:
        """Return a cache in a directory, all else as it is by default."""
        conf = configuration(instances)
        conf.set_override("use_cow_images", self.use_cow)
        conf.set_override("force_raw_images", self.force_raw)
        conf.set_override("preallocate_images",
                          "space" if self.preallocate else "none")
        conf.set_override("resized_bases", self.resized_bases, "image_cache")
        return imagecache.ImageCache(conf, observe=observe)


OVERLAY = Options("overlay, raw base")
OVERLAY_KEPT = Options("overlay, base as it came", force_raw=False)
COPY = Options("raw copy", use_cow=False)
COPY_KEPT = Options("copy as it came", use_cow=False, force_raw=False)

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


@contextlib.contextmanager
def opened(parent: pathlib.Path, kind: str) -> Iterator[Volume]:
    """Yield an empty volume, gone when the block ends; needs root."""
    path = pathlib.Path(tempfile.mkdtemp(dir=parent))
    file = path.with_suffix(f".{kind}")
    command("truncate", "--size", str(SIZE), file)
    command(*_MKFS[kind], file)
    with contextlib.ExitStack() as stack:
        stack.callback(file.unlink)
        # Past the page cache below it, so that cold is cold.
        device = command("losetup", "--find", "--show", "--direct-io=on", file)
        stack.callback(command, "losetup", "--detach", device)
        command("mount", device, path)
        stack.callback(command, "umount", path)
        yield Volume(path, device)


class Volume:
    """A file system on a loop device that nothing else uses.

    What the device writes is what a disk would have to: data, tables,
    journal.  All numbers are in bytes.
    """

    counter = "written to the block device, with the file system's own"

    def __init__(self, path: pathlib.Path, device: str) -> None:
        self.path = path
        self._device = device

    def written(self) -> int:
        """Return what was ever written to the storage, all of it flushed."""
        self._flush()
        return self._statistics(6) * 512

    def read(self) -> int:
        """Return what was ever read from the storage."""
        return self._statistics(2) * 512

    def used(self) -> int:
        """Return the space that is taken."""
        self.cool()    # some free what was removed later, unless unmounted
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def cool(self) -> None:
        """Let the page cache forget everything here."""
        command("umount", self.path)
        command("mount", self._device, self.path)

    def clear(self) -> None:
        """Remove everything, and give the space back."""
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
        # sync(2) leaves a journal to be written a second time, later.
        descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(descriptor, _FIFREEZE, 0)
        fcntl.ioctl(descriptor, _FITHAW, 0)
        os.close(descriptor)
