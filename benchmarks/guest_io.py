# SPDX-License-Identifier: Apache-2.0
"""The cost of a guest's reads and writes, by the way its disk was made.

By qemu-io(1), which uses the drivers of a guest's disk, from behind the
virtual controller down to the file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures

from benchmarks import harness
from benchmarks.harness import RATIOS, Chart, MiB, Result, Row, Run
from benchmarks.scratch import command
from benchmarks.site import COPY, OVERLAY, OVERLAY_KEPT, Site, Volume, Way
from imagecache.model import GiB, KiB

SLOW = 100 * MiB    # a second: a disk that turns, or a share of a network's

# A guest has its buffers.  qemu-io gets a new one from the C library for each
# read, and by default some sizes come from the kernel each time: that would
# slow above all the cheapest reads, those of a raw disk.
_BUFFERS_STAY = {"MALLOC_MMAP_THRESHOLD_": str(32 * MiB),
                 "MALLOC_TRIM_THRESHOLD_": str(64 * MiB)}

Piece = tuple[int, int]    # offset and length, in bytes


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One way of reading or writing."""

    title: str
    meaning: str
    pieces: Sequence[Piece]
    verb: str = "read"
    warm: bool = False      # the page cache
    slow: bool = False      # the storage
    guests: int = 1         # that do it at the same time

    @property
    def size(self) -> int:
        return sum(length for _, length in self.pieces)


def measure(site: Site) -> Iterator[Result]:
    yield from _reads(site)
    yield _crowd(site)
    yield from _writes(site)


def _reads(site: Site) -> Iterator[Result]:
    ways = {"raw disk": COPY, "on raw base": OVERLAY,
            "on plain qcow2": OVERLAY_KEPT.also(kind="plain"),
            "on compressed qcow2": OVERLAY_KEPT}
    found = {}
    for word, pattern in read_patterns(site).items():
        found[word] = _race(site, pattern, {
            name: way.also(mode="writeback" if pattern.warm else "none")
            for name, way in ways.items()})
        yield Result(pattern.title, [row.only(
            "MiB/s ", *RATIOS, "CPU-s a GiB", "stored MiB")
            for row in found[word]], notes=[pattern.meaning])
    yield _together("Guest reads: how many times as long as from a raw disk",
                    found, Chart("guest-reads", "time to read, raw disk = 1", {
                        "direct": "in order",
                        "cached": "in order, in page cache",
                        "random": "4 KiB at random",
                        "slow": "in order, storage of"
                                f" {SLOW // MiB} MiB/s"}))


def read_patterns(site: Site) -> dict[str, Pattern]:
    scale, extents = site.scale, list(_extents(site.image.raw))
    in_order = list(_first(_pieces(extents, 128 * KiB), scale.reads))
    return {
        "direct": Pattern(
            "Guest reads in order, past the page cache",
            "128 KiB at a time, one after the other, O_DIRECT: as with the"
            " hypervisor's cache mode 'none'.", in_order),
        "cached": Pattern(
            "Guest reads in order, from the page cache",
            "The same, twice, from files that the host has in memory: cache"
            " mode 'writeback', after another guest has read them.",
            2 * in_order, warm=True),
        "random": Pattern(
            "Guest reads at random, past the page cache",
            "4 KiB of the data at a time, O_DIRECT.",
            random.Random(0).choices(list(_pieces(extents, 4 * KiB)),
                                     k=scale.random_reads)),
        "slow": Pattern(
            f"Guest reads in order, storage of {SLOW // MiB} MiB/s",
            "128 KiB at a time, O_DIRECT, and qemu's throttle before the"
            " files.", list(_first(in_order, scale.slow_reads)), slow=True)}


def _crowd(site: Site) -> Result:
    """Measure guests that read the same at the same time: when many boot."""
    count = site.scale.instances
    pattern = dataclasses.replace(read_patterns(site)["direct"], guests=count)
    rows = _race(site, pattern, {
        f"{name}, {mode}": way.also(mode=mode) for name, way in (
            ("raw copies", COPY), ("overlays", OVERLAY),
            ("XFS: raw copies", COPY.also(file_system="xfs")))
        for mode in ("none", "writeback")})
    return Result(
        f"{count} guests that read the same at once",
        [row.only("min s", "median s", "max s", *RATIOS, "CPU s",
                  "stored MiB") for row in rows],
        notes=[f"Each of {count} guests reads the same"
               f" {pattern.size / MiB:.0f} MiB, 128 KiB at a time; the page"
               " cache is cold before.  writeback: through the page cache,"
               " which has one base once, and each copy by itself."],
        chart=Chart("guest-crowd", f"seconds until {count} guests have read",
                    {"median s": f"{count} guests"}))


