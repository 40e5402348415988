# SPDX-License-Identifier: Apache-2.0
"""What a guest's reads cost, by what its disk is read through.

By qemu-io(1): it goes through the same drivers as a guest's disk does, from
behind the virtual controller down to the file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import random
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks import site as sites
from benchmarks import timing
from benchmarks.report import Chart, Result, Row
from benchmarks.site import Options, Site
from benchmarks.timing import Run, Subject
from benchmarks.volume import Volume
from imagecache.model import GiB, KiB, MiB

SLOW = 100 * MiB    # a second: a disk that turns, or a share of a network's

# A guest has its buffers.  qemu-io takes one from the C library each time, and
# by default that asks the kernel for some sizes in some processes: it would be
# seen above all in the cheapest reads, those of a raw disk.
_BUFFERS_STAY = {"MALLOC_MMAP_THRESHOLD_": str(32 * MiB),
                 "MALLOC_TRIM_THRESHOLD_": str(64 * MiB)}

Read = tuple[int, int]    # offset and length, in bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
    """One way of reading."""

    name: str
    title: str
    meaning: str
    reads: Sequence[Read]
    direct: bool = True     # past the page cache, as [libvirt] guests often
    slow: bool = False

    @property
    def size(self) -> int:
        return sum(length for _, length in self.reads)


@dataclasses.dataclass(frozen=True)
class Chain:
    """A disk, and what it is read through."""

    name: str
    meaning: str
    disk: pathlib.Path
    format: str
    size: int    # bytes a guest sees
    base: pathlib.Path | None = None
    base_format: str = ""

    def drivers(self) -> str:
        """Return qemu's description; nothing in it is left to guess."""
        words = [f"driver={self.format}", "file.driver=file",
                 f"file.filename={_escaped(self.disk)}"]
        if self.base:
            words += [f"backing.driver={self.base_format}",
                      "backing.file.driver=file",
                      f"backing.file.filename={_escaped(self.base)}"]
        return ",".join(words)

    def slow_drivers(self) -> str:
        """The same, and all that is data comes through a throttle.

        One between a base and an overlay must be named in the overlay.
        """
        slow = {"driver": "throttle", "throttle-group": "slow"}
        if self.base is None:
            return (f"driver={self.format},file.driver=throttle,"
                    "file.throttle-group=slow,file.file.driver=file,"
                    f"file.file.filename={_escaped(self.disk)}")
        file = {"driver": "file", "filename": str(self.base)}
        backing = {"driver": self.base_format, "file": slow | {"file": file}}
        overlay = self.disk.with_name("slow")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-u",
             "-b", f"json:{json.dumps(backing)}", "-F", self.base_format,
             overlay, str(self.size)], check=True)
        return ("driver=qcow2,file.driver=file,"
                f"file.filename={_escaped(overlay)}")


def _escaped(path: pathlib.Path) -> str:
    return str(path).replace(",", ",,")


def measure(site: Site) -> Iterator[Result]:
    with site.volume("ext4") as volume:
        chains = [
            _chain(site, volume, "raw disk", "use_cow no: no qcow2 at all",
                   "compressed", sites.COPY),
            _chain(site, volume, "on raw base", "the default",
                   "compressed", sites.OVERLAY),
            _chain(site, volume, "on plain qcow2",
                   "force_raw no, the image is not compressed",
                   "plain", sites.OVERLAY_KEPT),
            _chain(site, volume, "on compressed qcow2",
                   "force_raw no, the image is compressed",
                   "compressed", sites.OVERLAY_KEPT)]
        found = {pattern: _race(site, volume, chains, pattern)
                 for pattern in patterns(site)}
    for pattern, rows in found.items():
        yield Result(pattern.title, rows, notes=[pattern.meaning])
    yield _together(found)


def patterns(site: Site) -> list[Pattern]:
    scale, extents = site.scale, list(_extents(site.image.raw))
    sequential = list(_first(_pieces(extents, 128 * KiB), scale.reads))
    slow = list(_first(_pieces(extents, 128 * KiB), scale.slow_reads))
    found, chance = pages(site.image.raw), random.Random(0)
    scattered = [(chance.choice(found), 4 * KiB)
                 for _ in range(scale.random_reads)]
    return [
        Pattern("direct", "Guest reads in order, past the page cache",
                "128 KiB at a time, one after the other, O_DIRECT: as with"
                " the hypervisor's cache mode 'none'.", sequential),
        Pattern("cached", "Guest reads in order, from the page cache",
                "The same, twice, from files that the host has in memory:"
                " cache mode 'writeback', after another guest has read"
                " them.", 2 * sequential, direct=False),
        Pattern("random", "Guest reads at random, past the page cache",
                "4 KiB of the data at a time, O_DIRECT.", scattered),
        Pattern("slow", f"Guest reads in order, storage of {SLOW // MiB}"
                " MiB/s", "128 KiB at a time, O_DIRECT, and qemu's throttle"
                " before the files.", slow, slow=True)]


