# SPDX-License-Identifier: Apache-2.0
"""One more disk that is a logical volume: thin beside thick.

Takes the scratch disk of tools/in-guest, and all of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import random
import uuid
from collections.abc import Callable, Iterator

import imagecache
from benchmarks import timing
from benchmarks.doors import command
from benchmarks.report import Bar, Result, Row
from benchmarks.scratch import Scratch, configuration
from benchmarks.timing import Run, Subject
from imagecache.model import GiB, MiB
from imagecache.tools.lvm import VolumeGroup

IMAGE_SIZE = GiB
POOL_SIZE = 2 * GiB
METADATA_SIZE = 64 * MiB
ROUNDS = 3

_GROUP = VolumeGroup("imagecache-bench")
_POOL = "pool"
_TAKES = "MiB taken"


def results(scratch: Scratch) -> Iterator[Result]:
    if "GUEST_DISK" not in os.environ:
        raise SystemExit("This takes a whole disk: run it by tools/in-guest"
                         " --, with --directory /scratch")
    image = _image(scratch.root / "image.raw")
    with _volume_group(os.environ["GUEST_DISK"]):
        rows, took = _race(scratch, image, None)
        yield Result(
            f"Second disk of a raw image of {IMAGE_SIZE // GiB} GiB, all"
            f" data, {ROUNDS} rounds", rows, [
                Bar("second thin disk: its time, in that of a thick one",
                    rows[1].values["ratio"], 1 / 20),
                Bar("second thin disk: its space, in that of the image",
                    took[1] * MiB / IMAGE_SIZE, 1 / 100)],
            ["A program takes longer to start under this kernel than under"
             " others, and nearly all of a thin disk's time is one such"
             " start, of lvcreate."])
        rows, _ = _race(scratch, image, 2 * IMAGE_SIZE)
        yield Result("The same, and 1 GiB larger than the image", rows, notes=[
            "A thin disk takes three more of LVM's commands for that."])


def _race(scratch: Scratch, image: pathlib.Path,
          size: int | None) -> tuple[list[Row], list[float]]:
    """Return a row for each kind of disk, and the MiB that one took."""
    subjects = [
        Subject("thick", "the base is copied into a new volume",
                _disk(scratch, image, None, size)),
        Subject("thin", "the new volume is a snapshot of the base",
                _disk(scratch, image, _POOL, size))]
    runs = timing.race(subjects, ROUNDS)
    rows = timing.compare(subjects, runs)
    took = [max(run.measured[_TAKES] for run in each) for each in runs]
    return [dataclasses.replace(row, values={**row.values, _TAKES: most})
            for row, most in zip(rows, took, strict=True)], took


def _disk(scratch: Scratch, image: pathlib.Path,
          pool: str | None, size: int | None) -> Callable[[], Run]:
    conf = configuration(scratch.directory("instances"))
    conf.set_override("images_type", "lvm", "libvirt")
    conf.set_override("images_volume_group", _GROUP.name, "libvirt")
    conf.set_override("volume_clear", "none", "libvirt")
    conf.set_override("lvm_thin_pool", pool, "image_cache")
    cache = imagecache.ImageCache(conf)

    def make() -> Run:
        cache.fetch(str(image), disk_format="raw")    # but once
        before, instance = _taken(), str(uuid.uuid4())
        run = timing.measure(lambda: cache.create_disk(
            instance, str(image), size=size, disk_format="raw"))
        taken = (_taken() - before) / MiB
        cache.disk(instance).remove()
        return dataclasses.replace(run, measured={_TAKES: taken})

    return make


def _taken() -> int:
    """Return the bytes that are taken of the group and of the pool in it."""
    pool = _GROUP.pool(_POOL)
    return pool.size - pool.free - _GROUP.space()[0]


@contextlib.contextmanager
def _volume_group(device: str) -> Iterator[None]:
    command("pvcreate", "--quiet", "--yes", device)
    command("vgcreate", "--quiet", _GROUP.name, device)
    try:
        command("lvcreate", "--quiet", "--yes", "--type", "thin-pool",
                "--size", f"{POOL_SIZE}b", "--poolmetadatasize",
                f"{METADATA_SIZE}b", "--name", _POOL, _GROUP.name)
        yield
    finally:
        command("vgremove", "--quiet", "--yes", _GROUP.name)
        command("pvremove", "--quiet", device)


def _image(path: pathlib.Path) -> pathlib.Path:
    chunk = random.Random(0).randbytes(MiB)
    with path.open("wb") as f:
        for _ in range(IMAGE_SIZE // MiB):
            f.write(chunk)
    return path
