# SPDX-License-Identifier: Apache-2.0
"""The memory that fetching an image takes, small or large."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.report import Bar, Result, Row
from benchmarks.scratch import Scratch
from imagecache.model import GiB, MiB

SIZES = (64 * MiB, 4 * GiB)

_READING = (
    "growth: the most the process held, less what it held before it began to"
    " fetch.  child: the most that a program it started held, which is"
    " qemu-img where there is something to convert.")


def results(scratch: Scratch) -> Iterator[Result]:
    rows = []
    with _server() as address:
        for size in SIZES:
            rows.append(_row(
                f"raw, {size // MiB} MiB",
                "from a web server, none of it zero: downloaded, written",
                size, _fetch(scratch, f"{address}/{size}.raw")))
    for size in SIZES:
        with _qcow2(scratch, size) as image:
            rows.append(_row(
                f"qcow2, {size // MiB} MiB",
                "a file, none of it zero: copied, converted by qemu-img",
                size, _fetch(scratch, str(image))))
    yield Result("Memory of a cold fetch", rows, [
        Bar("cold fetch: MiB that its process grows by",
            max(row.values["growth MiB"] for row in rows), 64),
        Bar("cold fetch: MiB with those of qemu-img",
            max(row.values["growth MiB"] + row.values["child MiB"]
                for row in rows), 64),
    ], [_READING])


def _row(name: str, meaning: str, size: int, found: dict[str, Any]) -> Row:
    return Row(name, meaning, {
        "before MiB": found["before"] / MiB,
        "peak MiB": found["peak"] / MiB,
        "growth MiB": (found["peak"] - found["before"]) / MiB,
        "child MiB": found["child"] / MiB,
        "took s": found["seconds"],
        "MiB/s ": size / MiB / found["seconds"],
    }, [found["seconds"]])


def _fetch(scratch: Scratch, image: str) -> dict[str, Any]:
    instances = scratch.directory("fetch")
    try:
        output = subprocess.run(
            [sys.executable, "-m", "benchmarks.fetch_once", instances, image],
            check=True, stdout=subprocess.PIPE).stdout
        found: dict[str, Any] = json.loads(output)
        return found
    finally:
        shutil.rmtree(instances)


@contextlib.contextmanager
def _server() -> Iterator[str]:
    with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"


@contextlib.contextmanager
def _qcow2(scratch: Scratch, size: int) -> Iterator[pathlib.Path]:
    """A qcow2 file full of data, none of it compressed."""
    image = scratch.root / scratch.new("full.qcow2")
    writes = [word for start in range(0, size, GiB) for word in
              ("-c", f"write -q -P 85 {start} {min(GiB, size - start)}")]
    try:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image,
                        str(size)], check=True)
        subprocess.run(["qemu-io", "-f", "qcow2", *writes, image], check=True)
        yield image
    finally:
        image.unlink(missing_ok=True)
