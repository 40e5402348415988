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
from benchmarks.harness import RATIOS, Bar, MiB, Result, Run, Subject
from benchmarks.scratch import Scratch, command, configuration
from imagecache import imagebackend
from imagecache.model import GiB

SIZE = 20 * GiB     # of each disk: more than its image's
WARM_ROUNDS = 150
COLD_ROUNDS = 6
# nova-compute holds 145 MiB once it has imported its libvirt driver, and this
# process 50 MiB.
AGENT = 95 * MiB


class Makers:
    """All make the same Qcow2 disk: of one image, of one size.

    :param cold: both caches are emptied before each disk
    """

    def __init__(self, scratch: Scratch, cold: bool = False) -> None:
        self._scratch, self._cold = scratch, cold
        self._image = scratch.image.compressed
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
            instance, str(self._image), size=SIZE))

    def _image_backend(self, instance: str) -> Run:
        # The driver makes an instance's directory, nova's as well.
        (self._instances / instance).mkdir()
        return harness.measure(lambda: self._backend.by_name(
            {"uuid": instance}, "disk", "qcow2").cache(
                _fetch, self._base, size=SIZE, context=None,
                image_id=self._image))

    def _nova(self, instance: str) -> Run:
        return self._scratch.nova.create_disk(
            instance, self._image, self._base, "qcow2", SIZE)


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
    makers = Makers(scratch)
    # Fills the cache; nova's is filled by the round of practice.
    base = makers.cache.fetch(str(scratch.image.compressed)).path
    create = _bare(
        scratch, "qemu-img create",
        "qemu-img create -f qcow2 -F raw -b BASE, nothing else",
        lambda disk: command("qemu-img", "create", "-f", "qcow2", "-F", "raw",
                             "-b", base, disk, str(SIZE)))
    subjects = [create, *makers.subjects()]
    yield _warm("Warm Qcow2 disk", subjects)
    with held(AGENT):
        yield _warm("The same in a process as large as an agent", subjects)


def _warm(title: str, subjects: list[Subject]) -> Result:
    rows = harness.compare(
        subjects, WARM_ROUNDS, ("min ms", "median ms", "max ms", *RATIOS,
                                "ratio min", "processes started"),
        "ms", practice=1)
    return Result(f"{title}, {WARM_ROUNDS} rounds", rows, [
        Bar(f"{title}, {row.name}: {name}", row.values[value], most)
        for row in rows[1:3] for name, value, most in (
            ("processes", "processes started", 1),
            ("its time, in that of a bare create", "ratio min", 1.3))])


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
            [convert, *Makers(scratch, cold=True).subjects()],
            COLD_ROUNDS, ("min s", "median s", "max s", *RATIOS,
                          "processes started")), notes=[
            "The image is a compressed qcow2 file in the page cache."
            "  ImageCache computes its sha256; imagebackend fetches it as"
            " nova does here.", scratch.image.describe()])
