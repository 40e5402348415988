# SPDX-License-Identifier: Apache-2.0
"""The cost of the options: the numbers of the page "Choosing options"."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import shutil
import time
from collections.abc import Iterator

from benchmarks import guest_io, harness
from benchmarks.harness import Chart, MiB, Result, Row, Run
from benchmarks.scratch import KINDS, Scratch, command, make_image
from benchmarks.site import (
    COPY,
    COPY_KEPT,
    OVERLAY,
    OVERLAY_KEPT,
    Scale,
    Site,
    Volume,
    Way,
    opened,
)
from imagecache.events import Event, Name
from imagecache.model import GiB

_PAIR = ("first MiB", "next MiB", "first s", "next s", "first CPU-s",
         "next CPU-s")
_BARS = {"first MiB": "first disk of an image on a host",
         "next MiB": "each further disk"}


def results(scratch: Scratch) -> Iterator[Result]:
    scale = Scale()
    image = make_image(scratch.directory("image"), scale.image, scale.data)
    directory = scratch.directory("volumes")
    yield from measure(Site(image, scale,
                            functools.partial(opened, directory)))


def measure(site: Site) -> Iterator[Result]:
    """Yield all results; the site of a test is small."""
    yield _boot_io(site)
    yield _boot_io_by_file_system(site)
    yield space(site)
    yield from guest_io.measure(site)
    yield _steps(site)
    yield _growing(site)


def _boot_io(site: Site) -> Result:
    ways = {"overlay, raw base": OVERLAY,
            "overlay, base as it came": OVERLAY_KEPT,
            "raw copy": COPY, "copy as it came": COPY_KEPT}
    rows = _boots(site, {f"{kind}: {name}": way.also(kind=kind)
                         for kind in KINDS for name, way in ways.items()})
    return Result(
        f"Written for a disk (ext4, {site.scale.rounds} rounds)", rows,
        notes=["MiB: written to the block device, with the file system's own,"
               " until the disk is there and all of it is on the storage;"
               " the guest's writes come on top.  first: the cache is empty;"
               " the image is brought ('image MiB'), validated, converted if"
               " it must be, and the disk made.  next: one more disk.  A disk"
               " has the image's size here.  s: until the call returns.  The"
               " least of the rounds.", site.image.describe()],
        chart=Chart("boot-io", "MiB written to the storage", _BARS))


def _boot_io_by_file_system(site: Site) -> Result:
    rows = [row for each in site.file_systems for row in _boots(site, {
        f"{each}: overlay, raw base": OVERLAY.also(file_system=each),
        f"{each}: raw copy": COPY.also(file_system=each)})]
    return Result(
        f"The same by file system ({site.scale.rounds} rounds)", rows,
        notes=["Of the compressed image.  XFS and btrfs let two files share"
               " their blocks: raw copies are made that way there."],
        chart=Chart("boot-io-reflink", "MiB written to the storage", _BARS))


def _boots(site: Site, ways: dict[str, Way]) -> list[Row]:
    def boot(where: Volume, way: Way) -> Run:
        where.clear()
        return _two_disks(site, where, way).having(
            image_MiB=site.image.of(way.kind).stat().st_size / MiB)

    return [row.only("image MiB", *_PAIR)
            for row in site.race(ways, boot, site.scale.rounds)]


def _two_disks(site: Site, where: Volume, way: Way) -> Run:
    """Make a disk, and the next one; measure time and writes of each."""
    cache, written, runs = way.cache(where.path), [where.written()], []
    for instance in ("first", "next"):
        runs.append(harness.measure(functools.partial(
            cache.create_disk, instance, str(site.image.of(way.kind)),
            size=way.size)))
        written.append(where.written())
    start, middle, end = written
    return runs[0].having(
        first_MiB=(middle - start) / MiB, next_MiB=(end - middle) / MiB,
        first_s=runs[0].seconds, next_s=runs[1].seconds,
        **{"first_CPU-s": runs[0].cpu, "next_CPU-s": runs[1].cpu})


_RESIZED = OVERLAY.also(resized_bases=True)
_FULL = COPY.also(preallocate=True)
_NO_HOLES = "raw copy, no holes"
_LAYOUTS = {
    "overlay, raw base": OVERLAY,
    "overlay, plain base": OVERLAY_KEPT.also(kind="plain"),
    "overlay, compressed base": OVERLAY_KEPT,
    "overlay, resized base": _RESIZED,
    "overlay, preallocated": OVERLAY.also(preallocate=True),
    "copy of compressed": COPY_KEPT,
    "raw copy": COPY,
    _NO_HOLES: COPY,
    "raw copy, preallocated": _FULL,
    "XFS: raw copy": COPY.also(file_system="xfs"),
    "XFS: preallocated": _FULL.also(file_system="xfs"),
    "XFS: resized base": _RESIZED.also(file_system="xfs"),
    "btrfs: raw copy": COPY.also(file_system="btrfs"),
}


def space(site: Site) -> Result:
    count, rows = site.scale.instances, []
    for kind in site.file_systems:
        with site.volume(kind) as where:
            rows += [_layout(site, where, name, way)
                     for name, way in _LAYOUTS.items()
                     if way.file_system == kind]
    return Result(
        f"Space taken by the cache and {count} new disks of"
        f" {site.scale.disk / GiB:g} GiB", rows, notes=[
            "By the file system's own count of free blocks, with its tables."
            "  No guest has written anything yet: overlays, sparse and shared"
            " copies take more as guests write, at most the disk's size each,"
            " and an overlay its tables.  No holes: as if cp(1) wrote out the"
            " holes.", site.image.describe()],
        chart=Chart("space", "MiB taken", {
            "cache MiB": "the cache", "disks MiB": f"{count} disks"},
            stacked=True))


def _layout(site: Site, where: Volume, name: str, way: Way) -> Row:
    where.clear()
    start = where.used()
    cache, size = way.cache(where.path), site.scale.disk
    image, count = str(site.image.of(way.kind)), site.scale.instances
    base = cache.fetch(image).path
    for number in range(count):
        disk = where.path / f"instance-{number}" / "disk"
        if name == _NO_HOLES:
            disk.parent.mkdir()
            command("cp", "--sparse=never", "--reflink=never", base, disk)
            os.truncate(disk, size)
        else:
            cache.create_disk(disk.parent.name, image, size=size)
    everything = (where.used() - start) / MiB
    for each in where.path.glob("instance-*"):
        shutil.rmtree(each)
    bases = (where.used() - start) / MiB
    return Row(name, str(way), {
        "cache MiB": bases, "disks MiB": everything - bases,
        "each MiB": (everything - bases) / count, "all MiB": everything})


_STEPS = {"receive s": "bring it, with its digest, and inspect it",
          "validate s": "ask qemu-img as well",
          "convert s": "convert to raw",
          "commit s": "flush and commit",
          "disk s": "make the disk"}
# The step that ends with an event; "convert" is sent several times.
_ENDS: dict[str, str] = {
    Name.VERIFIED: "receive s", Name.VALIDATED: "validate s",
    Name.CONVERT: "convert s", Name.COMMITTED: "commit s",
    Name.CREATED: "disk s"}


def _steps(site: Site) -> Result:
    ways = {f"{kind}, {word}": way.also(kind=kind) for kind in KINDS
            for word, way in {"to raw": OVERLAY, "kept": OVERLAY_KEPT}.items()
            if (kind, word) != ("raw", "kept")}
    rows = site.race(ways, functools.partial(_first_disk, site),
                     site.scale.rounds)
    return Result(
        f"Steps to the first disk ({site.scale.rounds} rounds)",
        [row.only(*_STEPS, "all s", "all CPU-s", "sha256 s") for row in rows],
        notes=["The image comes from a file in the page cache, so no network"
               " is in 'receive'; sha256: of the same file, by itself."
               "  The least of the rounds.",
               site.image.describe()],
        chart=Chart("preprocessing", "seconds until the first disk is there",
                    _STEPS, stacked=True))


def _first_disk(site: Site, where: Volume, way: Way) -> Run:
    where.clear()
    image = site.image.of(way.kind)
    _digest(image)    # into the page cache
    sha256 = harness.measure(lambda: _digest(image)).seconds
    took, last = dict.fromkeys(_STEPS, 0.0), 0.0

    def observe(event: Event) -> None:
        nonlocal last
        if event.name in _ENDS:
            now = time.perf_counter()
            took[_ENDS[event.name]] += now - last
            last = now

    cache = way.cache(where.path, observe)
    last = time.perf_counter()
    run = harness.measure(lambda: cache.create_disk("guest", str(image)))
    return run.having(**took, all_s=run.seconds, sha256_s=sha256,
                      **{"all CPU-s": run.cpu})


def _digest(path: pathlib.Path) -> None:
    with path.open("rb") as f:
        hashlib.file_digest(f, "sha256")


def _growing(site: Site) -> Result:
    def grow(where: Volume, way: Way) -> Run:
        where.clear()
        way.cache(where.path).fetch(str(site.image.compressed))
        return _two_disks(site, where, way)

    large = site.scale.large
    name = f"{large / GiB:g} GiB"
    rows = site.race({
        "raw copy, as large as its image": COPY,
        f"raw copy of {name}": COPY.also(size=large),
        "overlay, as large as its image": OVERLAY,
        f"overlay of {name}": OVERLAY.also(size=large),
        f"overlay of {name}, resized base": _RESIZED.also(size=large)},
        grow, site.scale.rounds)
    return Result(
        f"Disks larger than their image ({site.scale.rounds} rounds)",
        [row.only(*_PAIR) for row in rows],
        notes=["The raw base is in the cache before.  first: of this size;"
               " next: one more.  The least of the rounds.  The file system"
               " of a raw copy and that of a resized base are grown; that of"
               " an overlay is left to its guest.",
               f"Growing the file system to {name} changes clusters of 64 KiB:"
               " an overlay in which the guest does that holds"
               f" {_left_by_growing(site) / MiB:.1f} MiB more."],
        chart=Chart("growing", "seconds", {
            "first s": "first disk of this size",
            "next s": "each further disk"}))


def _left_by_growing(site: Site) -> int:
    """Return the bytes of an overlay whose guest grew its file system."""
    with site.volume("ext4") as where:
        where.clear()
        disk = COPY.cache(where.path).create_disk(
            "guest", str(site.image.compressed), size=site.scale.large)
        overlay = disk.path.with_name("overlay")
        command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
                "-b", disk.path, overlay)
        # The difference of the two backing files is written to the overlay.
        command("qemu-img", "rebase", "-F", "raw", "-b", site.image.raw,
                overlay)
        return overlay.stat().st_blocks * 512
