# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of the options share: an image, volumes, caches."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

import imagecache
from benchmarks import timing
from benchmarks.cloud_image import CloudImage
from benchmarks.scratch import configuration
from benchmarks.timing import Run
from benchmarks.volume import Volume
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
    read_rounds: int = 5
    reads: int = 400 * MiB     # by a guest, one after the other
    slow_reads: int = 100 * MiB     # the same, where the storage is slow
    random_reads: int = 3000   # of 4 KiB
    write_rounds: int = 5
    writes: int = 256 * MiB    # by a guest, one after the other
    random_writes: int = 2000  # of 4 KiB


@dataclasses.dataclass(frozen=True)
class Site:
    image: CloudImage
    scale: Scale
    # Of a kind of file system, an empty one.
    volume: Callable[[str], contextlib.AbstractContextManager[Volume]]

    @property
    def shares_blocks(self) -> tuple[str, ...]:
        """File systems that can be made here and on which cp(1) shares."""
        return ("xfs", "btrfs") if os.geteuid() == 0 else ()


@dataclasses.dataclass(frozen=True)
class Options:
    """A combination of options, and in a few words what disks are with it."""

    name: str
    use_cow: bool = True
    force_raw: bool = True
    preallocate: bool = False
    resized_bases: bool = False


OVERLAY = Options("overlay, raw base")
OVERLAY_KEPT = Options("overlay, base as it came", force_raw=False)
COPY = Options("raw copy", use_cow=False)
COPY_KEPT = Options("copy as it came", use_cow=False, force_raw=False)

COMBINATIONS = (OVERLAY, OVERLAY_KEPT, COPY, COPY_KEPT)


def cache(instances: pathlib.Path, options: Options,
          observe: events.Observer = events.silent) -> imagecache.ImageCache:
    """Return a cache in a directory, all else as it is by default."""
    conf = configuration(instances)
    conf.set_override("use_cow_images", options.use_cow)
    conf.set_override("force_raw_images", options.force_raw)
    conf.set_override("preallocate_images",
                      "space" if options.preallocate else "none")
    if options.resized_bases:
        conf.set_override("resized_bases", True, "image_cache")
    return imagecache.ImageCache(conf, observe=observe)


def two_disks(volume: Volume, cache: imagecache.ImageCache, image: str,
              size: int | None = None) -> Run:
    """Make a disk, and the next one: what they take and what they write."""
    written, runs = [volume.written()], []
    for instance in ("first", "next"):
        runs.append(timing.measure(functools.partial(
            cache.create_disk, instance, image, size=size)))
        written.append(volume.written())
    start, middle, end = written
    return dataclasses.replace(runs[0], measured={
        "first MiB": (middle - start) / MiB, "next MiB": (end - middle) / MiB,
        "first s": runs[0].seconds, "next s": runs[1].seconds,
        "first CPU-s": runs[0].cpu, "next CPU-s": runs[1].cpu})
