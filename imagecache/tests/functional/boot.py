# SPDX-License-Identifier: Apache-2.0
"""A guest that boots, and its report on the disk."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
import pathlib
import subprocess

import fixtures

from imagecache.model import Format, MiB

TOOLS = pathlib.Path(__file__).resolve().parents[3] / "tools"
TOKEN = "imagecache"    # in the image, so the guest can say whose disk it is


@dataclasses.dataclass(frozen=True)
class Report:
    """The report of a guest on the disk it booted from; sizes in bytes."""

    dev: str
    disk_bytes: int    # of the block device that holds the root file system
    fs_bytes: int      # of that file system, less its own records
    boots: int         # how often this disk was booted, as its files have it
    token: str


class BootImage(fixtures.Fixture):
    """An image with a Linux of its own, made once per machine.

    ``path`` is a qcow2 file of 3 MB; a guest sees ``size`` bytes.
    """

    size = 64 * MiB

    def _setUp(self) -> None:
        self._directory = _cache() / _recipe()
        self.path = self._directory / "boot.qcow2"
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)    # stestr runs tests at once
            if not self.path.exists():
                subprocess.run(
                    [TOOLS / "make-boot-image", self._directory,
                     str(self.size), TOKEN], check=True)

    def boot(self, disk: pathlib.Path, format: Format | str,
             *arguments: str) -> Report:
        """Boot a machine from ``disk`` and return the report of its guest.

        :param arguments: more arguments of qemu
        """
        done = subprocess.run(
            [TOOLS / "boot-disk", disk, format,
             "-kernel", self._directory / "vmlinuz",
             "-initrd", self._directory / "initrd",
             "-append", "console=ttyS0 panic=-1", *arguments],
            env=os.environ | {"TIMEOUT": "180"},    # of a busy machine
            stdout=subprocess.PIPE, text=True, check=False)
        *console, last = done.stdout.splitlines() or [""]
        if not last.startswith("BOOT-OK "):
            raise AssertionError("\n".join(
                [f"{disk} does not boot as {format}:", *console, last]))
        said = dict(word.split("=", 1) for word in last.split()[1:])
        return Report(said["dev"], int(said["disk_bytes"]),
                      int(said["fs_bytes"]), int(said["boots"]),
                      said["token"])


def _cache() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "imagecache"


def _recipe() -> str:
    """Return a name that depends on the programs that make the image."""
    digest = hashlib.sha256()
    for path in (TOOLS / "make-boot-image", TOOLS / "kernel/fetch.sh",
                 *sorted(TOOLS.glob("guest/*"))):
        digest.update(path.read_bytes())
    return f"guest-{digest.hexdigest()[:16]}"
