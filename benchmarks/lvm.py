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
from imagecache.model import GiB, KiB, MiB
from imagecache.tools.lvm import VolumeGroup

# A compressed image takes a third of what is in it, as those of clouds do.
IMAGE_SIZE = GiB
UNPACKED_SIZE = 3 * GiB
POOL_SIZE = 7 * GiB
METADATA_SIZE = 64 * MiB
ROUNDS = 5

_GROUP = VolumeGroup("imagecache-bench")
_POOL = "pool"
_TAKES = "MiB taken"


def results(scratch: Scratch) -> Iterator[Result]:
    if "GUEST_DISK" not in os.environ:
        raise SystemExit("This takes a whole disk of 12 GiB: tools/in-guest"
                         " -d 12G ... -m benchmarks lvm --directory /scratch")
    raw, packed = scratch.root / "image.raw", scratch.root / "image.qcow2"
    with _volume_group(os.environ["GUEST_DISK"]):
        _write(raw, UNPACKED_SIZE)
        command("qemu-img", "convert", "-c", "-W", "-f", "raw", "-O", "qcow2",
                raw, packed)
        yield _packed(scratch, packed)
        packed.unlink()
        _write(raw, IMAGE_SIZE)
        rows, _ = _race(scratch, raw, "raw")
        yield Result(f"The same of a raw image of {_gib(raw)}, all data", rows)


def _packed(scratch: Scratch, image: pathlib.Path) -> Result:
    rows, took = _race(scratch, image, "qcow2")
    return Result(
        f"Second disk of a compressed image of {_gib(image)}, with"
        f" {UNPACKED_SIZE // GiB} GiB in it, {ROUNDS} rounds", rows, [
            Bar("second thin disk: its time, in that of a thick one",
                rows[1].values["ratio"], 1 / 20),
            Bar("second thin disk: its space, in that of the image",
                took[1] * MiB / image.stat().st_size, 1 / 100)],
        ["Nearly all of a thin disk's time is one start of lvcreate, and a"
         " program takes longer to start under the kernel of tools/in-guest"
         " than under others.  What is written there goes to memory."])


def _race(scratch: Scratch, image: pathlib.Path, disk_format: str
          ) -> tuple[list[Row], list[float]]:
    """Return a row for each kind of disk, and the MiB that one took."""
    subjects = [
        Subject("thick", "the base is copied into a new volume",
                _disk(scratch, image, disk_format, None)),
        Subject("thin", "the new volume is a snapshot of the base",
                _disk(scratch, image, disk_format, _POOL))]
    runs = timing.race(subjects, ROUNDS)
    rows = timing.compare(subjects, runs)
    took = [max(run.measured[_TAKES] for run in each) for each in runs]
    return [dataclasses.replace(row, values={**row.values, _TAKES: most})
            for row, most in zip(rows, took, strict=True)], took


def _disk(scratch: Scratch, image: pathlib.Path, disk_format: str,
          pool: str | None) -> Callable[[], Run]:
    conf = configuration(scratch.directory("instances"))
    conf.set_override("images_type", "lvm", "libvirt")
    conf.set_override("images_volume_group", _GROUP.name, "libvirt")
    conf.set_override("volume_clear", "none", "libvirt")
    conf.set_override("lvm_thin_pool", pool, "image_cache")
    cache = imagecache.ImageCache(conf)

    def make() -> Run:
        cache.fetch(str(image), disk_format=disk_format)    # but once
        before, instance = _taken(), str(uuid.uuid4())
        run = timing.measure(lambda: cache.create_disk(
            instance, str(image), disk_format=disk_format))
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


def _write(path: pathlib.Path, size: int) -> None:
    """Write data that compresses to a third."""
    chance = random.Random(0)
    chunk = b"".join(chance.randbytes(21 * KiB) + bytes([65 + i]) * 43 * KiB
                     for i in range(MiB // (64 * KiB)))
    with path.open("wb") as f:
        for _ in range(size // MiB):
            f.write(chunk)


def _gib(path: pathlib.Path) -> str:
    return f"{path.stat().st_size / GiB:.2f} GiB"
