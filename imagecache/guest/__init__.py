# SPDX-License-Identifier: Apache-2.0
"""Describe disks to libvirt, with the same facts as nova."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from imagecache.guest.elements import (
    LibvirtConfigGuestDeviceAddressDrive,
    LibvirtConfigGuestDisk,
    LibvirtConfigGuestDiskEncryption,
    LibvirtConfigGuestDiskEncryptionSecret,
    LibvirtConfigGuestFilesys,
    LibvirtConfigObject,
    Number,
)

__all__ = [
    "QUOTAS",
    "LibvirtConfigGuestDeviceAddressDrive",
    "LibvirtConfigGuestDisk",
    "LibvirtConfigGuestDiskEncryption",
    "LibvirtConfigGuestDiskEncryptionSecret",
    "LibvirtConfigGuestFilesys",
    "LibvirtConfigObject",
    "Number",
    "disk_config",
    "disk_encryption",
    "disk_qos",
    "disk_scsi",
    "filesystem_config",
]

# Limits that a flavor sets as "quota:<name>"; libvirt's other limits are for
# volumes.
QUOTAS = (
    "disk_read_bytes_sec",
    "disk_read_iops_sec",
    "disk_write_bytes_sec",
    "disk_write_iops_sec",
    "disk_total_bytes_sec",
    "disk_total_iops_sec",
)


def disk_config(
        *, source_type: str, path: str | os.PathLike[str] | None,
        driver_format: str, mapping: Mapping[str, Any],
        cache_mode: str | None, extra_specs: Mapping[str, Number],
        boot_order: Number | None = None, disk_unit: Number | None = None,
        driver_io: str | None = None, discard: str | None = None,
        virt_type: str = "kvm") -> LibvirtConfigGuestDisk:
    """Describe a disk.

    For a disk on the network, the caller adds protocol, name, hosts and
    authentication.

    :param source_type: ``file``, ``block`` or ``network``
    :param path: None for a disk on the network
    :param mapping: where the guest finds the disk: ``bus``, ``dev``,
        ``type`` (disk, cdrom or lun), and for an encrypted one
        ``encrypted``, ``encryption_format``, ``encryption_secret_uuid``
    :param extra_specs: the flavor's; those in the scope ``quota`` are used
    :param disk_unit: the unit on SCSI controller 0; None: libvirt chooses
    :param driver_io: ``native`` works with the cache modes ``none`` and
        ``directsync`` only
    """
    disk = LibvirtConfigGuestDisk(
        source_type=source_type,
        source_device=mapping["type"],
        source_path=None if path is None else os.fspath(path),
        # Only these hypervisors have more than one driver for a disk.
        driver_name="qemu" if virt_type in ("kvm", "qemu") else None,
        driver_format=driver_format,
        driver_cache=cache_mode,
        driver_discard=discard,
        driver_io=driver_io,
        target_dev=mapping["dev"],
        target_bus=mapping["bus"],
        boot_order=boot_order)
    if mapping["bus"] == "scsi":
        disk_scsi(disk, disk_unit)
    disk_qos(disk, extra_specs)
    disk_encryption(disk, mapping)
    return disk


def disk_scsi(disk: LibvirtConfigGuestDisk, disk_unit: Number | None) -> None:
    """Set the unit of a SCSI disk on controller 0.

    libvirt alone would add a new controller after a few disks, although one
    virtio-scsi controller takes 256.
    """
    if disk_unit is not None:
        disk.device_addr = LibvirtConfigGuestDeviceAddressDrive(
            controller=0, unit=disk_unit)


def disk_qos(disk: LibvirtConfigGuestDisk,
             extra_specs: Mapping[str, Number]) -> None:
    """Set the limits of the flavor: ``quota:disk_read_bytes_sec``, ..."""
    for name in QUOTAS:
        if f"quota:{name}" in extra_specs:
            setattr(disk, name, extra_specs[f"quota:{name}"])


def disk_encryption(disk: LibvirtConfigGuestDisk,
                    mapping: Mapping[str, Any]) -> None:
    """Describe the disk as LUKS, if its mapping does.

    If the disk is not LUKS, its guest does not start.  Otherwise the guest
    would write data in the clear that was meant to be encrypted.
    """
    luks = mapping.get("encryption_format") == "luks"
    if luks and mapping.get("encrypted"):
        disk.ephemeral_encryption = LibvirtConfigGuestDiskEncryption(
            format="luks", secret=LibvirtConfigGuestDiskEncryptionSecret(
                type="passphrase", uuid=mapping["encryption_secret_uuid"]))


def filesystem_config(
        *, source_type: str, path: str | os.PathLike[str],
        driver_format: str, target: str,
        driver_type: str | None = None) -> LibvirtConfigGuestFilesys:
    """Describe a disk that is the file system of a container.

    :param source_type: ``file`` or ``block``
    :param target: the directory inside the container
    :param driver_type: ``loop``, ``nbd`` or ``ploop``; None: ``loop`` for
        raw, otherwise ``nbd``.  A block device needs no driver.
    """
    if source_type == "block":
        return LibvirtConfigGuestFilesys(
            source_type="block", source_dev=os.fspath(path),
            target_dir=target)
    fitting = "loop" if driver_format == "raw" else "nbd"
    return LibvirtConfigGuestFilesys(
        source_type="file", source_file=os.fspath(path), target_dir=target,
        driver_type=driver_type or fitting, driver_format=driver_format)
