# SPDX-License-Identifier: Apache-2.0
"""Disks that this host makes without an image: blank, swap, ephemeral.

The key holds everything that determines the content, so two templates share a
base only if they are the same.  Nova's cache manager knows the forms
``swap_<MiB>`` and ``ephemeral_<GiB>_<7 characters>``.
"""

from __future__ import annotations

import hashlib
import os
import pathlib

from imagecache.model import GiB, MiB
from imagecache.sources import Template
from imagecache.system import durable
from imagecache.tools import filesystem


def blank(size: int) -> Template:
    """Return a disk of ``size`` zero bytes."""
    def write(path: pathlib.Path) -> None:
        _make_room(path, size)

    return Template(f"blank_{size}", write, on_device=True, zeros=True)


def swap(size: int) -> Template:
    """Return swap space of ``size`` bytes, rounded up to MiB."""
    mib = -(-size // MiB)

    def write(path: pathlib.Path) -> None:
        _make_room(path, mib * MiB)
        filesystem.mkfs("swap", "swap", path)

    return Template(f"swap_{mib}", write, on_device=True)


def ephemeral(size: int, fs_type: str, label: str) -> Template:
    """Return an empty file system of ``size`` bytes.

    :raises InvalidDiskFormat: no such file system is known here
    :raises InvalidName: it cannot have this label
    """
    recipe = f"{filesystem.mkfs_command(fs_type, label)} {size}"
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:7]

    def write(path: pathlib.Path) -> None:
        _make_room(path, size)
        filesystem.mkfs(fs_type, label, path)

    return Template(f"ephemeral_{-(-size // GiB)}_{digest}", write,
                    on_device=True)


def _make_room(path: pathlib.Path, size: int) -> None:
    if path.is_block_device():    # its size is fixed
        return
    with durable.translated("making a template", path):
        path.touch()
        os.truncate(path, size)
