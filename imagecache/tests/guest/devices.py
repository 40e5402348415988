# SPDX-License-Identifier: Apache-2.0
"""The network block devices of the guest, and what is left of their use."""

from __future__ import annotations

import pathlib
import re
import subprocess

from imagecache.tools import qemu_nbd


def in_use() -> list[str]:
    """Return the names of the devices that are connected."""
    return [each.name for each in qemu_nbd.devices()
            if each.size or each.owner is not None]


def leftovers() -> list[str]:
    """Return the programs that still run, and the sockets they left."""
    found = [str(path) for path in pathlib.Path("/scratch").glob(
        "imagecache-nbd.*")]
    found += [str(path) for path in pathlib.Path("/run/lock").glob(
        "qemu-nbd-*")]
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        try:
            if re.match("qemu|bwrap", comm.read_text()):
                found.append(comm.read_text().strip())
        except OSError:
            continue    # the process has just ended
    return found


def ext_size(path: pathlib.Path) -> int:
    """Mount an ext file system and return the size the kernel reports.

    It is a little less than the size in the superblock, because the kernel
    does not count the tables.
    """
    place = path.with_suffix(".mounted")
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop,ro", path, place)
    try:
        blocks, size = run("stat", "-f", "-c", "%b %S", place).split()
    finally:
        run("umount", place)
    return int(blocks) * int(size)


def run(*command: object) -> str:
    try:
        return subprocess.run(
            [str(word) for word in command], check=True, text=True,
            capture_output=True).stdout
    except subprocess.CalledProcessError as e:
        e.add_note(e.stdout + e.stderr)
        raise
