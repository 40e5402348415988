# SPDX-License-Identifier: Apache-2.0
"""Guests that read the same image at the same time, as when many boot."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from concurrent import futures

from benchmarks import guest_reads, timing
from benchmarks import site as sites
from benchmarks.guest_reads import Chain
from benchmarks.report import Chart, Result, Row
from benchmarks.site import Site
from benchmarks.timing import Run, Subject
from benchmarks.volume import Volume
from imagecache.model import MiB

_WAYS = (("raw copies", sites.COPY, "ext4"),
         ("overlays", sites.OVERLAY, "ext4"),
         ("XFS: raw copies", sites.COPY, "xfs"))

# Past the page cache, and through a cold one.
_MODES = ("none", "writeback")


def measure(site: Site) -> Iterator[Result]:
    kinds = ["ext4"] + [kind for kind in site.shares_blocks if kind == "xfs"]
    with contextlib.ExitStack() as stack:
        volumes = {kind: stack.enter_context(site.volume(kind))
                   for kind in kinds}
        subjects = [
            Subject(f"{name}, {mode}", f"on {kind}, cache mode {mode}",
                    functools.partial(_run, site, volumes[kind], chains, mode))
            for name, options, kind in _WAYS if kind in volumes
            for chains in [_chains(site, volumes[kind], options)]
            for mode in _MODES]
        runs = timing.race(subjects, site.scale.read_rounds, practice=0)
    size = guest_reads.patterns(site)[0].size / MiB
    count = site.scale.instances
    yield Result(
        f"{count} guests that read the same at once", [
            _row(row, mine) for row, mine in zip(
                timing.compare(subjects, runs, "s"), runs, strict=True)],
        notes=[f"Each of {count} guests reads the same {size:.0f} MiB, 128 KiB"
               " at a time; the page cache is cold before.  writeback: through"
               " the page cache, which one base has once, and copies have each"
               " for itself."],
        chart=Chart("guest-crowd", f"seconds until {count} guests have read",
                    {"median s": f"{count} guests"}))


def _chains(site: Site, volume: Volume,
            options: sites.Options) -> Sequence[Chain]:
    instances = volume.path / options.name.replace(" ", "-")
    instances.mkdir()
    cache, image = sites.cache(instances, options), str(site.image.compressed)
    disks = [cache.create_disk(f"guest-{number}", image)
             for number in range(site.scale.instances)]
    base = cache.fetch(image)
    return [Chain("", "", disk.path, disk.format, disk.size(),
                  base.path if options.use_cow else None, base.format)
            for disk in disks]


def _run(site: Site, volume: Volume, chains: Sequence[Chain],
         mode: str) -> Run:
    script = guest_reads.script(guest_reads.patterns(site)[0].reads)
    volume.cool()
    before = volume.read()

    def read(chain: Chain) -> None:
        guest_reads.obey(["qemu-io", "--read-only", "--cache", mode,
                          "--image-opts", chain.drivers()], script)

    with futures.ThreadPoolExecutor(len(chains)) as pool:
        run = timing.measure(lambda: list(pool.map(read, chains)))
    return dataclasses.replace(run, measured={
        "CPU s": run.cpu, "stored MiB": (volume.read() - before) / MiB})


def _row(row: Row, runs: Sequence[Run]) -> Row:
    more = timing.summary(Subject("", "", lambda: runs[0]), runs).values
    return dataclasses.replace(
        row, values={**{name: row.values[name] for name in (
            "min s", "median s", "max s", "ratio", "ratio 25%",
            "ratio 75%")}, **more},
        spread={"median s": (row.values["min s"], row.values["max s"])})
