# SPDX-License-Identifier: Apache-2.0
"""A disk that is a file: the first of its image, and one more.

Beside a bare qemu-img, and beside nova.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import imagecache
from benchmarks import harness
from benchmarks.harness import RATIOS, Bar, MiB, Result, Row, Run, Subject
from benchmarks.scratch import Scratch, command, configuration
from imagecache import imagebackend
from imagecache.model import GiB

SIZE = 20 * GiB     # of each disk: more than its image's
QCOW2_ROUNDS = 150
RAW_ROUNDS = 6
COLD_ROUNDS = 6
# nova-compute holds 145 MiB once it has imported its libvirt driver, and this
# process 50 MiB.
AGENT = 95 * MiB


class Makers:
    """All make the same disk: of one image, of one size.

    :param image_type: ``qcow2`` or ``raw``
    :param cold: both caches are emptied before each disk
    """

    def __init__(self, scratch: Scratch, image_type: str,
                 cold: bool = False) -> None:
        self._scratch, self._type, self._cold = scratch, image_type, cold
        self._instances = scratch.directory("imagecache")
        conf = configuration(self._instances)
        self.cache = imagecache.ImageCache(conf)
        self._backend = imagebackend.Backend(conf=conf)
        self._base = scratch.new("base").name

    def subjects(self) -> list[Subject]:
        return [
            Subject("ImageCache",
                    "ImageCache.create_disk: durable, on record, leased",
                    lambda: self._run(self._image_cache)),
            Subject("imagebackend",
                    "imagebackend by_name and cache, as a driver calls them",
                    lambda: self._run(self._image_backend)),
            Subject("nova", "the same two calls of nova's own; it flushes"
                    " nothing and checks no digest",
                    lambda: self._run(self._nova))]

    def _run(self, make: Callable[[str], Run]) -> Run:
        places = self._instances, self._scratch.nova.instances
        for place in places * self._cold:
            shutil.rmtree(place / "_base", ignore_errors=True)
        instance = self._scratch.new("instance").name
        run = make(instance)
        for place in places:
            if (place / instance).exists():
                shutil.rmtree(place / instance)
        return run

    def _image_cache(self, instance: str) -> Run:
        return harness.measure(lambda: self.cache.create_disk(
            instance, str(self._scratch.image.compressed), size=SIZE,
            image_type=self._type))

    def _image_backend(self, instance: str) -> Run:
        # The driver makes an instance's directory, nova's as well.
        (self._instances / instance).mkdir()
        return harness.measure(lambda: self._backend.by_name(
            {"uuid": instance}, "disk", self._type).cache(
                _fetch, self._base, size=SIZE, context=None,
                image_id=self._scratch.image.compressed))

    def _nova(self, instance: str) -> Run:
        return self._scratch.nova.create_disk(
            instance, self._scratch.image.compressed, self._base, self._type,
            SIZE)


def _fetch(target: str, context: object, image_id: pathlib.Path) -> None:
    """Copy an image, as the image service of benchmarks.nova does."""
    with image_id.open("rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 64 * 1024)
        writer.flush()
        os.fsync(writer.fileno())


def _bare(scratch: Scratch, name: str, meaning: str,
          make: Callable[[pathlib.Path], object]) -> Subject:
    """Return a subject that makes one file and removes it."""
    def run() -> Run:
        path = scratch.new("bare")
        found = harness.measure(lambda: make(path))
        path.unlink()
        return found

    return Subject(name, meaning, run)


def warm(scratch: Scratch) -> Iterator[Result]:
    qcow2, raw = Makers(scratch, "qcow2"), Makers(scratch, "raw")
    # Fills the cache; nova's is filled by the round of practice.
    base, raw_base = (each.cache.fetch(str(scratch.image.compressed)).path
                      for each in (qcow2, raw))
    create = _bare(
        scratch, "qemu-img create",
        "qemu-img create -f qcow2 -F raw -b BASE, nothing else",
        lambda disk: command("qemu-img", "create", "-f", "qcow2", "-F", "raw",
                             "-b", base, disk, str(SIZE)))
    copy = _bare(
        scratch, "cp and sync", "cp BASE, then sync of the copy",
        lambda disk: (command("cp", raw_base, disk), command("sync", disk)))
    rows = _warm_rows(create, qcow2, QCOW2_ROUNDS)
    yield Result(f"Warm Qcow2 disk, {QCOW2_ROUNDS} rounds", rows,
                 _bars("warm Qcow2 disk", rows))
    with held(AGENT):
        rows = _warm_rows(create, qcow2, QCOW2_ROUNDS)
        yield Result(
            f"The same in a process as large as an agent, {QCOW2_ROUNDS}"
            " rounds", rows, _bars("the same in an agent", rows),
            ["A program started by fork(), as nova's are, takes longer the"
             " more memory the process holds."])
        yield Result(f"Warm Raw disk, {RAW_ROUNDS} rounds",
                     _warm_rows(copy, raw, RAW_ROUNDS))


def _warm_rows(bare: Subject, makers: Makers, rounds: int) -> list[Row]:
    return harness.compare(
        [bare, *makers.subjects()], rounds,
        ("min ms", "median ms", "max ms", *RATIOS, "ratio min",
         "processes started"), "ms", practice=1)


def _bars(what: str, rows: list[Row]) -> list[Bar]:
    return [Bar(f"{what}, {row.name}: {name}", row.values[value], most)
            for row in rows[1:3]
            for name, value, most in (
                ("processes", "processes started", 1),
                ("its time, in that of a bare create", "ratio min", 1.3))]


@contextlib.contextmanager
def held(size: int) -> Iterator[None]:
    """Hold ``size`` bytes in small pages, as a heap is, during the block.

    fork() copies the page tables of the process: 100 MiB more cost several
    milliseconds.
    """
    with mmap.mmap(-1, size,
                   flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1
        yield


def cold(scratch: Scratch) -> Iterator[Result]:
    convert = _bare(
        scratch, "qemu-img convert",
        "qemu-img convert -O raw, then sync of the result",
        lambda path: (
            command("qemu-img", "convert", "-f", "qcow2", "-O", "raw",
                    scratch.image.compressed, path), command("sync", path)))
    yield Result(
        f"Cold Qcow2 disk, {COLD_ROUNDS} rounds", harness.compare(
            [convert, *Makers(scratch, "qcow2", cold=True).subjects()],
            COLD_ROUNDS, ("min s", "median s", "max s", *RATIOS,
                          "processes started")), notes=[
            "The image is a compressed qcow2 file in the page cache."
            "  ImageCache computes its sha256; imagebackend fetches it as"
            " nova does here.", scratch.image.describe()])
