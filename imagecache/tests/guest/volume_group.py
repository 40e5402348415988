# SPDX-License-Identifier: Apache-2.0
"""A volume group on the scratch disk, for as long as a class of tests runs."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from typing import Any, ClassVar

from imagecache import fixture
from imagecache.backends import Disk
from imagecache.backends.lvm.volumes import notes
from imagecache.image_cache import ImageCache
from imagecache.model import GiB, KiB, MiB
from imagecache.testing import conformance, images
from imagecache.testing.conformance import INSTANCE, SIZE
from imagecache.tests.guest import base

GROUP = "vg"
POOL = "pool"
EXTENT = 256 * KiB      # small, as the tests' disks are
POOL_SIZE = 512 * MiB


class VolumeGroupMixin:
    """One group for the class, empty but for a thin pool in each test."""

    pool: ClassVar[str | None] = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if "GUEST_DISK" not in os.environ:
            raise AssertionError(
                "this test changes devices: tools/in-guest runs it")
        # More than the tests of a class take, one after the other.
        run("blkdiscard", "--zeroout", "--length", str(GiB),
            os.environ["GUEST_DISK"])
        run("pvcreate", "--quiet", "--yes", os.environ["GUEST_DISK"])
        run("vgcreate", "--quiet", "--physicalextentsize", f"{EXTENT}b",
            GROUP, os.environ["GUEST_DISK"])
        if cls.pool:
            run("lvcreate", "--quiet", "--yes", "--type", "thin-pool",
                "--size", f"{POOL_SIZE}b", "--poolmetadatasize",
                f"{4 * MiB}b", "--name", cls.pool, GROUP)

    @classmethod
    def tearDownClass(cls) -> None:
        run("vgremove", "--quiet", "--yes", GROUP)
        run("pvremove", "--quiet", os.environ["GUEST_DISK"])
        super().tearDownClass()

    def configure(self, images: fixture.ImageCacheFixture) -> None:
        self.addCleanup(clear, self.pool)
        images.config("libvirt", images_type="lvm",
                      images_volume_group=GROUP)
        images.config("image_cache", lvm_thin_pool=self.pool)

    def assert_grown_file_system_mounts(self) -> None:
        """Make a disk of a file system, three times as large; mount it."""
        file = self.images.instances_path / "ext4"
        file.write_bytes(bytes(8 * MiB))
        run("mkfs.ext4", "-q", "-F", str(file))
        run("debugfs", "-w", "-R", "write /etc/hostname name", str(file))
        image = self.images.add(file.read_bytes(), "raw")
        file.unlink()
        disk = self.cache.create_disk(INSTANCE, image, size=16 * MiB)
        self.assertEqual(16 * MiB, images.ext_size(disk.path))
        disk.grow(24 * MiB)
        self.assertEqual(24 * MiB, images.ext_size(disk.path))
        place = self.images.instances_path / "mounted"
        place.mkdir()
        run("mount", str(disk.path), str(place))
        try:
            self.assertEqual(pathlib.Path("/etc/hostname").read_text(),
                             (place / "name").read_text())
            self.assertLess(16 * MiB, os.statvfs(place).f_blocks
                            * os.statvfs(place).f_frsize)
        finally:
            run("umount", str(place))


class LvmConformance(VolumeGroupMixin, conformance.DiskConformance):
    """What every backend promises, of disks in the volume group."""

    image_type = "lvm"

    def setUp(self) -> None:
        super().setUp()
        self.configure(self.images)

    def left(self) -> set[str]:
        files = super().left() - {str(
            notes(pathlib.Path("_base")) / f"{GROUP}.{self.pool}")}
        return files | {f"{GROUP}/{name}"
                        for name in volumes() - {self.pool}}

    def is_of_a_base(self, name: str) -> bool:
        return name.startswith(("_base/", f"{GROUP}/base-"))


class LvmTestCase(VolumeGroupMixin, base.TestCase):
    """A cache whose disks are in the volume group, and an image."""

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.configure(self.images)
        self.content = images.content(SIZE)
        self.image = self.images.add(images.qcow2(self.content), "qcow2")

    @property
    def cache(self) -> ImageCache:
        return self.images.cache

    def make(self, size: int | None = None, instance: str = INSTANCE,
             **options: Any) -> Disk:
        return self.cache.create_disk(instance, self.image, size=size,
                                      **options)

    def read(self, disk: Disk) -> bytes:
        return images.read(disk.path, disk.format)


def clear(pool: str | None) -> None:
    """Remove every volume but the pool; the next finds zeros."""
    left = volumes() - {pool}
    own = {name for name in left if name.startswith(".")
           and name.endswith("p")}
    if own:    # pools of sparse volumes, which go with them
        remove(own)
        left = volumes() - {pool}
    for name in left:
        device = pathlib.Path("/dev", GROUP, name)
        if pool is None and device.is_block_device():
            run("blkdiscard", "--zeroout", str(device))
    remove(left)


def remove(names: set[str]) -> None:
    if names:
        run("lvremove", "--quiet", "--yes",
            *(f"{GROUP}/{name}" for name in names))


def volumes() -> set[str]:
    """The names of the volumes there are, and of thin pools."""
    found = json.loads(run("lvs", "--reportformat", "json", "-o", "lv_name",
                           GROUP))
    return {each["lv_name"] for each in found["report"][0]["lv"]}


def run(*command: str) -> str:
    try:
        return subprocess.run(
            command, check=True, text=True, stdin=subprocess.DEVNULL,
            capture_output=True).stdout
    except subprocess.CalledProcessError as e:
        e.add_note(e.stderr)
        raise
