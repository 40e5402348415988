# SPDX-License-Identifier: Apache-2.0
"""One more disk of an image that is in the cache."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator

from benchmarks import ballast, timing
from benchmarks.doors import SIZE, Doors, command
from benchmarks.report import Bar, Result, Row
from benchmarks.scratch import Scratch
from benchmarks.timing import Run, Subject

QCOW2_ROUNDS = 150
RAW_ROUNDS = 6

_IMAGE_CACHE = "ImageCache.create_disk: durable, on record, leased"
_IMAGEBACKEND = "imagebackend by_name and cache, as a driver calls them"
_NOVA = "the same two calls of nova's own; it flushes nothing"


def results(scratch: Scratch) -> Iterator[Result]:
    yield qcow2(scratch)
    with ballast.held():
        yield agent(scratch)
        yield raw(scratch)


def qcow2(scratch: Scratch) -> Result:
    rows = _qcow2(scratch)
    return Result(f"Warm Qcow2 disk, {QCOW2_ROUNDS} rounds", rows,
                  _bars("warm Qcow2 disk", rows))


def agent(scratch: Scratch) -> Result:
    rows = _qcow2(scratch)
    return Result(
        f"The same in a process as large as an agent, {QCOW2_ROUNDS} rounds",
        rows, _bars("the same in an agent", rows),
        ["What is started by fork(), as nova's programs are, takes longer the"
         " more memory the process holds."])


def _bars(what: str, rows: list[Row]) -> list[Bar]:
    _, ours, shaped, _ = rows
    return [Bar(f"{what}, {row.name}: {name}", row.values[value], most)
            for row in (ours, shaped)
            for name, value, most in (
                ("processes", "processes started", 1),
                ("bare qemu-img creates in its time", "ratio", 2))]


def _qcow2(scratch: Scratch) -> list[Row]:
    doors = Doors(scratch, "qcow2")
    base = doors.fetch()
    return _rows([
        Subject("qemu-img create",
                "qemu-img create -f qcow2 -F raw -b BASE, nothing else",
                functools.partial(_create, base, scratch)),
        *_doors(doors)], QCOW2_ROUNDS)


def raw(scratch: Scratch) -> Result:
    doors = Doors(scratch, "raw")
    base = doors.fetch()
    rows = _rows([
        Subject("cp and sync", "cp BASE, then sync of the copy",
                functools.partial(_copy, base, scratch)),
        *_doors(doors)], RAW_ROUNDS)
    how = "shares blocks between files: copies are reflinks" \
        if scratch.shares_blocks else \
        "cannot share blocks between files: every copy writes its data"
    return Result(f"Warm Raw disk, {RAW_ROUNDS} rounds", rows, notes=[
        f"The file system here ({scratch.file_system}) {how}."])


def _rows(subjects: list[Subject], rounds: int) -> list[Row]:
    return timing.compare(subjects, timing.race(subjects, rounds))


def _doors(doors: Doors) -> list[Subject]:
    return [Subject("ImageCache", _IMAGE_CACHE, doors.image_cache),
            Subject("imagebackend", _IMAGEBACKEND, doors.image_backend),
            Subject("nova", _NOVA, doors.nova)]


def _create(base: pathlib.Path, scratch: Scratch) -> Run:
    disk = scratch.root / scratch.new("disk")
    try:
        return timing.measure(functools.partial(
            command, "qemu-img", "create", "-f", "qcow2", "-F", "raw",
            "-b", base, disk, str(SIZE)))
    finally:
        disk.unlink()


def _copy(base: pathlib.Path, scratch: Scratch) -> Run:
    disk = scratch.root / scratch.new("disk")

    def copy() -> None:
        command("cp", base, disk)
        command("sync", disk)

    try:
        return timing.measure(copy)
    finally:
        disk.unlink()
