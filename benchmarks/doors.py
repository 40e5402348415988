# SPDX-License-Identifier: Apache-2.0
"""The ways to a disk that are compared.

Each makes one disk, by the clock, and then removes it without one.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import subprocess

import imagecache
from benchmarks import scratch as scratches
from benchmarks import timing
from benchmarks.timing import Run
from imagecache import imagebackend
from imagecache.model import GiB

SIZE = 20 * GiB     # of each disk: more than its image's


class Doors:
    """All make the same disk: of one image, of one size.

    :param image_type: ``qcow2`` or ``raw``
    """

    def __init__(self, scratch: scratches.Scratch, image_type: str) -> None:
        self._scratch = scratch
        self._type = image_type
        self._instances = scratch.directory("imagecache")
        conf = scratches.configuration(self._instances)
        self._cache = imagecache.ImageCache(conf)
        self._backend = imagebackend.Backend(conf=conf)
        self._base = scratch.new("base")

    def fetch(self) -> pathlib.Path:
        """Fill our cache, and return a base; nova's fills by its first run."""
        return self._cache.fetch(str(self._scratch.image)).path

    def image_cache(self) -> Run:
        instance = self._scratch.new("instance")
        try:
            return timing.measure(functools.partial(
                self._cache.create_disk, instance, str(self._scratch.image),
                size=SIZE, image_type=self._type))
        finally:
            shutil.rmtree(self._instances / instance, ignore_errors=True)

    def image_backend(self) -> Run:
        # The driver makes an instance's directory, nova's as well.
        directory = self._instances / self._scratch.new("instance")
        directory.mkdir()

        def make() -> None:
            self._backend.by_name(
                {"uuid": directory.name}, "disk", self._type).cache(
                    _fetch, self._base, size=SIZE, context=None,
                    image_id=self._scratch.image)

        try:
            return timing.measure(make)
        finally:
            shutil.rmtree(directory)

    def nova(self) -> Run:
        nova, instance = self._scratch.nova, self._scratch.new("instance")
        try:
            return nova.create_disk(
                instance, self._scratch.image, base=self._base,
                image_type=self._type, size=SIZE)
        finally:
            shutil.rmtree(nova.instances / instance, ignore_errors=True)

    def forget(self) -> None:
        """Empty both caches."""
        for instances in self._instances, self._scratch.nova.instances:
            if (instances / "_base").exists():
                shutil.rmtree(instances / "_base")


def command(*words: str | os.PathLike[str]) -> None:
    """Run a bare program, as cheaply as Python can start one."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def _fetch(target: str, context: object, image_id: pathlib.Path) -> None:
    """Bring an image, just as nova_peer.py does."""
    with image_id.open("rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 64 * 1024)
        writer.flush()
        os.fsync(writer.fileno())
