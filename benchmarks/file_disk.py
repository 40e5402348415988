# SPDX-License-Identifier: Apache-2.0
"""A disk that is a file: the first of its image, and one more.

Beside a bare qemu-img, and beside nova.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import imagecache
from benchmarks import harness
from benchmarks.harness import (
    RATIOS,
    Bar,
    MiB,
    Result,
    Row,
    Run,
    Subject,
    measure,
)
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
    """

    def __init__(self, scratch: Scratch, image_type: str) -> None:
        self._scratch = scratch
        self._type = image_type
        self._image = scratch.image.compressed
        self._instances = scratch.directory("imagecache")
        conf = configuration(self._instances)
        self._cache = imagecache.ImageCache(conf)
        self._backend = imagebackend.Backend(conf=conf)
        self._base = scratch.new("base").name

    def fetch(self) -> pathlib.Path:
        """Fill our cache, and return a base; nova's fills by its first run."""
        return self._cache.fetch(str(self._image)).path

    def image_cache(self) -> Run:
        instance = self._scratch.new("instance").name
        run = measure(functools.partial(
            self._cache.create_disk, instance, str(self._image),
            size=SIZE, image_type=self._type))
        shutil.rmtree(self._instances / instance)
        return run

    def image_backend(self) -> Run:
        # The driver makes an instance's directory, nova's as well.
        instance = self._scratch.new("instance").name
        (self._instances / instance).mkdir()
        run = measure(lambda: self._backend.by_name(
            {"uuid": instance}, "disk", self._type).cache(
                _fetch, self._base, size=SIZE, context=None,
                image_id=self._image))
        shutil.rmtree(self._instances / instance)
        return run

    def nova(self) -> Run:
        nova, instance = self._scratch.nova, self._scratch.new("instance").name
        run = nova.create_disk(instance, self._image, self._base, self._type,
                               SIZE)
        shutil.rmtree(nova.instances / instance)
        return run

    def forget(self) -> None:
        """Empty both caches."""
        for instances in self._instances, self._scratch.nova.instances:
            shutil.rmtree(instances / "_base", ignore_errors=True)


def _fetch(target: str, context: object, image_id: pathlib.Path) -> None:
    """Bring an image, just as nova_peer.py does."""
    with image_id.open("rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 64 * 1024)
        writer.flush()
        os.fsync(writer.fileno())


def warm(scratch: Scratch) -> Iterator[Result]:
    qcow2, raw = Makers(scratch, "qcow2"), Makers(scratch, "raw")
    create = functools.partial(_create, scratch, qcow2.fetch())
    copy = functools.partial(_copy, scratch, raw.fetch())
    bare = "qemu-img create -f qcow2 -F raw -b BASE, nothing else"
    rows = _race(qcow2, "qemu-img create", bare, create, QCOW2_ROUNDS)
    yield Result(f"Warm Qcow2 disk, {QCOW2_ROUNDS} rounds", rows,
                 _bars("warm Qcow2 disk", rows))
    with held(AGENT):
        rows = _race(qcow2, "qemu-img create", bare, create, QCOW2_ROUNDS)
        yield Result(
            f"The same in a process as large as an agent, {QCOW2_ROUNDS}"
            " rounds", rows, _bars("the same in an agent", rows),
            ["What is started by fork(), as nova's programs are, takes longer"
             " the more memory the process holds."])
        yield Result(f"Warm Raw disk, {RAW_ROUNDS} rounds", _race(
            raw, "cp and sync", "cp BASE, then sync of the copy", copy,
            RAW_ROUNDS))


def _race(makers: Makers, name: str, meaning: str, bare: Callable[[], Run],
          rounds: int) -> list[Row]:
    subjects = [
        Subject(name, meaning, bare),
        Subject("ImageCache",
                "ImageCache.create_disk: durable, on record, leased",
                makers.image_cache),
        Subject("imagebackend",
                "imagebackend by_name and cache, as a driver calls them",
                makers.image_backend),
        Subject("nova", "the same two calls of nova's own; it flushes nothing",
                makers.nova)]
    rows = harness.rows(subjects, harness.race(subjects, rounds), "ms")
    return [row.only("min ms", "median ms", "max ms", *RATIOS, "ratio min",
                     "processes started") for row in rows]


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


def _create(scratch: Scratch, base: pathlib.Path) -> Run:
    disk = scratch.new("disk")
    run = measure(lambda: command(
        "qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", base, disk,
        str(SIZE)))
    disk.unlink()
    return run


def _copy(scratch: Scratch, base: pathlib.Path) -> Run:
    disk = scratch.new("disk")
    run = measure(
        lambda: (command("cp", base, disk), command("sync", disk)))
    disk.unlink()
    return run


def cold(scratch: Scratch) -> Iterator[Result]:
    makers = Makers(scratch, "qcow2")

    def forgotten(make: Callable[[], Run]) -> Run:
        makers.forget()
        return make()

    subjects = [
        Subject("qemu-img convert",
                "qemu-img convert -O raw, then sync of the result",
                functools.partial(_convert, scratch)),
        Subject("ImageCache",
                "ImageCache.create_disk of the file, sha256 and all",
                functools.partial(forgotten, makers.image_cache)),
        Subject("imagebackend",
                "by_name and cache, fetching as nova does here",
                functools.partial(forgotten, makers.image_backend)),
        Subject("nova", "nova's own; its image service here checks no digest",
                functools.partial(forgotten, makers.nova))]
    rows = harness.rows(subjects, harness.race(subjects, COLD_ROUNDS,
                                               practice=0))
    yield Result(f"Cold Qcow2 disk, {COLD_ROUNDS} rounds", [
        row.only("min s", "median s", "max s", *RATIOS, "processes started")
        for row in rows], notes=[
            "The image is a compressed qcow2 file in the page cache.",
            scratch.image.describe()])


def _convert(scratch: Scratch) -> Run:
    output = scratch.new("converted")
    run = measure(lambda: (
        command("qemu-img", "convert", "-f", "qcow2", "-O", "raw",
                scratch.image.compressed, output), command("sync", output)))
    output.unlink()
    return run
