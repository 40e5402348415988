# SPDX-License-Identifier: Apache-2.0
"""A volume group on the scratch disk, made once for all tests of a run."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from typing import ClassVar

from imagecache import fixture
from imagecache.backends.lvm.volumes import notes
from imagecache.model import GiB, KiB, MiB
from imagecache.testing import conformance, images
from imagecache.testing.conformance import INSTANCE
from imagecache.tests.guest import base

GROUP = "vg"
POOL = "pool"
EXTENT = 256 * KiB      # small, as the disks of the tests are
POOL_SIZE = 512 * MiB
# The first extents of the group, which the tests use; they begin as zeros.
USED = GiB


class VolumeGroupMixin:
    """A volume group that is empty before each test, but for a thin pool.

    :cvar pool: the name of the thin pool; None: the class has none
    """

    pool: ClassVar[str | None] = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        make_group()
        cls.addClassCleanup(empty, None)
        empty(None)
        if cls.pool is None:
            run("blkdiscard", "--zeroout", "--offset", MiB, "--length", USED,
                base.scratch_disk())
        else:
            run("lvcreate", "--quiet", "--yes", "--type", "thin-pool",
                "--size", f"{POOL_SIZE}b", "--poolmetadatasize",
                f"{4 * MiB}b", "--name", cls.pool, GROUP)

    def configure(self, images: fixture.ImageCacheFixture) -> None:
        """Have disks in the group, and programs outside of a sandbox.

        Under User-Mode Linux each start of a sandbox takes half a second.
        Tests of their own hold that disks are made in a sandbox.
        """
        self.addCleanup(empty, self.pool)
        images.config("libvirt", images_type="lvm",
                      images_volume_group=GROUP)
        images.config("image_cache", lvm_thin_pool=self.pool,
                      sandbox="never")


class LvmTestCase(VolumeGroupMixin, base.TestCase, conformance.DiskTestCase):
    """A cache whose disks are in the volume group, and an image."""

    image_type = "lvm"
    # ThickTest converts a qcow2 image; the bases of all are raw.
    image_format = "raw"

    def setUp(self) -> None:
        super().setUp()
        self.configure(self.images)

    def left(self) -> set[str]:
        files = super().left() - {str(
            notes(pathlib.Path("_base")) / f"{GROUP}.{self.pool}")}
        return files | opened() | {f"{GROUP}/{name}"
                                   for name in volumes() - {self.pool}}

    def is_of_a_base(self, name: str) -> bool:
        return name.startswith(("_base/", f"{GROUP}/base-"))

    def assert_made_in_a_sandbox(self) -> None:
        """Make a disk, grow it and copy its content, all in a sandbox."""
        self.images.config("image_cache", sandbox="required")
        self.image = self.images.add(images.qcow2(self.content), "qcow2")
        disk = self.make(2 * MiB)
        self.assertTrue(self.content == self.read(disk)[:len(self.content)])
        output = self.images.instances_path / "output"
        disk.extract(output, "raw")
        self.assertTrue(self.content
                        == output.read_bytes()[:len(self.content)])

    def assert_grown_file_system_mounts(self, kind: str) -> None:
        """Make a disk of a file system, three times as large; mount it."""
        file = self.images.instances_path / kind
        file.write_bytes(bytes(8 * MiB))
        run(f"mkfs.{kind}", "-q", "-F", file)
        run("debugfs", "-w", "-R", "write /etc/hostname name", file)
        image = self.images.add(file.read_bytes(), "raw")
        file.unlink()
        disk = self.cache.create_disk(INSTANCE, image, size=16 * MiB)
        self.assertEqual(16 * MiB, images.ext_size(disk.path))
        disk.grow(24 * MiB)
        self.assertEqual(24 * MiB, images.ext_size(disk.path))
        place = self.images.instances_path / "mounted"
        place.mkdir()
        run("mount", disk.path, place)
        try:
            self.assertEqual(pathlib.Path("/etc/hostname").read_text(),
                             (place / "name").read_text())
            self.assertLess(16 * MiB, os.statvfs(place).f_blocks
                            * os.statvfs(place).f_frsize)
        finally:
            run("umount", place)


def make_group() -> None:
    """Make the volume group unless an earlier class has made it."""
    disk = base.scratch_disk()
    if GROUP not in run("vgs", "--noheadings", "-o", "vg_name").split():
        run("pvcreate", "--quiet", "--yes", disk)
        run("vgcreate", "--quiet", "--physicalextentsize", f"{EXTENT}b",
            GROUP, disk)


def remake_group(extent: int) -> None:
    """Make the empty volume group again, with other extents."""
    run("vgremove", "--quiet", "--yes", GROUP)
    run("vgcreate", "--quiet", "--physicalextentsize", f"{extent}b",
        GROUP, base.scratch_disk())


def empty(pool: str | None) -> None:
    """Remove every volume but ``pool``; the next volume reads as zeros.

    What is open on a volume is closed first, as a test that failed may have
    left it open.
    """
    close_all()
    devices = list(pathlib.Path("/dev", GROUP).glob("*"))
    if devices and pool is None:
        # A thin volume may be larger than its pool, which zeroes by itself.
        thin = {line.split()[0] for line in run(
            "dmsetup", "ls", "--target", "thin").splitlines()}
        for device in devices:
            # device-mapper doubles the hyphens of a name.
            if f"{GROUP}-{device.name.replace('-', '--')}" not in thin:
                run("blkdiscard", "--zeroout", device)
    run("lvremove", "--quiet", "--yes", "--select", f'lv_name != "{pool}"',
        GROUP)


def volumes() -> set[str]:
    """Return the names of all volumes, thin pools included."""
    found = json.loads(run("lvs", "--reportformat", "json", "-o", "lv_name",
                           GROUP))
    return {each["lv_name"] for each in found["report"][0]["lv"]}


def opened() -> set[str]:
    """Return the paths of the devices that dm-crypt decrypts."""
    return {str(path) for path in pathlib.Path("/dev/mapper").glob(
        "*-dmcrypt")}


def close_all() -> None:
    """Close every device that dm-crypt decrypts."""
    for each in opened():
        run("cryptsetup", "close", each)


def run(*command: object) -> str:
    """Run a program and return its output.

    :raises CalledProcessError: it failed; its messages are added as a note
    """
    try:
        return subprocess.run(
            [str(word) for word in command], check=True, text=True,
            stdin=subprocess.DEVNULL, capture_output=True).stdout
    except subprocess.CalledProcessError as e:
        e.add_note(e.stdout + e.stderr)
        raise
