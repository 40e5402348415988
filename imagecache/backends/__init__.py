# SPDX-License-Identifier: Apache-2.0
"""The table of backends: a new backend is a folder, and a line here.

Backends of other projects are found by their entry points, in the namespace
``imagecache.backends``; the names of this table are not theirs to take.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn

import stevedore.exception
from stevedore import driver

from imagecache import exception
from imagecache.backends.base import Disk
from imagecache.backends.file.disk import FileDisk
from imagecache.backends.file.encrypted import EncryptedQcow2, EncryptedRaw
from imagecache.backends.file.qcow2 import Qcow2
from imagecache.backends.file.qcow2_file import Qcow2File
from imagecache.backends.file.raw import Raw
from imagecache.backends.lvm import Lvm
from imagecache.backends.lvm.encrypted import EncryptedLvm
from imagecache.backends.rbd import Rbd
from imagecache.encryption import Encryption
from imagecache.model import Format
from imagecache.policy import Policy

__all__ = ["BACKENDS", "Disk", "EncryptedLvm", "FileDisk", "Lvm", "Qcow2",
           "Qcow2File", "Raw", "Rbd", "backend_for", "resolve", "with_key"]

BACKENDS: dict[str, type[Disk]] = {
    "flat": Raw,
    "lvm": Lvm,
    "qcow2": Qcow2,
    "raw": Raw,
    "rbd": Rbd,
}

# The kind of an encrypted disk; disks of other kinds cannot be encrypted.
ENCRYPTED_KINDS: dict[type[Disk], Callable[..., Disk]] = {
    EncryptedLvm: EncryptedLvm,
    EncryptedQcow2: EncryptedQcow2,
    EncryptedRaw: EncryptedRaw,
    Lvm: EncryptedLvm,
    Qcow2: EncryptedQcow2,
    Raw: EncryptedRaw,
}

NAMESPACE = "imagecache.backends"


def backend_for(policy: Policy, image_type: str | None = None) -> type[Disk]:
    """Return the class of a type's disks.

    :param image_type: a name of the table or of an entry point; None for
        what is configured.  ``default`` asks ``use_cow_images``.
    :raises InvalidConfiguration: no backend has this name, or the one that
        has it cannot work as things are configured
    """
    found = _named(image_type or policy.images_type, policy)
    found.require(policy)
    return found


def _named(name: str, policy: Policy) -> type[Disk]:
    if name == "default":
        name = "qcow2" if policy.use_cow else "raw"
    if name in BACKENDS:
        return BACKENDS[name]
    try:
        manager: Any = driver.DriverManager(
            NAMESPACE, name, on_load_failure_callback=_not_loaded)
    except stevedore.exception.NoMatches as e:
        raise exception.InvalidConfiguration(
            f"Unknown image_type={name}: there are default, "
            + ", ".join(BACKENDS), option="images_type", value=name) from e
    found: type[Disk] = manager.driver
    return found


def _not_loaded(manager: object, entry_point: metadata.EntryPoint,
                error: BaseException) -> NoReturn:
    raise exception.InvalidConfiguration(
        option="[libvirt] images_type", value=entry_point.name,
        reason=f"its backend cannot be loaded: {error}") from error


def resolve(disk: Disk, image_type: str | None,
            encryption: Encryption | None) -> tuple[Disk, bool]:
    """Return a disk as its records describe it, and whether it exists.

    The storage is asked once whether the disk exists.

    :param disk: of the backend that is asked for, or configured
    :param image_type: that is asked for; None: that of an existing disk
    :param encryption: see with_key()
    :raises InvalidDiskFormat: it exists, and not as this type, or is not
        encrypted
    """
    exists = disk.exists()
    if not exists and image_type is None and not disk.capabilities.file:
        # It may be a file, made while another backend was configured.
        file = Raw(disk.host, disk.instance, disk.name)
        if file.exists():
            disk, exists = file, True
    if exists:
        disk = _as_recorded(disk, image_type)
    return with_key(disk, encryption, exists), exists


def _as_recorded(disk: Disk, image_type: str | None) -> Disk:
    recorded = disk.recorded()
    if recorded is None or recorded in disk.formats:
        return disk
    if image_type is not None:
        raise exception.InvalidDiskFormat(
            f"{disk.path} is on record as {recorded}: it cannot be"
            f" {image_type}", disk_format=recorded)
    return backend_for(disk.host.policy, recorded.value)(
        disk.host, disk.instance, disk.name)


def with_key(disk: Disk, encryption: Encryption | None,
             exists: bool) -> Disk:
    """Return a disk as an encrypted one, if it is or will be encrypted.

    :param encryption: its key, and how it is encrypted if it is new; None if
        it is not encrypted, or if no method that needs the key will be called
    :param exists: whether the disk exists
    :raises InvalidDiskFormat: it exists, and is not encrypted
    :raises InvalidConfiguration: disks of this backend cannot be encrypted
    """
    encrypted = exists and disk.is_encrypted()
    if exists and encryption and not encrypted:
        raise exception.InvalidDiskFormat(
            f"{disk.path} exists, and is not on record as encrypted",
            disk_format=disk.format)
    if encryption is None and not encrypted:
        return disk
    kind: type[Disk] = type(disk)
    if exists and disk.capabilities.file:    # the record says which kind
        kind = Qcow2 if disk.format is Format.QCOW2 else Raw
    found: Callable[..., Disk] | None = ENCRYPTED_KINDS.get(kind)
    if found is None:
        raise exception.InvalidConfiguration(
            option="images_type", value=kind.__name__,
            reason="its disks cannot be encrypted; use qcow2, raw or lvm")
    return found(disk.host, disk.instance, disk.name, disk._path, encryption)
