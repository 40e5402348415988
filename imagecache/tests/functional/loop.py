# SPDX-License-Identifier: Apache-2.0
"""File systems on loop devices; needs root or sudo."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Sequence

import fixtures

from imagecache.model import MiB

# The minimum of XFS is 300 MB.
SIZE = 512 * MiB

MKFS = {
    "btrfs": ("mkfs.btrfs", "-q"),
    "ext3": ("mkfs.ext3", "-q", "-F"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
}


class LoopFilesystem(fixtures.Fixture):
    """A new file system, mounted on ``path`` while the fixture lasts."""

    def __init__(self, kind: str, size: int = SIZE,
                 place: pathlib.Path | None = None,
                 options: Sequence[str] = ()) -> None:
        """Describe a file system; setUp() makes it.

        :param place: the directory of the file behind the device
        :param options: of the program that makes the file system
        """
        super().__init__()
        self.kind = kind
        self.size = size
        self._place = place
        self._options = options

    def _setUp(self) -> None:
        root = self._place or pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        image = root / "image"
        self.path = root / "mounted"
        self.path.mkdir()
        image.touch()
        os.truncate(image, self.size)
        _run(*MKFS[self.kind], *self._options, str(image))
        # mount(8) makes the kernel free the loop device at the unmount, so
        # only the mount must be undone.
        run_as_root("mount", "-t", self.kind, "-o", "loop",
                     str(image), str(self.path))
        self.addCleanup(self._unmount)
        run_as_root("chown", f"{os.getuid()}:{os.getgid()}", str(self.path))

    def _unmount(self) -> None:
        try:
            run_as_root("umount", str(self.path))
        except subprocess.CalledProcessError:
            # A failed test may have left a file open.
            run_as_root("umount", "--lazy", str(self.path))
            raise


def run_as_root(*command: str) -> None:
    _run(*(() if os.geteuid() == 0 else ("sudo", "-n")), *command)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as e:
        e.add_note(e.stdout)
        raise
