# SPDX-License-Identifier: Apache-2.0
"""A directory for one run, and the images that benchmarks need in it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping

from oslo_config import cfg

from benchmarks import nova
from imagecache import opts
from imagecache.model import GiB, MiB

# Of the largest benchmark, with room for the file system's own data.
_NEEDED = 14 * GiB
_USR = tuple(pathlib.Path("/usr") / each
             for each in ("bin", "lib", "sbin", "share"))
_UUID = "6d0c5d5e-2f5a-4c1b-9a52-0d6f3c1e7b42"


class Scratch(contextlib.ExitStack):
    """A directory that is removed, with all that runs in it, at the end.

    :param parent: the directory is made in it; its file system is measured
    """

    def __init__(self, parent: pathlib.Path) -> None:
        super().__init__()
        free = shutil.disk_usage(parent).free
        if free < _NEEDED:
            raise SystemExit(
                f"{parent} has {free // GiB} GiB free, and {_NEEDED // GiB}"
                " GiB are needed; choose another with --directory")
        self.root = pathlib.Path(self.enter_context(
            tempfile.TemporaryDirectory(prefix="imagecache-bench-",
                                        dir=parent)))
        self._numbers = itertools.count()

    def new(self, name: str) -> pathlib.Path:
        """Return a new path."""
        return self.root / f"{name}-{next(self._numbers)}"

    def directory(self, name: str) -> pathlib.Path:
        """Return a new directory."""
        path = self.new(name)
        path.mkdir()
        return path

    @functools.cached_property
    def image(self) -> CloudImage:
        """A small cloud image: mostly holes."""
        return make_image(self.directory("image"), 2 * GiB, 256 * MiB)

    @functools.cached_property
    def nova(self) -> nova.Nova:
        """Nova, running."""
        return self.enter_context(nova.Nova(self.directory("nova")))


def configuration(instances: pathlib.Path,
                  **groups: Mapping[str, object]) -> cfg.ConfigOpts:
    """Return the defaults, with instances_path and options of groups."""
    conf = cfg.ConfigOpts()
    opts.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override("instances_path", str(instances))
    for group, options in groups.items():
        for name, value in options.items():
            conf.set_override(name, value,
                              None if group == "DEFAULT" else group)
    return conf


def command(*words: str | os.PathLike[str]) -> str:
    """Run a program; return its output."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return subprocess.run(words, check=True, text=True,
                          stdout=subprocess.PIPE,
                          env=os.environ | {"PATH": path}).stdout.strip()


@dataclasses.dataclass(frozen=True)
class CloudImage:
    """One content in three files."""

    compressed: pathlib.Path
    plain: pathlib.Path
    raw: pathlib.Path
    size: int        # bytes a guest sees
    data: int        # bytes of files in it
    files: int

    def of(self, kind: str) -> pathlib.Path:
        return {"compressed": self.compressed, "plain": self.plain,
                "raw": self.raw}[kind]

    def describe(self) -> str:
        compressed, plain, raw = (self.of(kind).stat() for kind in KINDS)
        return (f"The image is one ext4 of {self.size // MiB} MiB without"
                f" partitions, with {self.files} files of {self.data // MiB}"
                f" MiB from this machine's /usr; as compressed qcow2 it has"
                f" {compressed.st_size // MiB} MiB, as plain qcow2"
                f" {plain.st_size // MiB}, as raw {raw.st_size // MiB}, of"
                f" which {raw.st_blocks * 512 // MiB} are not holes.")


KINDS = ("compressed", "plain", "raw")


def make_image(directory: pathlib.Path, size: int, data: int,
               sources: Iterable[pathlib.Path] = _USR) -> CloudImage:
    """Make an image of a real system's files: one ext4, without partitions.

    :param size: bytes a guest sees
    :param data: bytes of the files in it
    :param sources: directories the files are from
    """
    tree = directory / "tree"
    compressed, plain, raw = (directory / name for name in (
        "image.qcow2", "plain.qcow2", "image.raw"))
    sizes = dict(_sample(sources, data))
    for path in sizes:
        copy = tree / path.relative_to(path.anchor)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    command("truncate", "--size", str(size), raw)
    command("mkfs.ext4", "-q", "-F", "-U", _UUID, "-d", tree,
            "-E", f"hash_seed={_UUID},root_owner=0:0", raw)
    shutil.rmtree(tree)
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2")
    command(*convert, raw, plain)
    command(*convert, "-c", "-W", raw, compressed)
    return CloudImage(compressed, plain, raw, size, sum(sizes.values()),
                      len(sizes))


def _sample(sources: Iterable[pathlib.Path],
            data: int) -> Iterator[tuple[pathlib.Path, int]]:
    """Yield files of ``data`` bytes, with their sizes: a mixture.

    The order is that of a hash of their names, so that one system has one
    sample.  A file of more than a sixteenth is left out.
    """
    files = (pathlib.Path(parent, name) for source in sources
             for parent, _, names in os.walk(source) for name in names)
    found = ((hashlib.sha256(str(path).encode()).digest(), path,
              path.stat().st_size) for path in files
             if path.is_file() and not path.is_symlink()
             and os.access(path, os.R_OK))
    for _, path, size in sorted(
            each for each in found if each[2] <= data // 16):
        if size > data:
            return
        data -= size
        yield path, size
