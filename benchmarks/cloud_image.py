# SPDX-License-Identifier: Apache-2.0
"""An image as clouds have them, made of what a real system holds.

One ext4 over the whole disk, without partitions, filled with a sample of this
machine's own programs, libraries and documents; then the same three times:
raw, as qcow2, and as compressed qcow2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator

from imagecache.model import MiB

SOURCES = tuple(pathlib.Path("/usr") / each
                for each in ("bin", "lib", "sbin", "share"))

_UUID = "6d0c5d5e-2f5a-4c1b-9a52-0d6f3c1e7b42"

KINDS = ("compressed", "plain", "raw")


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
        found: pathlib.Path = getattr(self, kind)
        return found

    def describe(self) -> str:
        return (f"The image is one ext4 of {self.size // MiB} MiB without"
                f" partitions, with {self.files} files of {self.data // MiB}"
                f" MiB from this machine's /usr; as compressed qcow2 it has"
                f" {_whole(self.compressed)} MiB, as plain qcow2"
                f" {_whole(self.plain)}, as raw {_whole(self.raw)}, of which"
                f" {self.raw.stat().st_blocks * 512 // MiB} are not holes.")


def make(directory: pathlib.Path, size: int, data: int,
         sources: Iterable[pathlib.Path] = SOURCES) -> CloudImage:
    """Make the image in a directory.

    :param size: bytes a guest sees
    :param data: bytes of the files in it
    :param sources: where they are from
    """
    tree, raw = directory / "tree", directory / "image.raw"
    files = list(sample(sources, data))
    for path in files:
        copy = tree / path.relative_to(path.anchor)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    with raw.open("wb") as f:
        f.truncate(size)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-U", _UUID, "-d", tree,
         "-E", f"hash_seed={_UUID},root_owner=0:0", raw],
        check=True, env=os.environ | {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"})
    shutil.rmtree(tree)
    plain, compressed = directory / "plain.qcow2", directory / "image.qcow2"
    _convert(raw, plain)
    _convert(raw, compressed, "-c", "-W")
    return CloudImage(compressed, plain, raw, size,
                      sum(path.stat().st_size for path in files), len(files))


def sample(sources: Iterable[pathlib.Path],
           data: int) -> Iterator[pathlib.Path]:
    """Yield files of ``data`` bytes: the same of the same system, any time.

    Their order is that of a hash of their names, so that they are a mixture.
    None is large enough to be most of it.
    """
    found = ((hashlib.sha256(str(path).encode()).digest(), path, size)
             for source in sources for path, size in _files(source)
             if size <= data // 16)
    for _, path, size in sorted(found):
        if size > data:
            return
        data -= size
        yield path


def _files(directory: pathlib.Path) -> Iterator[tuple[pathlib.Path, int]]:
    for parent, _, names in os.walk(directory):
        for name in names:
            path = pathlib.Path(parent, name)
            if path.is_file() and not path.is_symlink() \
                    and os.access(path, os.R_OK):
                yield path, path.stat().st_size


def _convert(raw: pathlib.Path, output: pathlib.Path, *flags: str) -> None:
    subprocess.run(["qemu-img", "convert", *flags, "-f", "raw",
                    "-O", "qcow2", raw, output], check=True)


def _whole(path: pathlib.Path) -> int:
    return path.stat().st_size // MiB
