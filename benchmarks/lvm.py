# SPDX-License-Identifier: Apache-2.0
"""One more disk that is a logical volume: thin beside thick.

Takes the whole scratch disk of tools/in-guest.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import random
import uuid
from collections.abc import Iterator

import imagecache
from benchmarks import harness
from benchmarks.harness import RATIOS, Bar, Result, Row, Run, Subject
from benchmarks.scratch import Scratch, command, configuration
from imagecache.model import GiB, KiB, MiB
from imagecache.tools.lvm import VolumeGroup

UNPACKED_SIZE = 3 * GiB    # compressed it takes a third, as clouds' images do
RAW_SIZE = GiB
POOL_SIZE = 7 * GiB
METADATA_SIZE = 64 * MiB
ROUNDS = 5

_GROUP = VolumeGroup("imagecache-bench")
_POOL = "pool"


def results(scratch: Scratch) -> Iterator[Result]:
    if "GUEST_DISK" not in os.environ:
        raise SystemExit("This takes a whole disk of 12 GiB: tools/in-guest"
                         " -d 12G ... -m benchmarks lvm --directory /scratch")
    raw, packed = scratch.root / "image.raw", scratch.root / "image.qcow2"
    with _volume_group(os.environ["GUEST_DISK"]):
        _write(raw, UNPACKED_SIZE)
        command("qemu-img", "convert", "-c", "-W", "-f", "raw", "-O", "qcow2",
                raw, packed)
        size = packed.stat().st_size
        rows = _race(scratch, packed, "qcow2")
        yield Result(
            f"Second disk of a compressed image of {size / GiB:.2f} GiB, with"
            f" {UNPACKED_SIZE // GiB} GiB in it, {ROUNDS} rounds", rows, [
                Bar("second thin disk: its time, in that of a thick one",
                    rows[1].values["ratio"], 1 / 20),
                Bar("second thin disk: its space, in that of the image",
                    rows[1].values["MiB taken"] * MiB / size, 1 / 100)],
            ["A thin disk takes the time of one start of lvcreate, and a"
             " program takes longer to start under the kernel of"
             " tools/in-guest than under others.  Writes there go to memory."])
        packed.unlink()
        _write(raw, RAW_SIZE)
        yield Result(f"The same of a raw image of {RAW_SIZE // GiB} GiB, all"
                     " data", _race(scratch, raw, "raw"))


def _race(scratch: Scratch, image: pathlib.Path,
          disk_format: str) -> list[Row]:
    subjects = []
    for name, meaning, pool in (
            ("thick", "the base is copied into a new volume", None),
            ("thin", "the new volume is a snapshot of the base", _POOL)):
        cache = imagecache.ImageCache(configuration(
            scratch.directory("instances"),
            libvirt={"images_type": "lvm", "volume_clear": "none",
                     "images_volume_group": _GROUP.name},
            image_cache={"lvm_thin_pool": pool}))
        subjects.append(Subject(name, meaning, functools.partial(
            _disk, cache, image, disk_format)))
    rows = harness.compare(
        subjects, ROUNDS, ("min ms", "median ms", "max ms", *RATIOS,
                           "processes started", "MiB taken"), "ms", practice=1)
    return [row.only(*row.values, MiB_taken=row.spread["MiB taken"][1])
            for row in rows]


def _disk(cache: imagecache.ImageCache, image: pathlib.Path,
          disk_format: str) -> Run:
    cache.fetch(str(image), disk_format=disk_format)    # finds it, after one
    before, instance = _taken(), str(uuid.uuid4())
    run = harness.measure(lambda: cache.create_disk(
        instance, str(image), disk_format=disk_format))
    taken = _taken() - before
    cache.disk(instance).remove()
    return run.having(MiB_taken=taken / MiB)


def _taken() -> int:
    """Return the bytes that are taken of the group and of its pool."""
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