def _chain(site: Site, volume: Volume, name: str, meaning: str, kind: str,
           options: Options) -> Chain:
    # Each of its own: bases of other options are beside it.
    instances = volume.path / name.replace(" ", "-")
    instances.mkdir()
    cache, image = sites.cache(instances, options), str(site.image.of(kind))
    disk = cache.create_disk("guest", image)
    if not options.use_cow:
        return Chain(name, meaning, disk.path, disk.format, disk.size())
    base = cache.fetch(image)
    return Chain(name, meaning, disk.path, disk.format, disk.size(),
                 base.path, base.format)


def _race(site: Site, volume: Volume, chains: Sequence[Chain],
          pattern: Pattern) -> list[Row]:
    orders = script(pattern.reads)
    subjects = [
        Subject(chain.name, chain.meaning, functools.partial(
            _run, volume, chain, pattern, orders)) for chain in chains]
    # Cached: the first round fills the page cache.
    runs = timing.race(subjects, site.scale.read_rounds,
                       practice=0 if pattern.direct else 1)
    rows = timing.compare(subjects, runs, "s")
    return [_row(row, pattern, mine)
            for row, mine in zip(rows, runs, strict=True)]


def script(reads: Iterable[Read]) -> str:
    """Return what tells qemu-io to read."""
    return "".join(f"read -q {offset} {length}\n"
                   for offset, length in reads)


def _run(volume: Volume, chain: Chain, pattern: Pattern, orders: str) -> Run:
    if pattern.direct:
        volume.cool()
    command = ["qemu-io", "--read-only", "--object",
               f"throttle-group,id=slow,x-bps-read={SLOW}",
               "--cache", "none" if pattern.direct else "writeback",
               "--image-opts",
               chain.slow_drivers() if pattern.slow else chain.drivers()]
    before = volume.read()
    run = timing.measure(functools.partial(obey, command, orders))
    return dataclasses.replace(run, measured={
        "CPU s": run.cpu, "storage MiB": (volume.read() - before) / MiB})


def obey(command: Sequence[str], orders: str) -> None:
    """Run qemu-io, which has nothing to say if all is well."""
    done = subprocess.run(command, input=orders, check=False, text=True,
                          env=os.environ | _BUFFERS_STAY,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = done.stdout.replace("qemu-io>", "").strip()
    if said or done.returncode:
        raise RuntimeError(f"{command[-1]}: {said[:400]}")


def _row(row: Row, pattern: Pattern, runs: Sequence[Run]) -> Row:
    more = timing.summary(Subject(row.name, row.meaning, lambda: runs[0]),
                          runs)
    speed = pattern.size / MiB
    values = {
        "MiB/s ": speed / row.values["median s"],
        "slowest MiB/s": speed / row.values["max s"],
        "fastest MiB/s": speed / row.values["min s"],
        **{name: row.values[name]
           for name in ("ratio", "ratio 25%", "ratio 75%")},
        "CPU-s a GiB": more.values["CPU s"] / pattern.size * GiB,
        "stored MiB": more.values["storage MiB"]}
    return dataclasses.replace(row, values=values)


def _together(found: Mapping[Pattern, Sequence[Row]]) -> Result:
    """Say once more how they compare: all patterns, in one picture."""
    rows = []
    for each in zip(*found.values(), strict=True):
        named = dict(zip((pattern.name for pattern in found), each,
                         strict=True))
        rows.append(Row(
            each[0].name, each[0].meaning,
            {name: row.values["ratio"] for name, row in named.items()},
            spread={name: (row.values["ratio 25%"], row.values["ratio 75%"])
                    for name, row in named.items()}))
    return Result(
        "Guest reads: how many times as long as from a raw disk", rows,
        chart=Chart("guest-reads", "time to read, raw disk = 1", {
            "direct": "in order", "cached": "in order, in page cache",
            "random": "4 KiB at random",
            "slow": f"in order, storage of {SLOW // MiB} MiB/s"}))


def pages(raw: pathlib.Path) -> list[int]:
    """Return the offsets of all 4 KiB of a raw image that are data."""
    return [offset for offset, _ in _pieces(_extents(raw), 4 * KiB)]


def _extents(raw: pathlib.Path) -> Iterator[Read]:
    """Yield where a raw image has data."""
    found = json.loads(subprocess.run(
        ["qemu-img", "map", "-f", "raw", "--output=json", raw], check=True,
        stdout=subprocess.PIPE).stdout)
    return ((each["start"], each["length"]) for each in found if each["data"])


def _pieces(extents: Iterable[Read], size: int) -> Iterator[Read]:
    for start, length in extents:
        for offset in range(start, start + length, size):
            yield offset, min(size, start + length - offset)


def _first(reads: Iterable[Read], size: int) -> Iterator[Read]:
    for offset, length in reads:
        if size <= 0:
            return
        yield offset, length
        size -= length
