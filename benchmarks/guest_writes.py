# SPDX-License-Identifier: Apache-2.0
"""What a guest's first writes cost, by how its disk was made."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
from collections.abc import Iterator, Sequence

from benchmarks import guest_reads, timing
from benchmarks import site as sites
from benchmarks.report import Chart, Result, Row
from benchmarks.site import Options, Site
from benchmarks.timing import Run, Subject
from benchmarks.volume import Volume
from imagecache.model import KiB, MiB


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
    """One way of writing."""

    title: str
    meaning: str
    script: str     # for qemu-io
    size: int       # bytes that it writes
    chart: Chart | None = None


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of making the disk."""

    name: str
    options: Options
    file_system: str = "ext4"


_WAYS = (
    Way("raw copy", sites.COPY),
    Way("raw copy, preallocated",
        dataclasses.replace(sites.COPY, preallocate=True)),
    Way("overlay", sites.OVERLAY),
    Way("overlay, preallocated",
        dataclasses.replace(sites.OVERLAY, preallocate=True)),
    Way("XFS: raw copy", sites.COPY, "xfs"),
    Way("XFS: overlay", sites.OVERLAY, "xfs"),
)


def measure(site: Site) -> Iterator[Result]:
    with contextlib.ExitStack() as stack:
        volumes = {kind: stack.enter_context(site.volume(kind))
                   for kind in ("ext4", *site.shares_blocks)
                   if kind != "btrfs"}
        found = {pattern: _race(site, volumes, pattern)
                 for pattern in _patterns(site)}
    for pattern, rows in found.items():
        yield Result(pattern.title, rows, notes=[pattern.meaning],
                     chart=pattern.chart)
    yield _together(list(found.values()))


def _patterns(site: Site) -> list[Pattern]:
    scale = site.scale
    new = [(site.image.size + offset, 128 * KiB)
           for offset in range(0, scale.writes, 128 * KiB)]
    chance = random.Random(0)
    over = [(offset, 4 * KiB) for offset in chance.sample(
        guest_reads.pages(site.image.raw), scale.random_writes)]
    return [
        Pattern("Guest writes in order, where nothing was",
                "128 KiB at a time behind the image's end, O_DIRECT, and a"
                " flush at the end.", *_script(new)),
        Pattern("Guest writes at random, over the image's data",
                "4 KiB at a time, O_DIRECT, and a flush at the end.",
                *_script(over), Chart(
                    "guest-writes-storage", "MiB", {
                        "given MiB": "what the guest wrote",
                        "written MiB": "what reached the storage"}))]


def _script(writes: Sequence[tuple[int, int]]) -> tuple[str, int]:
    lines = [f"write -q {offset} {length}" for offset, length in writes]
    return ("\n".join([*lines, "flush", ""]),
            sum(length for _, length in writes))


def _race(site: Site, volumes: dict[str, Volume],
          pattern: Pattern) -> list[Row]:
    subjects = [
        Subject(way.name, f"on {way.file_system}: a disk that is new",
                functools.partial(_run, site, volumes[way.file_system],
                                  way.options, pattern))
        for way in _WAYS if way.file_system in volumes]
    runs = timing.race(subjects, site.scale.write_rounds, practice=0)
    return [_row(row, pattern, mine) for row, mine in zip(
        timing.compare(subjects, runs, "s"), runs, strict=True)]


def _run(site: Site, volume: Volume, options: Options,
         pattern: Pattern) -> Run:
    cache = sites.cache(volume.path, options)
    disk = cache.create_disk("guest", str(site.image.compressed),
                             size=site.scale.disk)
    base = cache.fetch(str(site.image.compressed))
    chain = guest_reads.Chain("", "", disk.path, disk.format, disk.size(),
                              base.path if options.use_cow else None,
                              base.format)
    volume.cool()
    before = volume.written()
    run = timing.measure(functools.partial(guest_reads.obey, [
        "qemu-io", "--cache", "none", "--image-opts", chain.drivers()],
        pattern.script))
    written = volume.written() - before
    disk.remove()
    return dataclasses.replace(run, measured={
        "CPU s": run.cpu, "written MiB": written / MiB})


def _row(row: Row, pattern: Pattern, runs: Sequence[Run]) -> Row:
    more = timing.summary(Subject("", "", lambda: runs[0]), runs).values
    size = pattern.size / MiB
    return dataclasses.replace(row, values={
        "MiB/s ": size / row.values["median s"],
        "slowest MiB/s": size / row.values["max s"],
        "fastest MiB/s": size / row.values["min s"],
        **{name: row.values[name]
           for name in ("ratio", "ratio 25%", "ratio 75%")},
        "CPU s": more["CPU s"], "given MiB": size,
        "written MiB": more["written MiB"]})


def _together(tables: Sequence[Sequence[Row]]) -> Result:
    names = ("new", "over")
    rows = [Row(each[0].name, each[0].meaning,
                {name: row.values["ratio"]
                 for name, row in zip(names, each, strict=True)},
                spread={name: (row.values["ratio 25%"],
                               row.values["ratio 75%"])
                        for name, row in zip(names, each, strict=True)})
            for each in zip(*tables, strict=True)]
    return Result(
        "Guest writes: how many times as long as to a raw copy", rows,
        chart=Chart("guest-writes", "time to write, raw copy = 1", {
            "new": "in order, where nothing was",
            "over": "4 KiB at random, over the image's data"}))