def _writes(site: Site) -> Iterator[Result]:
    ways = {name: way.also(size=site.scale.disk) for name, way in {
        "raw copy": COPY,
        "raw copy, preallocated": COPY.also(preallocate=True),
        "overlay": OVERLAY,
        "overlay, preallocated": OVERLAY.also(preallocate=True),
        "XFS: raw copy": COPY.also(file_system="xfs"),
        "XFS: overlay": OVERLAY.also(file_system="xfs")}.items()}
    new = _pieces([(site.image.size, site.scale.writes)], 128 * KiB)
    data = list(_pieces(_extents(site.image.raw), 4 * KiB))
    found = {}
    for word, pattern, chart in (
            ("new", Pattern(
                "Guest writes in order, where nothing was",
                "128 KiB at a time behind the image's end, O_DIRECT, and a"
                " flush at the end.", list(new), "write"), None),
            ("over", Pattern(
                "Guest writes at random, over the image's data",
                "4 KiB at a time, O_DIRECT, and a flush at the end.",
                random.Random(0).sample(data, site.scale.random_writes),
                "write"), Chart("guest-writes-storage", "MiB", {
                    "given MiB": "what the guest wrote",
                    "written MiB": "what reached the storage"}))):
        found[word] = _race(site, pattern, ways)
        yield Result(
            pattern.title, [row.only(
                "MiB/s ", *RATIOS, "CPU s", given_MiB=pattern.size / MiB,
                written_MiB=row.values["stored MiB"])
                for row in found[word]], notes=[pattern.meaning], chart=chart)
    yield _together("Guest writes: how many times as long as to a raw copy",
                    found, Chart(
                        "guest-writes", "time to write, raw copy = 1", {
                            "new": "in order, where nothing was",
                            "over": "4 KiB at random, over the image's"
                                    " data"}))


def _race(site: Site, pattern: Pattern, ways: Mapping[str, Way]) -> list[Row]:
    rows = site.race(ways, functools.partial(_run, site, pattern),
                     site.scale.io_rounds)
    return [row.only(*row.values, **{
        "MiB/s ": pattern.size / MiB / row.values["median s"],
        "CPU-s a GiB": row.values["CPU s"] / pattern.size * GiB})
        for row in rows]


def _together(title: str, found: Mapping[str, Sequence[Row]],
              chart: Chart) -> Result:
    """Return the ratios of all patterns in one table."""
    return Result(title, [
        Row(each[0].name, each[0].meaning,
            {word: row.values["ratio"]
             for word, row in zip(found, each, strict=True)},
            spread={word: row.spread["ratio"]
                    for word, row in zip(found, each, strict=True)})
        for each in zip(*found.values(), strict=True)], chart=chart)


def _run(site: Site, pattern: Pattern, volume: Volume, way: Way) -> Run:
    """Make disks; let a guest of each read or write, by the clock."""
    # A directory for each kind of base.
    instances = volume.path / f"{way.force_raw}-{way.kind}"
    instances.mkdir(exist_ok=True)
    cache, image = way.cache(instances), str(site.image.of(way.kind))
    base = cache.fetch(image)
    chains = []
    for number in range(pattern.guests):
        disk = cache.create_disk(f"guest-{number}", image, size=way.size)
        if pattern.slow and way.use_cow:
            # A throttle before a base must be named in the overlay.
            command("qemu-img", "rebase", "-q", "-u", "-f", disk.format,
                    "-b", node(base.format, base.path, slow=True),
                    "-F", base.format, disk.path)
        chains.append(node(disk.format, disk.path,
                           pattern.slow and not way.use_cow))
    io = functools.partial(qemu_io, pattern, way.mode)
    if pattern.warm:
        for chain in chains:    # fills the page cache
            io(chain)
    else:
        volume.cool()
    counter = volume.read if pattern.verb == "read" else volume.written
    before = counter()
    with futures.ThreadPoolExecutor(len(chains)) as pool:
        run = harness.measure(lambda: list(pool.map(io, chains)))
    run = run.having(stored_MiB=(counter() - before) / MiB)
    for number in range(pattern.guests):
        shutil.rmtree(instances / f"guest-{number}")
    return run


def node(disk_format: str, path: pathlib.Path, slow: bool = False) -> str:
    """Return the name of an image for qemu, with its format.

    :param slow: its data comes through a throttle
    """
    file: dict[str, object] = {"driver": "file", "filename": str(path)}
    if slow:
        file = {"driver": "throttle", "throttle-group": "slow", "file": file}
    return "json:" + json.dumps({"driver": disk_format, "file": file})


def qemu_io(pattern: Pattern, mode: str, chain: str) -> None:
    """Run a script in qemu-io, which prints nothing if all is well."""
    words = ["qemu-io", "--cache", mode,
             "--object", f"throttle-group,id=slow,x-bps-read={SLOW}",
             *["--read-only"] * (pattern.verb == "read"), chain]
    script = "".join(f"{pattern.verb} -q {offset} {length}\n"
                     for offset, length in pattern.pieces)
    script += "flush\n" * (pattern.verb == "write")
    done = subprocess.run(words, input=script, check=False,
                          text=True, env=os.environ | _BUFFERS_STAY,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = done.stdout.replace("qemu-io>", "").strip()
    if said or done.returncode:
        raise RuntimeError(f"{chain}: {said[:400]}")


def _extents(raw: pathlib.Path) -> Iterator[Piece]:
    """Yield the extents of a raw image that have data."""
    found = json.loads(command("qemu-img", "map", "-f", "raw",
                               "--output=json", raw))
    return ((each["start"], each["length"]) for each in found if each["data"])


def _pieces(extents: Iterable[Piece], size: int) -> Iterator[Piece]:
    for start, length in extents:
        for offset in range(start, start + length, size):
            yield offset, min(size, start + length - offset)


def _first(pieces: Iterable[Piece], size: int) -> Iterator[Piece]:
    for offset, length in pieces:
        if size <= 0:
            return
        yield offset, length
        size -= length
