# SPDX-License-Identifier: Apache-2.0
"""One disk, with the methods and attributes that nova's drivers use."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from oslo_config import cfg

from imagecache import (
    backends,
    events,
    exception,
    guest,
    imagemodel,
    opts,
    sources,
)
from imagecache.backends.base import Disk, Extractor, Flattener
from imagecache.bases import disk_info
from imagecache.encryption import Encryption
from imagecache.host import Host
from imagecache.image_cache import Instance, uuid_of
from imagecache.imagebackend.fetch_function import (
    provision_or_adopt,
    source_of,
)
from imagecache.sources.key_manager import KeyManager

# Milliseconds to derive a key.  nova's secrets are random: they cannot be
# guessed, so a longer time gains nothing.
_GUESS = 50


class Image:
    """One disk; each backend has a subclass.

    :param path: of the disk; None: it follows from the other arguments
    :param disk_info_mapping: where the guest finds it: bus, dev, type
    :param host: None for what oslo.config's global configuration describes
    """

    SUPPORTS_CLONE = False
    SUPPORTS_LUKS = False

    disk_class: ClassVar[type[Disk]]
    conf: ClassVar[cfg.ConfigOpts | None] = None
    glance: ClassVar[Callable[[Any], sources.ImageStore] | None] = None

    def __init__(self, instance: Instance | None = None,
                 disk_name: str | None = None,
                 path: str | None = None,
                 disk_info_mapping: Mapping[str, Any] | None = None, *,
                 host: Host | None = None) -> None:
        host = host_of(registered(self.conf)) if host is None else host
        place = None if path is None else pathlib.Path(path)
        if place is not None:
            disk_name = disk_name or place.name
        if disk_name is None:
            raise exception.InvalidName(
                name=None, what="a disk", reason="neither a name nor a path"
                " was given")
        if instance is None and place is not None:
            instance = place.parent.name
        self._disk = self.disk_class(
            host, uuid_of(instance), disk_name, place)
        self._instance = instance
        self.disk_name = disk_name
        self.disk_info_mapping = disk_info_mapping
        policy, capabilities = host.policy, self.disk_class.capabilities
        self.is_block_dev = capabilities.block_device
        self.source_type = "block" if self.is_block_dev else "file"
        self.discard_mode = policy.discard
        self.preallocate = policy.preallocate
        # Linux' own asynchronous I/O can block on a file whose space is not
        # allocated, and is the faster one where it is.
        self.driver_io = "native" if self.preallocate else None
        self.lock_path = str(policy.locks)

    @property
    def disk(self) -> Disk:
        """The disk that this image wraps."""
        return self._disk

    @property
    def path(self) -> str:
        return str(self._disk.path)

    @property
    def driver_format(self) -> str:
        return self.disk.format.value

    # Making it.

    def cache(self, fetch_func: Callable[..., object], filename: str,
              size: int | None = None, safe: bool = False, *args: Any,
              **kwargs: Any) -> None:
        """Make the disk; ``fetch_func`` fetches its base if it is missing.

        :param fetch_func: called as ``fetch_func(*args, target=path,
            **kwargs)`` to write the image to ``path``
        :param filename: the name of the base
        :param size: bytes the guest must see; None or 0: the image's
        :param safe: fetch_func writes this host's own data, which is raw
        """
        self._unlock(kwargs.get("context"))
        source = source_of(fetch_func, filename, safe, *args, **kwargs)
        provision_or_adopt(self.disk, source, size)

    def create_image(self, prepare_template: Callable[..., object],
                     base: str, size: int | None, safe: bool = False,
                     *args: Any, **kwargs: Any) -> None:
        """Do what cache() does, for the path of a base and not its name."""
        self.cache(prepare_template, pathlib.Path(base).name, size, safe,
                   *args, **kwargs)

    def resize_image(self, size: int) -> None:
        self._unlock()
        self.disk.grow(size)

    def clone(self, context: object, image_id_or_uri: str) -> None:
        raise exception.ImageUnacceptable(
            image_id=image_id_or_uri,
            reason=f"{type(self).__name__} disks are not clones")

    def flatten(self) -> None:
        """Make the disk independent of its base."""
        self._unlock()
        if not isinstance(self.disk, Flattener):
            raise NotImplementedError("this disk has no base to leave")
        self.disk.flatten()

    # Asking about it.

    def exists(self) -> bool:
        return self.disk.exists()

    def get_disk_size(self, name: str) -> int:
        """Return the bytes a guest sees of this disk, or of a base."""
        path = pathlib.Path(name)
        if path == self.disk.path:
            return self.disk.size()
        entry = self.disk.cache.store.lookup(path.name) \
            if path.parent == self.disk.host.policy.bases else None
        if entry is None:
            raise exception.DiskNotFound(location=name)
        return entry.record.virtual_size if entry.record else entry.size

    def verify_base_size(self, base: str, size: int | None,
                         base_size: int = 0) -> None:
        """Refuse a disk that cannot hold its base."""
        if size is None:
            return
        base_size = base_size or (self.get_disk_size(base) if size else 0)
        if size < base_size:
            raise exception.FlavorDiskSmallerThanImage(
                flavor_size=size, image_size=base_size)

    def resolve_driver_format(self) -> str:
        return self.driver_format

    def correct_format(self) -> None:
        """Do nothing: driver_format is always the one on record."""

    def get_model(self, connection: object) -> imagemodel.Image:
        if self.is_block_dev:
            return imagemodel.LocalBlockImage(self.path)
        return imagemodel.LocalFileImage(self.path, self.driver_format)

    @classmethod
    def is_shared_block_storage(cls) -> bool:
        return cls.disk_class.capabilities.shared_storage

    @classmethod
    def is_file_in_instance_path(cls) -> bool:
        return cls.disk_class.capabilities.file

    # Telling the hypervisor.

    def libvirt_info(self, cache_mode: str | None,
                     extra_specs: Mapping[str, guest.Number],
                     boot_order: guest.Number | None = None,
                     disk_unit: guest.Number | None = None
                     ) -> guest.LibvirtConfigGuestDisk:
        """Return the disk's element of a libvirt domain."""
        if self.disk_info_mapping is None:
            raise AttributeError("libvirt_info() needs a disk_info_mapping")
        return guest.disk_config(
            source_type=self.source_type, path=self.path,
            driver_format=self.driver_format, mapping=self.disk_info_mapping,
            cache_mode=cache_mode, extra_specs=extra_specs,
            boot_order=boot_order, disk_unit=disk_unit,
            driver_io=self.driver_io, discard=self.discard_mode,
            virt_type=self.disk.host.policy.virt_type)

    def libvirt_fs_info(self, target: str, driver_type: str | None = None
                        ) -> guest.LibvirtConfigGuestFilesys:
        """Return the element that mounts the disk in a container."""
        return guest.filesystem_config(
            source_type=self.source_type, path=self.path, target=target,
            driver_format=self.driver_format, driver_type=driver_type)

    def disk_scsi(self, info: guest.LibvirtConfigGuestDisk,
                  disk_unit: guest.Number | None) -> None:
        guest.disk_scsi(info, disk_unit)

    def disk_qos(self, info: guest.LibvirtConfigGuestDisk,
                 extra_specs: Mapping[str, guest.Number]) -> None:
        guest.disk_qos(info, extra_specs)

    # Snapshots.

    def snapshot_extract(self, target: str, out_format: str) -> None:
        """Copy the content of a disk that no guest runs on to a new file.

        It is not encrypted there.
        """
        self._unlock()
        if not isinstance(self.disk, Extractor):
            raise NotImplementedError("this disk cannot be extracted")
        # An ISO 9660 file system on a raw disk is a raw image.
        self.disk.extract(pathlib.Path(target),
                          "raw" if out_format == "iso" else out_format)

    def _unlock(self, context: Any = None) -> None:
        """Get the disk's key from the key manager, if the disk has one.

        :param context: of the key's owner; None: the [key_manager] section's
            credentials
        """
        key_id = self._key_id()
        if key_id is not None:
            keys = KeyManager(registered(self.conf), context)
            self._disk = backends.with_key(
                self._disk, Encryption(keys.passphrase(key_id),
                                       iter_time=_GUESS),
                self._disk.exists())

    def _key_id(self) -> str | None:
        mapping = self.disk_info_mapping or {}
        if not mapping.get("encrypted") \
                or mapping.get("encryption_format") != "luks":
            return None
        found: str | None = mapping.get("encryption_secret_uuid")
        if found is None:
            raise exception.KeyRequired(location=self.disk.path)
        return found

    def direct_snapshot(self, context: object, snapshot_name: str,
                        image_format: str, image_id: str,
                        base_image_id: str) -> str:
        raise NotImplementedError("this disk is not stored beside images")

    def cleanup_direct_snapshot(self, location: str,
                                also_destroy_volume: bool = False,
                                ignore_errors: bool = False) -> None:
        """Do nothing: there are no direct snapshots."""

    def import_file(self, instance: Instance, local_file: str,
                    remote_name: str) -> None:
        """Do nothing: a local file is already in its place."""

    def create_snap(self, name: str) -> None:
        """Do nothing: files have no snapshots here."""

    def remove_snap(self, name: str, ignore_errors: bool = False) -> None:
        """Do nothing: files have no snapshots here."""

    def rollback_to_snap(self, name: str) -> None:
        """Do nothing: files have no snapshots here."""


