# SPDX-License-Identifier: Apache-2.0
"""ImageCache: the API for new code."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from oslo_config import cfg

from imagecache import events, exception, opts, sources, text
from imagecache.backends import Disk, backend_for, resolve, with_key
from imagecache.bases import disk_info
from imagecache.bases.cache import BaseCache
from imagecache.encryption import Encryption
from imagecache.host import Host
from imagecache.inspection import signatures
from imagecache.model import SECTOR, Base, Digest, Entry, MiB
from imagecache.provision import provision
from imagecache.sources import templates
from imagecache.sources.key_manager import KeyManager
from imagecache.sources.registry import ImageStores
from imagecache.sources.resolve import can_be_path, is_uuid


class HasUuid(Protocol):
    @property
    def uuid(self) -> str: ...


Instance = HasUuid | Mapping[str, str] | uuid.UUID | str
Report = Callable[[exception.ImageCacheError], object]


class ImageCache:
    """Instances' disks, made from cached bases.

    ``instance`` is an object or a mapping with a ``uuid``, or the uuid
    itself; ``image_ref`` is a Glance id, a path, or a file, http or https
    URL; every size is in bytes.

    One object serves any number of threads.  It reads the configuration once,
    in its constructor.

    :param conf: None for oslo.config's global one.  Missing options are
        registered.
    :param glance: the image store for Glance ids; None: the one that the
        [glance] section describes
    :param context: passed to the key manager that has the certificates of
        images' signers; None: the credentials in [key_manager]
    :param observe: called with each event; see imagecache.events
    """

    def __init__(self, conf: cfg.ConfigOpts | None = None, *,
                 glance: sources.ImageStore | None = None,
                 context: Any = None,
                 observe: events.Observer = events.silent) -> None:
        conf = cfg.CONF if conf is None else conf
        opts.register_opts(conf)
        self.host = Host(opts.policy_from(conf),
                         events.both(events.log, observe))
        self._stores = ImageStores(conf, glance)
        self._keys = KeyManager(conf, context)

    def create_disk(self, instance: Instance, image_ref: str,
                    name: str = "disk", size: int | None = None,
                    image_type: str | None = None, *,
                    disk_format: str | None = None,
                    digest: Digest | None = None,
                    trusted_certs: Sequence[str] | None = None,
                    encryption: Encryption | None = None) -> Disk:
        """Make a disk from an image; fetch the image if it is not cached.

        A disk that exists keeps its content, and grows if it is smaller.

        :param size: None or 0: the size of the image
        :param image_type: a backend's name; None: as configured
        :param disk_format: required of the image; None: as its store says
        :param digest: required of its bytes; None: as its store says
        :param trusted_certs: ids of certificates, of which one must vouch
            for the image's signer; None or empty: as configured
        :param encryption: the disk's key; None: the disk is not encrypted
        :raises ImageError: the image is refused, or does not exist
        :raises SourceError, HostError: the image store failed, or this host
        """
        with self._resolved(instance, name, image_type,
                            encryption) as (disk, exists):
            image = self._image(image_ref, disk_format, digest,
                                trusted_certs)
            provision(disk, image, size, exists=exists)
        return disk

    def create_blank(self, instance: Instance, name: str, size: int,
                     image_type: str | None = None, *,
                     encryption: Encryption | None = None) -> Disk:
        """Make a disk of zeros.

        :param size: rounded up to whole sectors
        :raises SizeRequired: it is 0
        """
        size = _rounded(size, SECTOR, name)
        return self._generate(instance, name, templates.blank(size), size,
                              image_type, encryption)

    def create_swap(self, instance: Instance, size: int,
                    name: str = "disk.swap",
                    image_type: str | None = None, *,
                    encryption: Encryption | None = None) -> Disk:
        """Make a disk of swap space.

        :param size: rounded up to MiB
        :raises SizeRequired: it is 0
        """
        size = _rounded(size, MiB, name)
        return self._generate(instance, name, templates.swap(size), size,
                              image_type, encryption)

    def create_ephemeral(self, instance: Instance, size: int,
                         name: str = "disk.eph0",
                         fs_type: str | None = None,
                         label: str = "ephemeral0",
                         image_type: str | None = None, *,
                         encryption: Encryption | None = None) -> Disk:
        """Make a disk with an empty file system.

        :param size: rounded up to whole sectors
        :param fs_type: ext4, xfs, vfat, ...; None: as configured
        :raises SizeRequired: the size is 0
        """
        size = _rounded(size, SECTOR, name)
        template = templates.ephemeral(
            size, fs_type or self.host.policy.ephemeral_format, label)
        return self._generate(instance, name, template, size, image_type,
                              encryption)

    def disk(self, instance: Instance, name: str = "disk",
             image_type: str | None = None, *,
             encryption: Encryption | None = None) -> Disk:
        """Describe a disk, whether it exists or not; change nothing.

        :param image_type: None: the type on record; without a record, the
            type that is configured
        :param encryption: the key of an encrypted disk; its size and its
            removal do not need one
        :raises InvalidDiskFormat: the disk exists and is of another type, or
            is not encrypted
        """
        with self._resolved(instance, name, image_type,
                            encryption) as (disk, _):
            return disk

    def disks(self, instance: Instance | None = None, *,
              report: Report | None = None) -> Iterator[Disk]:
        """Yield the disks of one instance, or of all.

        These are the disks that are files, and those of the configured
        backend.

        :param report: called with the error if the disks of an instance
            cannot be read; those of other instances are still yielded.  None:
            the error is raised
        :raises InvalidDiskInfo: a record of disks is damaged
        """
        name = None if instance is None else uuid_of(instance)
        for directory in self._directories(name):
            try:
                found = list(self._recorded(directory))
            except exception.ImageCacheError as e:
                if report is None:
                    raise
                report(e)
            else:
                yield from found
        for disk in self._backend().listed(self.host, name):
            yield with_key(disk, None, exists=True)

    def fetch(self, image_ref: str, *, image_type: str | None = None,
              disk_format: str | None = None,
              digest: Digest | None = None,
              trusted_certs: Sequence[str] | None = None) -> Base:
        """Fetch an image into the cache before a disk needs it.

        The base that is returned has no lease: another process may remove it.

        :param image_type: the backend that will make disks of it; None: as
            configured
        """
        image = self._image(image_ref, disk_format, digest, trusted_certs)
        with self._backend(image_type).cache_of(self.host).lease(
                image) as base:
            return base

    def bases(self) -> Iterator[Entry]:
        """Yield every base that is a file, or of the configured backend."""
        for cache in self._caches().values():
            yield from cache.entries()

    def base(self, key_or_ref: str) -> Entry:
        """Return a base by its key, its path or its image's reference.

        :param key_or_ref: for a file any path to it, for an image from the
            web the URL without a login or a digest
        :raises BaseNotFound: no base has it
        :raises CallerError: several bases were made from that image
        """
        found = self._bases_named(key_or_ref)
        shown = text.mask_url(key_or_ref)
        if not found:
            raise exception.BaseNotFound(
                key=shown, store=", ".join(self._caches()))
        if len(found) > 1:
            raise exception.CallerError(
                f"{len(found)} bases were made from {shown}: for"
                " several stores, or it has changed in between; name one by"
                " its path: " + ", ".join(str(each.path) for each in found))
        return found[0]

    def users(self, entry: Entry) -> list[str]:
        """Return the disks that are made of a base."""
        return list(self._caches()[entry.store].store.in_use(entry.key))

    def remove_base(self, key_or_ref: str) -> None:
        """Remove a base that no disk is made of.

        :raises BaseNotFound, BaseInUse: nothing has changed
        """
        entry = self.base(key_or_ref)
        self._caches()[entry.store].remove(entry.key)

    def _backend(self, image_type: str | None = None) -> type[Disk]:
        return backend_for(self.host.policy, image_type)

    def _caches(self) -> dict[str, BaseCache]:
        """Return the caches of this host's disks, by their stores' names."""
        caches = (self.host.directory_cache,
                  self._backend().cache_of(self.host))
        return {str(cache.store): cache for cache in caches}

    def _image(self, ref: str, disk_format: str | None,
               digest: Digest | None,
               trusted_certs: Sequence[str] | None) -> sources.Image:
        image = self._stores.image(ref, disk_format=disk_format,
                                   digest=digest)
        demand = signatures.demand(self.host.policy, trusted_certs,
                                   is_uuid(ref))
        if demand is None:
            return image
        return dataclasses.replace(image, signer=signatures.signer(
            image.description, demand, self._keys.certificate))

    def _bases_named(self, key_or_ref: str) -> list[Entry]:
        entries = list(self.bases())
        refs = {key_or_ref, text.mask_url(key_or_ref)}
        if can_be_path(key_or_ref):
            refs.add(os.path.realpath(key_or_ref))
        return [e for e in entries
                if key_or_ref in (e.key, str(e.path))] \
            or [e for e in entries if e.record and e.record.source in refs
                and not sources.is_resized(e.key)]

    @contextlib.contextmanager
    def _resolved(self, instance: Instance, name: str,
                  image_type: str | None, encryption: Encryption | None
                  ) -> Iterator[tuple[Disk, bool]]:
        """Yield a disk, and whether it exists, within a session of it."""
        disk = self._backend(image_type)(self.host, uuid_of(instance), name)
        with disk.session():
            yield resolve(disk, image_type, encryption)

    def _generate(self, instance: Instance, name: str,
                  template: sources.Template, size: int,
                  image_type: str | None,
                  encryption: Encryption | None) -> Disk:
        with self._resolved(instance, name, image_type,
                            encryption) as (disk, exists):
            provision(disk, template, size, exists=exists)
        return disk

    def _directories(self, instance: str | None) -> Iterable[pathlib.Path]:
        if instance is not None:
            return [self.host.instance_directory(instance)]
        instances = self.host.policy.instances
        return disk_info.directories(instances) if instances.is_dir() else ()

    def _recorded(self, directory: pathlib.Path) -> Iterator[Disk]:
        formats = self.host.disk_info(directory).formats()
        for name in sorted({path.name for path in formats}):
            with self._resolved(directory.name, name, None,
                                None) as (disk, exists):
                pass
            if exists:
                yield disk


def _rounded(size: int, unit: int, name: str) -> int:
    """Return a size in whole units, for content that this host makes."""
    if size <= 0:
        raise exception.SizeRequired(name=name)
    return -(-size // unit) * unit


def uuid_of(instance: Instance | None) -> str:
    """Return the uuid of an instance, which names its directory.

    :raises InvalidName: the instance has no uuid
    """
    if isinstance(instance, (str, uuid.UUID)):
        return str(instance)
    if isinstance(instance, Mapping):
        found = instance.get("uuid")
    else:
        found = getattr(instance, "uuid", None)
    if not found:
        raise exception.InvalidName(
            name=found, what="an instance", reason="it has no uuid")
    return str(found)
