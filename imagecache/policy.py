# SPDX-License-Identifier: Apache-2.0
"""The settings of the library: read once, then frozen."""

from __future__ import annotations

import dataclasses
import pathlib

from imagecache.model import NATIVE, Format, GiB, KiB, Limits, Sandbox

# For reading headers.  nova allows 2 GiB, because 1 GiB was too little for
# some valid images.
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
    """The settings of disks that are logical volumes."""

    volume_group: str | None = None
    thin_pool: str | None = None    # disks are snapshots in this thin pool
    sparse: bool = False            # each disk has a thin pool of its own
    clear: str = "zero"             # a removed volume: zero, shred or none
    clear_size: int = 0             # bytes from the start to wipe; 0: all
    pool_warning: int = 80          # per cent of a pool: send an event
    pool_limit: int = 95            # per cent of a pool: refuse new disks


@dataclasses.dataclass(frozen=True)
class RbdPolicy:
    """The settings of disks in Ceph."""

    pool: str = "rbd"
    conf: str = ""                  # path of ceph.conf; "": Ceph looks for it
    user: str | None = None         # without "client."
    secret: str | None = None       # the uuid of the user's key in libvirt
    connect_timeout: int = 5        # seconds
    timeout: int = 60               # seconds, of one operation
    base_pool: str = "rbd"          # the pool of the bases
    flatten: bool = False           # copy the base's data into each disk
    retries: int = 12               # attempts to remove a disk in use
    retry_interval: int = 5         # seconds
    glance_store: str = ""          # Glance's store in this cluster
    glance_copy_poll_interval: int = 15   # seconds
    glance_copy_timeout: int = 600        # seconds
    never_download: bool = False    # refuse an image that cannot be cloned


@dataclasses.dataclass(frozen=True)
class Policy:
    """All settings.  The defaults equal those of imagecache.opts."""

    instances: pathlib.Path
    base_subdirectory: str = "_base"
    lock_directory: pathlib.Path | None = None   # None: beside the bases
    lock_prefix: str = "imagecache-"

    images_type: str = "default"
    use_cow: bool = True
    force_raw: bool = True
    preallocate: bool = False
    resize_fs_using_block_device: bool = False
    resized_bases: bool = False      # one base for each size of disk
    compress_snapshots: bool = False
    ephemeral_format: str = "ext4"
    discard: str | None = None         # libvirt's word for the guest's trims
    virt_type: str = "kvm"
    root_helper: str = "sudo"          # the command that runs a root command

    accepted: frozenset[Format] = frozenset(NATIVE)   # of images
    max_image_size: int | None = None     # bytes that may be downloaded
    max_virtual_size: int | None = None   # bytes that a base may have
    retries: int = 3                      # of a broken download, in a row
    min_rate: int = 8 * KiB               # bytes a second of a download
    allow_md5: bool = False               # as an image's only digest
    verify_signatures: bool = False       # of images in Glance
    validate_certificates: bool = False   # of their signers
    trusted_certificates: tuple[str, ...] = ()    # ids; a request may give its
    inspection: Limits = INSPECTION       # of programs that only read headers
    conversion: Limits = CONVERSION       # of programs that copy a whole disk
    rbd: RbdPolicy = RbdPolicy()
    lvm: LvmPolicy = LvmPolicy()

    def for_image(self, format: Format, limits: Limits) -> Limits:
        """Return the limits of a program that reads an image of this format.

        qemu reads vmdk, vhd, vhdx and vdi only in a sandbox.
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
