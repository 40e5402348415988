# SPDX-License-Identifier: Apache-2.0
"""The first disk of an image: fetched, validated, converted, cached."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator

from benchmarks import timing
from benchmarks.doors import Doors, command
from benchmarks.report import Result
from benchmarks.scratch import IMAGE_DATA, IMAGE_SIZE, Scratch
from benchmarks.timing import Run, Subject
from imagecache.model import GiB, MiB

ROUNDS = 6


def results(scratch: Scratch) -> Iterator[Result]:
    size = scratch.image.stat().st_size    # made now, and not by the clock
    doors = Doors(scratch, "qcow2")
    subjects = [
        Subject("qemu-img convert",
                "qemu-img convert -O raw, then sync of the result",
                functools.partial(_convert, scratch)),
        Subject("ImageCache",
                "ImageCache.create_disk of the file, sha256 and all",
                functools.partial(_cold, doors, doors.image_cache)),
        Subject("imagebackend",
                "by_name and cache, fetching as nova does here",
                functools.partial(_cold, doors, doors.image_backend)),
        Subject("nova",
                "nova's own; its image service here checks no digest",
                functools.partial(_cold, doors, doors.nova)),
    ]
    runs = timing.race(subjects, ROUNDS, practice=0)
    yield Result(
        f"Cold Qcow2 disk, {ROUNDS} rounds",
        timing.compare(subjects, runs, "s"), notes=[
            f"The image is a compressed qcow2 file of {size // MiB} MiB, in"
            f" the page cache, with {IMAGE_DATA // MiB} MiB of data in"
            f" {IMAGE_SIZE // GiB} GiB."])


def _cold(doors: Doors, make: Callable[[], Run]) -> Run:
    doors.forget()
    return make()


def _convert(scratch: Scratch) -> Run:
    output = scratch.root / scratch.new("converted")

    def convert() -> None:
        command("qemu-img", "convert", "-f", "qcow2", "-O", "raw",
                scratch.image, output)
        command("sync", output)

    try:
        return timing.measure(convert)
    finally:
        os.unlink(output)
