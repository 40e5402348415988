# SPDX-License-Identifier: Apache-2.0
"""A directory for one run, and what every benchmark needs in it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from oslo_config import cfg

from benchmarks import peer
from imagecache import opts
from imagecache.model import GiB, MiB

# As a small cloud image: mostly holes, and data that compresses to half.
IMAGE_SIZE = 2 * GiB
IMAGE_DATA = 256 * MiB

# Of the largest benchmark, with room for what a file system takes.
_NEEDED = 14 * GiB


class Scratch:
    """Gone, with all that runs or lies in it, when the block ends.

    :param parent: where the directory is made; its file system is what is
        measured
    """

    def __init__(self, parent: pathlib.Path) -> None:
        self._parent = parent
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> Scratch:
        free = shutil.disk_usage(self._parent).free
        if free < _NEEDED:
            raise SystemExit(
                f"{self._parent} has {free // GiB} GiB free, and"
                f" {_NEEDED // GiB} GiB are needed; choose another with"
                " --directory")
        self.root = pathlib.Path(self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="imagecache-bench-",
                                        dir=self._parent)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def directory(self, name: str) -> pathlib.Path:
        """Return a new directory."""
        path = self.root / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    def new(self, name: str) -> str:
        """Return a name that nothing else has."""
        return f"{name}-{next(self._numbers)}"

    @functools.cached_property
    def image(self) -> pathlib.Path:
        """A compressed qcow2 image, as clouds have them."""
        flat, image = self.root / "image.raw", self.root / "image.qcow2"
        try:
            _write_flat(flat)
            subprocess.run(["qemu-img", "convert", "-c", "-W", "-f", "raw",
                            "-O", "qcow2", flat, image], check=True)
        finally:
            flat.unlink(missing_ok=True)
        return image

    @functools.cached_property
    def nova(self) -> peer.Nova:
        """Nova, running."""
        return self._stack.enter_context(peer.Nova(
            self.directory("nova"), self.root / "nova.log"))

    @functools.cached_property
    def shares_blocks(self) -> bool:
        """Whether a copy on this file system can be a reflink."""
        one, other = self.root / "one", self.root / "other"
        one.write_bytes(bytes(MiB))
        return subprocess.run(
            ["cp", "--reflink=always", one, other], check=False,
            stderr=subprocess.DEVNULL).returncode == 0

    @property
    def file_system(self) -> str:
        return subprocess.run(
            ["df", "--output=fstype", self.root], check=True,
            stdout=subprocess.PIPE, text=True).stdout.split()[-1]


def configuration(instances: pathlib.Path) -> cfg.ConfigOpts:
    """All defaults, but for where the instances are."""
    conf = cfg.ConfigOpts()
    opts.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override("instances_path", str(instances))
    return conf


def _write_flat(path: pathlib.Path) -> None:
    with path.open("wb") as f:
        for offset, chunk in _data():
            f.seek(offset)
            f.write(chunk)
        f.truncate(IMAGE_SIZE)


def _data() -> Iterator[tuple[int, bytes]]:
    """Yield where data is and what: four bits of chance in each byte."""
    chance = random.Random(0)
    alphabet = bytes(each % 16 + 64 for each in range(256))
    stride = IMAGE_SIZE // (IMAGE_DATA // MiB)
    for offset in range(0, IMAGE_SIZE, stride):
        yield offset, chance.randbytes(MiB).translate(alphabet)