class FileImage(Image):
    """A disk that is a file, whose format is on record beside it."""

    SUPPORTS_LUKS = True
    _on_record = False    # whether the record of an existing disk was read

    @property
    def disk(self) -> Disk:
        """The disk; one that is on record as encrypted is, without its key."""
        if not self._on_record and not self._disk.encrypts \
                and self._disk.exists():
            self._disk = backends.with_key(self._disk, None, exists=True)
            self._on_record = True
        return self._disk

    @property
    def disk_info_path(self) -> str:
        return str(self.disk.path.parent / disk_info.FILE_NAME)

    def resolve_driver_format(self) -> str:
        """Return the disk's format, and put it on record if it is not."""
        record = self.disk.host.disk_info(self.disk.path.parent)
        if self.exists() and record.format_of(self.disk.path) is None:
            record.record(self.disk.path, self.disk.format)
        return self.driver_format


class Qcow2(FileImage):
    disk_class = backends.Qcow2


class Raw(FileImage):
    disk_class = backends.Raw


def registered(conf: cfg.ConfigOpts | None) -> cfg.ConfigOpts:
    conf = cfg.CONF if conf is None else conf
    opts.register_opts(conf)
    return conf


def host_of(conf: cfg.ConfigOpts) -> Host:
    return Host(opts.policy_from(conf), events.log)
