# SPDX-License-Identifier: Apache-2.0
"""What the options cost: the numbers behind the page "Choosing options"."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator

from benchmarks import guest_io, harness
from benchmarks.harness import Chart, MiB, Result, Row, Run, Subject
from benchmarks.scratch import KINDS, Scratch, command, make_image
from benchmarks.site import (
    COPY,
    COPY_KEPT,
    OVERLAY,
    OVERLAY_KEPT,
    Options,
    Scale,
    Site,
    Volume,
    opened,
)
from imagecache.events import Event, Name
from imagecache.model import GiB


def results(scratch: Scratch) -> Iterator[Result]:
    scale = Scale()
    image = make_image(scratch.directory("image"), scale.image, scale.data)
    directory = scratch.directory("volumes")
    yield from measure(Site(image, scale,
                            functools.partial(opened, directory)))


def measure(site: Site) -> Iterator[Result]:
    """Yield all that is measured; the site of a test is small."""
    yield from boot_io(site)
    yield space(site)
    yield from guest_io.measure(site)
    with site.volume("ext4") as where:
        yield steps(site, where)
        yield growing(site, where)


# What is written until a guest can boot.

_PAIR = ("first MiB", "next MiB", "first s", "next s", "first CPU-s",
         "next CPU-s")
_BARS = {"first MiB": "first disk of an image on a host",
         "next MiB": "each further disk"}


def boot_io(site: Site) -> Iterator[Result]:
    with site.volume("ext4") as where:
        yield Result(
            f"Written for a disk (ext4, {site.scale.rounds} rounds)",
            _boots(site, where, [
                (f"{kind}: {options.name}", kind, options) for kind in KINDS
                for options in (OVERLAY, OVERLAY_KEPT, COPY, COPY_KEPT)]),
            notes=["MiB: " + where.counter + ".  Until the disk is there and"
                   " all of it is on the storage; what the guest then writes"
                   " comes on top.  first: the cache is empty; the image is"
                   " brought ('image MiB'), validated, converted if it must"
                   " be, and the disk made.  next: one more disk.  A disk has"
                   " the image's size here.  s: until the call returns.  The"
                   " least of the rounds.", site.image.describe()],
            chart=Chart("boot-io", "MiB written to the storage", _BARS))
    rows = []
    for file_system in ("ext4", *site.sharing):
        with site.volume(file_system) as where:
            rows += _boots(site, where, [
                (f"{file_system}: {options.name}", "compressed", options)
                for options in (OVERLAY, COPY)])
    yield Result(
        f"The same by file system ({site.scale.rounds} rounds)", rows,
        notes=["Of the compressed image.  XFS and btrfs let two files share"
               " their blocks, which is how a raw copy is then made."],
        chart=Chart("boot-io-reflink", "MiB written to the storage", _BARS))


def _boots(site: Site, where: Volume,
           cases: Iterable[tuple[str, str, Options]]) -> list[Row]:
    def boot(kind: str, options: Options) -> Run:
        where.clear()
        image = site.image.of(kind)
        return _two_disks(where, options, image).having(
            image_MiB=image.stat().st_size / MiB)

    return [row.only("image MiB", *_PAIR) for row in _race(site, {
        name: (str(options), functools.partial(boot, kind, options))
        for name, kind, options in cases})]


def _race(site: Site, cases: dict[str, tuple[str, Callable[[], Run]]]
          ) -> list[Row]:
    subjects = [Subject(name, meaning, run)
                for name, (meaning, run) in cases.items()]
    return harness.rows(subjects, harness.race(subjects, site.scale.rounds,
                                               practice=0))


def _two_disks(where: Volume, options: Options, image: pathlib.Path,
               size: int | None = None) -> Run:
    """Make a disk, and the next one: what they take and what they write."""
    cache, written, runs = options.cache(where.path), [where.written()], []
    for instance in ("first", "next"):
        runs.append(harness.measure(functools.partial(
            cache.create_disk, instance, str(image), size=size)))
        written.append(where.written())
    start, middle, end = written
    return runs[0].having(
        first_MiB=(middle - start) / MiB, next_MiB=(end - middle) / MiB,
        first_s=runs[0].seconds, next_s=runs[1].seconds,
        **{"first_CPU-s": runs[0].cpu, "next_CPU-s": runs[1].cpu})


# The space that a cache takes, and disks made from it.

_RESIZED = OVERLAY.also(resized_bases=True)
_FULL = COPY.also(preallocate=True)

# Of a layout: its options, the image's kind, the file system.
LAYOUTS = {
    "overlay, raw base": (OVERLAY, "compressed", "ext4"),
    "overlay, plain base": (OVERLAY_KEPT, "plain", "ext4"),
    "overlay, compressed base": (OVERLAY_KEPT, "compressed", "ext4"),
    "overlay, resized base": (_RESIZED, "compressed", "ext4"),
    "overlay, preallocated": (OVERLAY.also(preallocate=True), "compressed",
                              "ext4"),
    "copy of compressed": (COPY_KEPT, "compressed", "ext4"),
    "raw copy": (COPY, "compressed", "ext4"),
    "raw copy, no holes": (COPY, "compressed", "ext4"),
    "raw copy, preallocated": (_FULL, "compressed", "ext4"),
    "XFS: raw copy": (COPY, "compressed", "xfs"),
    "XFS: preallocated": (_FULL, "compressed", "xfs"),
    "XFS: resized base": (_RESIZED, "compressed", "xfs"),
    "btrfs: raw copy": (COPY, "compressed", "btrfs"),
}


def space(site: Site) -> Result:
    count, size = site.scale.instances, site.scale.disk
    rows = []
    for kind in ("ext4", *site.sharing):
        with site.volume(kind) as where:
            rows += [layout_space(site, where, name)
                     for name, layout in LAYOUTS.items() if layout[2] == kind]
    return Result(
        f"Space taken by the cache and {count} new disks of"
        f" {size / GiB:g} GiB", rows, notes=[
            "By the file system's own count of free blocks, with its tables."
            "  No guest has written anything yet: overlays, sparse and shared"
            " copies take more as guests write, at most the disk's size each,"
            " and an overlay its tables.  No holes: as if cp(1) wrote out the"
            " holes.", site.image.describe()],
        chart=Chart("space", "MiB taken", {
            "cache MiB": "the cache", "disks MiB": f"{count} disks"},
            stacked=True))


def layout_space(site: Site, where: Volume, name: str) -> Row:
    options, kind, _ = LAYOUTS[name]
    where.clear()
    start = where.used()
    cache, size = options.cache(where.path), site.scale.disk
    image = str(site.image.of(kind))
    base = cache.fetch(image).path
    for number in range(site.scale.instances):
        disk = where.path / f"instance-{number}" / "disk"
        if name.endswith("no holes"):
            disk.parent.mkdir()
            command("cp", "--sparse=never", "--reflink=never", base, disk)
            os.truncate(disk, size)
        else:
            cache.create_disk(disk.parent.name, image, size=size)
    everything = where.used() - start
    for each in where.path.glob("instance-*"):
        shutil.rmtree(each)
    bases = where.used() - start
    return Row(name, f"{options}; the image is {kind}", {
        "cache MiB": bases / MiB, "disks MiB": (everything - bases) / MiB,
        "each MiB": (everything - bases) / MiB / site.scale.instances,
        "all MiB": everything / MiB})


# What is done with an image before a guest sees it.

_STEPS = {"receive s": "bring it, with its digest, and inspect it",
          "validate s": "ask qemu-img as well",
          "convert s": "convert to raw",
          "commit s": "flush and commit",
          "disk s": "make the disk"}
# Of an event, the step that is done then; "convert" is told often.
_ENDS: dict[str, str] = {
    Name.VERIFIED: "receive s", Name.VALIDATED: "validate s",
    Name.CONVERT: "convert s", Name.COMMITTED: "commit s",
    Name.CREATED: "disk s"}


def steps(site: Site, where: Volume) -> Result:
    rows = _race(site, {
        f"{kind}, {'to raw' if options.force_raw else 'kept'}": (
            f"a {kind} image; {options}",
            functools.partial(_first_disk, site, where, kind, options))
        for kind in KINDS for options in (OVERLAY, OVERLAY_KEPT)
        if (kind, options) != ("raw", OVERLAY_KEPT)})
    return Result(
        f"Steps to the first disk ({site.scale.rounds} rounds)",
        [row.only(*_STEPS, "all s", "all CPU-s", "sha256 s") for row in rows],
        notes=["The image comes from a file in the page cache, so no network"
               " is in 'receive'; sha256: of the same file, by itself."
               "  The least of the rounds.",
               site.image.describe()],
        chart=Chart("preprocessing", "seconds until the first disk is there",
                    _STEPS, stacked=True))


def _first_disk(site: Site, where: Volume, kind: str,
                options: Options) -> Run:
    where.clear()
    image = site.image.of(kind)
    _digest(image)    # into the page cache
    sha256 = harness.measure(lambda: _digest(image)).seconds
    took, last = dict.fromkeys(_STEPS, 0.0), time.perf_counter()

    def observe(event: Event) -> None:
        nonlocal last
        if event.name in _ENDS:
            now = time.perf_counter()
            took[_ENDS[event.name]] += now - last
            last = now

    cache = options.cache(where.path, observe)
    last = time.perf_counter()
    run = harness.measure(lambda: cache.create_disk("guest", str(image)))
    return run.having(**took, all_s=run.seconds, sha256_s=sha256,
                      **{"all CPU-s": run.cpu})


def _digest(path: pathlib.Path) -> None:
    with path.open("rb") as f:
        hashlib.file_digest(f, "sha256")


def growing(site: Site, where: Volume) -> Result:
    large = site.scale.large
    name = f"{large / GiB:g} GiB"
    rows = _race(site, {
        title: (str(options), functools.partial(
            _grown_disks, site, where, options, size))
        for title, options, size in (
            ("raw copy, as large as its image", COPY, None),
            (f"raw copy of {name}", COPY, large),
            ("overlay, as large as its image", OVERLAY, None),
            (f"overlay of {name}", OVERLAY, large),
            (f"overlay of {name}, resized base", _RESIZED, large))})
    return Result(
        f"Disks larger than their image ({site.scale.rounds} rounds)",
        [row.only(*_PAIR) for row in rows],
        notes=["The raw base is in the cache before.  first: of this size;"
               " next: one more.  The least of the rounds.  The file system"
               " of a raw copy and that of a resized base are grown; that of"
               " an overlay is left to its guest.",
               f"Growing the file system to {name} changes clusters of 64 KiB:"
               " an overlay in which the guest does that holds"
               f" {_left_by_growing(site, where) / MiB:.1f} MiB more."],
        chart=Chart("growing", "seconds", {
            "first s": "first disk of this size",
            "next s": "each further disk"}))


def _grown_disks(site: Site, where: Volume, options: Options,
                 size: int | None) -> Run:
    where.clear()
    options.cache(where.path).fetch(str(site.image.compressed))
    return _two_disks(where, options, site.image.compressed, size)


def _left_by_growing(site: Site, where: Volume) -> int:
    """Return what an overlay would hold after its guest grew the system."""
    where.clear()
    disk = COPY.cache(where.path).create_disk(
        "guest", str(site.image.compressed), size=site.scale.large)
    overlay = disk.path.with_name("overlay")
    command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
            "-b", disk.path, overlay)
    # What differs between the two backing files is written to the overlay.
    command("qemu-img", "rebase", "-F", "raw", "-b", site.image.raw, overlay)
    return overlay.stat().st_blocks * 512
