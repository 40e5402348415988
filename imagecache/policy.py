# SPDX-License-Identifier: Apache-2.0
"""Every decision the configuration can take, read once, then frozen."""

from __future__ import annotations

import dataclasses
import pathlib

from imagecache.model import NATIVE, Format, GiB, KiB, Limits, Sandbox

# Reading headers needs little.  2 GiB is what nova came to, after 1 GiB
# turned out to be too little for some images it should accept.
INSPECTION = Limits(
    address_space=2 * GiB, cpu_time=30, wall_clock=60,
    sandbox=Sandbox.AVAILABLE, options={
        "address_space": "[libvirt] images_address_space_limit",
        "cpu_time": "[libvirt] images_cpu_time_limit",
        "wall_clock": "[image_cache] inspection_timeout"})
# Checking a file system of 1 TiB took 1 GiB and a minute.
CONVERSION = Limits(
    address_space=4 * GiB, cpu_time=3600, wall_clock=3600,
    sandbox=Sandbox.AVAILABLE, options={
        "address_space": "[image_cache] conversion_address_space_limit",
        "cpu_time": "[image_cache] conversion_cpu_time_limit",
        "wall_clock": "[image_cache] conversion_timeout"})


@dataclasses.dataclass(frozen=True)
class LvmPolicy:
    """Where disks are that are logical volumes, and what becomes of them."""

    volume_group: str | None = None
    thin_pool: str | None = None    # disks are snapshots in this thin pool
    sparse: bool = False            # or else they have a pool each
    clear: str = "zero"             # a removed volume: zero, shred or none
    clear_size: int = 0             # bytes of it, from its start; 0: all
    pool_warning: int = 80          # per cent of a pool: tell somebody
    pool_limit: int = 95            # make no more


@dataclasses.dataclass(frozen=True)
class RbdPolicy:
    """Where disks are that are in Ceph, and how they get there."""

    pool: str = "rbd"
    conf: str = ""                  # path of ceph.conf; "": Ceph looks for it
    user: str | None = None         # without "client."
    secret: str | None = None       # the uuid of the user's key in libvirt
    connect_timeout: int = 5        # seconds
    timeout: int = 60               # seconds, of one operation
    base_pool: str = "rbd"          # bases are here
    flatten: bool = False           # disks do not stay clones
    retries: int = 12               # of removing a disk that is in use
    retry_interval: int = 5         # seconds
    glance_store: str = ""          # Glance's in this cluster; "": none
    glance_copy_poll_interval: int = 15   # seconds
    glance_copy_timeout: int = 600        # seconds
    never_download: bool = False    # an image that Glance has not there


@dataclasses.dataclass(frozen=True)
class Policy:
    """The defaults are those of the options; see imagecache.opts."""

    instances: pathlib.Path
    base_subdirectory: str = "_base"
    lock_directory: pathlib.Path | None = None   # None: beside the bases
    lock_prefix: str = "imagecache-"

    images_type: str = "default"
    use_cow: bool = True
    force_raw: bool = True
    preallocate: bool = False
    resize_fs_using_block_device: bool = False
    resized_bases: bool = False      # one for each size of disks
    compress_snapshots: bool = False
    ephemeral_format: str = "ext4"
    discard: str | None = None         # libvirt's word for the guest's trims
    virt_type: str = "kvm"
    root_helper: str = "sudo"          # runs what only root may; not a shell

    accepted: frozenset[Format] = frozenset(NATIVE)   # of images
    max_image_size: int | None = None     # bytes that may be downloaded
    max_virtual_size: int | None = None   # bytes a base may have
    retries: int = 3                      # of a broken download, in a row
    min_rate: int = 8 * KiB               # bytes a second; less is no download
    allow_md5: bool = False               # as an image's only digest
    verify_signatures: bool = False       # of images in Glance
    validate_certificates: bool = False   # of those who signed them
    trusted_certificates: tuple[str, ...] = ()    # ids, where none are given
    inspection: Limits = INSPECTION       # of whatever only reads headers
    conversion: Limits = CONVERSION       # of whatever copies a whole disk
    rbd: RbdPolicy = RbdPolicy()
    lvm: LvmPolicy = LvmPolicy()

    def for_image(self, format: Format, limits: Limits) -> Limits:
        """The limits of a program that reads an image of this format.

        qemu's parsers of foreign formats run in a sandbox or not at all.
        """
        if format in NATIVE:
            return limits
        return dataclasses.replace(limits, sandbox=Sandbox.REQUIRED)

    @property
    def bases(self) -> pathlib.Path:
        return self.instances / self.base_subdirectory

    @property
    def locks(self) -> pathlib.Path:
        return self.lock_directory or self.instances / "locks"
