# SPDX-License-Identifier: Apache-2.0
"""A disk that is a file: the first of its image, and one more.

Beside a bare qemu-img, and beside nova.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import pathlib
import shutil
from collections.abc import Callable, Iterator

import imagecache
from benchmarks import harness, nova
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


def _subjects(scratch: Scratch, instances: pathlib.Path,
              cold: bool = False) -> list[Subject]:
    """Return three that make the same Qcow2 disk: of one image and size.

    :param cold: all caches are emptied before each disk
    """
    image, base = scratch.image.compressed, scratch.new("base").name
    conf = configuration(instances)
    cache = imagecache.ImageCache(conf)
    backend = imagebackend.Backend(conf=conf)
    places = instances, scratch.nova.instances

    def image_backend(instance: str) -> Run:
        # The driver makes an instance's directory, nova's as well.
        (instances / instance).mkdir()
        return harness.measure(lambda: backend.by_name(
            {"uuid": instance}, "disk", "qcow2").cache(
                nova.download, base, size=SIZE, context=None, image_id=image))

    def run(make: Callable[[str], Run]) -> Run:
        instance = scratch.new("instance").name
        for place in places * cold:
            shutil.rmtree(place / "_base", ignore_errors=True)
        found = make(instance)
        for path in [place / instance for place in places]:
            if path.exists():
                shutil.rmtree(path)
        return found

    return [Subject(name, meaning, functools.partial(run, make))
            for name, meaning, make in (
        ("ImageCache", "ImageCache.create_disk: durable, on record, leased",
         lambda instance: harness.measure(lambda: cache.create_disk(
             instance, str(image), size=SIZE))),
        ("imagebackend",
         "imagebackend by_name and cache, as a driver calls them",
         image_backend),
        ("nova", "the same two calls of nova's own; it flushes nothing and"
         " checks no digest", lambda instance: scratch.nova.create_disk(
             instance, image, base, "qcow2", SIZE)))]


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
    instances = scratch.directory("imagecache")
    # Fills the cache; nova's is filled by the round of practice.
    base = imagecache.ImageCache(configuration(instances)).fetch(
        str(scratch.image.compressed)).path
    create = _bare(
        scratch, "qemu-img create",
        "qemu-img create -f qcow2 -F raw -b BASE, nothing else",
        lambda disk: command("qemu-img", "create", "-f", "qcow2", "-F", "raw",
                             "-b", base, disk, str(SIZE)))
    subjects = [create, *_subjects(scratch, instances)]
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
    rows = harness.compare(
        [convert, *_subjects(scratch, scratch.directory("imagecache"), True)],
        COLD_ROUNDS,
        ("min s", "median s", "max s", *RATIOS, "processes started"))
    yield Result(f"Cold Qcow2 disk, {COLD_ROUNDS} rounds", rows, notes=[
        "The image is a compressed qcow2 file in the page cache.  ImageCache"
        " computes its sha256; imagebackend fetches it as nova does here.",
        scratch.image.describe()])
