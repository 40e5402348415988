# SPDX-License-Identifier: Apache-2.0
"""A volume group on the scratch disk, for as long as a class of tests runs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import ClassVar

from imagecache.model import KiB, MiB
from imagecache.testing import conformance

GROUP = "vg"
POOL = "pool"
EXTENT = 256 * KiB      # small, as the tests' disks are
POOL_SIZE = 512 * MiB


class VolumeGroupMixin:
    """One group for the class, empty but for a thin pool in each test."""

    pool: ClassVar[str | None] = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()    # type: ignore[misc]
        if "GUEST_DISK" not in os.environ:
            raise AssertionError(
                "this test changes devices: tools/in-guest runs it")
        disk = os.environ["GUEST_DISK"]
        run("pvcreate", "--quiet", "--yes", disk)
        run("vgcreate", "--quiet", "--physicalextentsize", f"{EXTENT}b",
            GROUP, disk)
        if cls.pool:
            run("lvcreate", "--quiet", "--yes", "--type", "thin-pool",
                "--size", f"{POOL_SIZE}b", "--poolmetadatasize",
                f"{4 * MiB}b", "--name", cls.pool, GROUP)

    @classmethod
    def tearDownClass(cls) -> None:
        run("vgremove", "--quiet", "--yes", GROUP)
        run("pvremove", "--quiet", os.environ["GUEST_DISK"])
        super().tearDownClass()    # type: ignore[misc]

    def setUp(self) -> None:
        super().setUp()    # type: ignore[misc]
        self.addCleanup(self._clear)    # type: ignore[attr-defined]

    def _clear(self) -> None:
        """Remove every volume; the next test finds zeros."""
        left = volumes() - {self.pool}
        for name in left:
            if not self.pool and os.path.exists(f"/dev/{GROUP}/{name}"):
                run("blkdiscard", "--zeroout", f"/dev/{GROUP}/{name}")
        if left:
            run("lvremove", "--quiet", "--yes",
                *(f"{GROUP}/{name}" for name in left))


class LvmConformance(VolumeGroupMixin, conformance.DiskConformance):
    """What every backend promises, of disks in the volume group."""

    image_type = "lvm"

    def setUp(self) -> None:
        super().setUp()
        self.images.config("libvirt", images_volume_group=GROUP)
        self.images.config("image_cache", lvm_thin_pool=self.pool)

    def left(self) -> set[str]:
        return super().left() | {f"{GROUP}/{name}"
                                 for name in volumes() - {self.pool}}

    def is_of_a_base(self, name: str) -> bool:
        return name.startswith(("_base/", f"{GROUP}/base-"))


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
