# SPDX-License-Identifier: Apache-2.0
"""Rbd: a clone of a base in a pool of Ceph."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Self

from imagecache import exception, sources
from imagecache.backends.base import Disk
from imagecache.backends.rbd import clones
from imagecache.backends.rbd.cluster import BASE_SNAPSHOT, RbdName, connected
from imagecache.backends.rbd.glance_images import RbdImages
from imagecache.backends.rbd.store import RbdStore
from imagecache.bases.cache import BaseCache
from imagecache.bases.directory import DirectoryStore
from imagecache.events import Name
from imagecache.host import Host, require_plain
from imagecache.model import (
    Base,
    Capabilities,
    Format,
    NbdExport,
    whole_sectors,
)
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import ceph, nbd_server, qemu_img, rbd
from imagecache.tools.rbd_image import Volume

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SEPARATORS = "@:"      # of snapshots, and of options in a name for qemu
# The errors of a clone whose base is being removed, or is gone.
_OF_A_BASE = (exception.StorageFailed, exception.StorageMissing)


class Rbd(Disk):
    """A disk that is a volume in a pool, which all hosts share.

    It has nova's name, ``<instance>_<name>``: a disk that nova made is used
    as it is.  File systems keep their size when a disk grows.
    """

    capabilities = Capabilities(depends_on_base=True, shared_storage=True)
    formats = (Format.RAW,)

    @classmethod
    def require(cls, policy: Policy) -> None:
        ceph.bindings()
        if not policy.rbd.pool:
            raise exception.InvalidConfiguration(
                option="[libvirt] images_rbd_pool", value=policy.rbd.pool,
                reason="name the pool for the disks")
        if not policy.force_raw:
            raise exception.InvalidConfiguration(
                option="force_raw_images", value=False,
                reason="disks in Ceph are always raw; set it to true")

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        policy = host.policy
        return host.cache_over(RbdStore(
            policy.rbd, DirectoryStore(policy.bases, policy.instances),
            host.observe))

    @classmethod
    def listed(cls, host: Host, instance: str | None = None
               ) -> Iterator[Disk]:
        with connected(host.policy.rbd) as cluster, \
                cluster.pool(host.policy.rbd.pool) as pool:
            names = pool.names()
        # A pool may hold volumes that are no disks of instances.
        for name in names:
            owner, found, rest = name.partition("_")
            if found and rest and (_UUID.fullmatch(owner) if instance is None
                                   else owner == instance):
                yield cls(host, owner, rest)

    @classmethod
    def by_path(cls, host: Host, path: str) -> Self:
        """Describe the disk to which libvirt or qemu give a name.

        :param path: ``pool/name``, or ``rbd:pool/name:id=...``
        :raises InvalidDevicePath: it is neither
        """
        volume = RbdName.parse(path.removeprefix("rbd:").partition(":")[0])
        if volume is None:
            raise exception.InvalidDevicePath(path=path)
        instance, _, rest = volume.image.partition("_")
        return cls(host, instance, rest or volume.image, volume.path)

    @property
    def path(self) -> pathlib.Path:
        """The name of the volume, ``pool/name``, which is no file here."""
        return self.volume.path

    @property
    def volume(self) -> RbdName:
        """The volume in its pool."""
        if self._path is not None:
            return RbdName(self._path.parent.name, self._path.name)
        instance = self.host.instance_directory(self.instance).name
        name = f"{instance}_{require_plain(self.name, 'a disk')}"
        volume = RbdName(self.host.policy.rbd.pool, name)
        if set(_SEPARATORS) & set(name) or volume.base_key is not None:
            raise exception.InvalidName(
                name=name, what="the name of a disk",
                reason=f"in Ceph it must have none of {_SEPARATORS}, and not"
                " be that of a base")
        return volume

    @property
    def format(self) -> Format:
        return Format.RAW

    def session(self) -> contextlib.AbstractContextManager[object]:
        return connected(self.host.policy.rbd)

    def exists(self) -> bool:
        with self._pool() as (cluster, pool):
            return clones.is_whole(cluster, pool, self.volume.image)

    def create(self, base: Base, size: int | None) -> None:
        """Clone the base.

        :raises BaseNotFound: another host has just removed it
        """
        name = RbdName.of_base(self.host.policy.rbd.base_pool, base.key)
        for repaired in (False, True):
            try:
                self.clone_snapshot(name, BASE_SNAPSHOT, size)
                return
            except exception.StorageFailed as e:
                if type(e) not in _OF_A_BASE:
                    raise
                self.cache.store.require(base.key)
                if repaired:
                    raise

    def clone_snapshot(self, parent: RbdName, snapshot: str,
                       size: int | None) -> None:
        """Make the disk a clone of any snapshot, such as one of Glance's.

        :raises DiskExists, StorageFailed: and nothing has changed
        """
        policy, image = self.host.policy.rbd, self.volume.image
        with self._pool() as (cluster, disks):
            try:
                clones.make(cluster, parent, snapshot, disks, image, policy)
            except exception.StorageExists as e:
                raise exception.DiskExists(location=self.path) from e
            clones.finish(disks, image, whole_sectors(size or 0),
                          policy.flatten)
        self._observe(Name.CREATED)

    def clone(self, source: sources.Source, size: int | None, *,
              copy_to_store: bool = True) -> bool:
        """Make the disk a clone of the image itself, if Glance has it here.

        :param copy_to_store: whether Glance may be asked to copy it here
        :raises ImageUnacceptable: it is not here, and must not be downloaded
        """
        images = RbdImages(self.host.policy, self.host.observe)
        found = images.find(source, size, copy_to_store=copy_to_store)
        if found is None:
            if self.host.policy.rbd.never_download \
                    and not self.cache.has(source):
                images.require_download(source)
            return False
        self.clone_snapshot(RbdName(found.pool, found.image),
                            found.snapshot, size)
        return True

    def open(self) -> None:
        """Finish what a killed process left: flatten, if that is configured.

        A disk that was complete before that was configured stays a clone.
        """
        if self.host.policy.rbd.flatten:
            with self._volume() as volume:
                clones.flatten_unfinished(volume)

    def size(self) -> int:
        with self._volume(read_only=True) as volume:
            return volume.size()

    def grow(self, size: int) -> None:
        size = whole_sectors(size)
        with self._volume() as volume:
            if size <= volume.size():
                return
            volume.resize(size)
        self._observe(Name.GROWN, size=size)

    def allocated(self) -> int:
        with self._volume(read_only=True) as volume:
            return volume.allocated()

    def parent(self) -> tuple[str, str, str] | None:
        """Return pool, volume and snapshot that the disk is a clone of."""
        with self._volume(read_only=True) as volume:
            return volume.parent()

    def base_key(self) -> str | None:
        parent = self.parent()
        if parent is None:
            return None
        pool, image, snapshot = parent
        if pool != self.host.policy.rbd.base_pool \
                or snapshot != BASE_SNAPSHOT:
            return None       # it is an image of Glance's
        return RbdName(pool, image).base_key

    def flatten(self) -> None:
        """Copy all that the disk reads from its base, and detach it."""
        with self._volume() as volume:
            clones.flatten_volume(volume)

    def remove(self) -> None:
        """Delete the disk, and its snapshots.

        A guest that died keeps the disk in use until Ceph notices, so this
        tries again as often as is configured.

        :raises StorageBusy: the disk is still in use, or has clones
        """
        policy = self.host.policy.rbd
        for left in reversed(range(policy.retries + 1)):
            with self._pool() as (_, pool):
                try:
                    clones.remove_snapshots(pool, self.volume.image)
                    pool.remove(self.volume.image)
                    break
                except exception.StorageBusy as e:
                    if not left or e.facts.get("clones"):
                        raise
            time.sleep(policy.retry_interval)
        self._observe(Name.REMOVED)

    def extract(self, output: pathlib.Path, output_format: str) -> None:
        """Copy the disk's content into a new file.

        :param output_format: raw, qcow2, vmdk, vdi, vhd or vhdx
        :raises DiskNotFound: there is no disk
        :raises InvalidDiskFormat: the output format is none of these
        """
        self.size()    # raises DiskNotFound
        self._extract(output, output_format)

    def _copy_out(self, new: pathlib.Path, output_format: str,
                  backing: pathlib.Path | None, compress: bool) -> None:
        qemu_img.convert_remote(self._for_qemu(), new, output_format,
                                limits=self._limits_of_a_copy,
                                compress=compress)

    def import_file(self, source: pathlib.Path) -> None:
        """Make the disk of a raw file of this host; replace an existing disk.

        :raises StorageFailed: the file cannot be read; nothing has changed
        :raises HostError: the disk does not exist any more
        """
        with durable.translated("importing a disk", source), \
                source.open("rb") as f:
            size = whole_sectors(os.fstat(f.fileno()).st_size)
        self.remove()
        with self._pool() as (_, pool):
            pool.create(self.volume.image, size)
            try:
                with pool.open(self.volume.image) as volume, \
                        nbd_server.serving(volume, size) as client:
                    qemu_img.convert(
                        source, Format.RAW, NbdExport(client), "raw",
                        limits=self.host.policy.conversion, into_zeros=True)
            except BaseException:
                with contextlib.suppress(exception.HostError):
                    pool.remove(self.volume.image)
                raise
            clones.finish(pool, self.volume.image, size, flatten=False)
        self._observe(Name.CREATED)

    def create_snapshot(self, name: str) -> None:
        """:raises StorageExists: there is one of that name"""
        with self._volume() as volume:
            volume.create_snapshot(name)

    def remove_snapshot(self, name: str) -> None:
        """:raises SnapshotNotFound: there is none of that name"""
        with self._snapshot(name) as volume:
            volume.remove_snapshot(name)

    def roll_back(self, name: str) -> None:
        """Bring back the content at a snapshot, with the size it had then.

        No guest may be running on the disk.

        :raises SnapshotNotFound: there is none of that name
        """
        with self._snapshot(name) as volume:
            volume.roll_back(name)

    def _for_qemu(self) -> dict[str, str]:
        """Return the options of qemu's own driver; no key is in them."""
        policy, volume = self.host.policy.rbd, self.volume
        named = {"driver": "rbd", "pool": volume.pool,
                 "image": volume.image, "user": policy.user or "",
                 "conf": policy.conf}
        return {name: value for name, value in named.items() if value}

    @contextlib.contextmanager
    def _pool(self) -> Iterator[tuple[rbd.Cluster, rbd.Pool]]:
        with connected(self.host.policy.rbd) as cluster, \
                cluster.pool(self.volume.pool) as pool:
            yield cluster, pool

    @contextlib.contextmanager
    def _volume(self, *, read_only: bool = False) -> Iterator[Volume]:
        with self._pool() as (_, pool), contextlib.ExitStack() as stack:
            try:
                volume = stack.enter_context(
                    pool.open(self.volume.image, read_only=read_only))
            except exception.StorageMissing as e:
                raise exception.DiskNotFound(location=self.path) from e
            yield volume

    @contextlib.contextmanager
    def _snapshot(self, name: str) -> Iterator[Volume]:
        with self._volume() as volume:
            if name not in volume.snapshots():
                raise exception.SnapshotNotFound(snapshot_id=name)
            yield volume
