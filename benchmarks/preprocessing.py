# SPDX-License-Identifier: Apache-2.0
"""What is done with an image before a guest sees it, and what that costs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator

from benchmarks import site as sites
from benchmarks import timing
from benchmarks.report import Chart, Result
from benchmarks.site import Options, Site
from benchmarks.timing import Run, Subject
from benchmarks.volume import Volume
from imagecache.events import Event, Name
from imagecache.model import GiB, KiB, MiB

_CLUSTER = 64 * KiB    # of a qcow2 file by default

_STEPS = {"receive s": "bring it, with its digest, and inspect it",
          "prove s": "ask qemu-img as well",
          "convert s": "convert to raw",
          "commit s": "flush and commit",
          "disk s": "make the disk"}

# Of an event, the step that is done then.
_ENDS: dict[str, str] = {
    Name.VERIFIED: "receive s", Name.VALIDATED: "prove s",
    Name.CONVERT: "convert s", Name.COMMITTED: "commit s",
    Name.CREATED: "disk s"}

_FIRST = (("compressed", sites.OVERLAY), ("compressed", sites.OVERLAY_KEPT),
          ("plain", sites.OVERLAY), ("plain", sites.OVERLAY_KEPT),
          ("raw", sites.OVERLAY))


class Stopwatch:
    """An observer that takes the time of each step."""

    def __init__(self) -> None:
        self.steps = dict.fromkeys(_STEPS, 0.0)
        self.start()

    def start(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, event: Event) -> None:
        step = _ENDS.get(event.name)
        if step:    # convert is told often: its times add up
            now = time.perf_counter()
            self.steps[step] += now - self._last
            self._last = now


def measure(site: Site) -> Iterator[Result]:
    with site.volume("ext4") as volume:
        yield _steps(site, volume)
        yield _growing(site, volume)


def _steps(site: Site, volume: Volume) -> Result:
    subjects = [
        Subject(f"{kind}, {'to raw' if options.force_raw else 'kept'}",
                f"a {kind} image; force_raw"
                f" {'yes' if options.force_raw else 'no'}",
                functools.partial(_first_disk, site, volume, kind, options))
        for kind, options in _FIRST]
    runs = timing.race(subjects, site.scale.rounds, practice=0)
    return Result(
        f"Steps to the first disk ({site.scale.rounds} rounds)",
        [timing.summary(*each) for each in zip(subjects, runs, strict=True)],
        notes=["The image comes from a file in the page cache, so no network"
               " is in 'receive'; sha256: of the same file, by itself."
               "  The least of the rounds.",
               site.image.describe()],
        chart=Chart("preprocessing", "seconds until the first disk is there",
                    _STEPS, stacked=True))


def _first_disk(site: Site, volume: Volume, kind: str,
                options: Options) -> Run:
    volume.clear()
    image = site.image.of(kind)
    digest = _digest(image)
    watch = Stopwatch()
    cache = sites.cache(volume.path, options, watch)

    def make() -> None:
        watch.start()
        cache.create_disk("guest", str(image))

    run = timing.measure(make)
    return dataclasses.replace(run, measured={
        **watch.steps, "all s": run.seconds, "all CPU-s": run.cpu,
        "sha256 s": digest.seconds})


def _digest(path: pathlib.Path) -> Run:
    def read() -> None:
        with path.open("rb") as f:
            hashlib.file_digest(f, "sha256")

    read()    # into the page cache
    return timing.measure(read)


def _growing(site: Site, volume: Volume) -> Result:
    large = site.scale.large
    name = f"{large / GiB:g} GiB"
    resized = Options("", resized_bases=True)
    cases = [
        ("raw copy, as large as its image", "use_cow no", sites.COPY, None),
        (f"raw copy of {name}", "use_cow no; its file system grown",
         sites.COPY, large),
        ("overlay, as large as its image", "use_cow yes", sites.OVERLAY,
         None),
        (f"overlay of {name}", "use_cow yes; growing is left to the guest",
         sites.OVERLAY, large),
        (f"overlay of {name}, resized base",
         "resized_bases yes; the base grown, once", resized, large)]
    subjects = [
        Subject(title, meaning, functools.partial(
            _grown_disks, site, volume, options, size))
        for title, meaning, options, size in cases]
    runs = timing.race(subjects, site.scale.rounds, practice=0)
    return Result(
        f"Disks larger than their image ({site.scale.rounds} rounds)",
        [timing.summary(*each) for each in zip(subjects, runs, strict=True)],
        notes=["The raw base is in the cache before.  first: of this size;"
               " next: one more.  The least of the rounds.",
               _left_by_growing(site, volume)],
        chart=Chart("growing", "seconds", {
            "first s": "first disk of this size",
            "next s": "each further disk"}))


def _grown_disks(site: Site, volume: Volume, options: Options,
                 size: int | None) -> Run:
    volume.clear()
    cache = sites.cache(volume.path, options)
    image = str(site.image.compressed)
    cache.fetch(image)
    return sites.two_disks(volume, cache, image, size)


def _left_by_growing(site: Site, volume: Volume) -> str:
    """Say what an overlay would hold, had its guest grown the file system."""
    volume.clear()
    cache = sites.cache(volume.path, sites.COPY)
    disk = cache.create_disk("guest", str(site.image.compressed),
                             size=site.scale.large)
    clusters = sum(1 for _ in _changed(site.image.raw, disk.path))
    return (f"Growing the file system to {site.scale.large / GiB:g} GiB"
            f" changes {clusters} clusters of 64 KiB: an overlay in which the"
            f" guest does that holds {clusters * _CLUSTER / MiB:.1f} MiB"
            " more.")


def _changed(one: pathlib.Path, other: pathlib.Path) -> Iterator[int]:
    """Yield the offsets of clusters that two files do not have in common.

    :param other: the larger; its holes do not count
    """
    with one.open("rb") as old, other.open("rb") as new:
        offset, end = 0, other.stat().st_size
        while offset < end:
            try:
                start = os.lseek(new.fileno(), offset, os.SEEK_DATA)
            except OSError:    # no more data
                return
            offset = start // _CLUSTER * _CLUSTER
            if os.pread(old.fileno(), _CLUSTER, offset).ljust(
                    _CLUSTER, b"\0") != os.pread(
                    new.fileno(), _CLUSTER, offset).ljust(_CLUSTER, b"\0"):
                yield offset
            offset += _CLUSTER
