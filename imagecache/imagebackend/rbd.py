# SPDX-License-Identifier: Apache-2.0
"""Disks in Ceph, as nova's drivers see them."""

from __future__ import annotations

import base64
import contextlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

from imagecache import backends, exception, guest, imagemodel, sources
from imagecache.backends.rbd import publish
from imagecache.backends.rbd.cluster import connected
from imagecache.backends.rbd.glance_images import Location, RbdImages
from imagecache.host import Host
from imagecache.image_cache import Instance, uuid_of
from imagecache.imagebackend.image import Image, host_of, registered
from imagecache.sources.registry import ImageStores
from imagecache.sources.resolve import is_uuid
from imagecache.tools import rbd


class Rbd(Image):

    SUPPORTS_CLONE = True

    disk_class: ClassVar[type[backends.Rbd]] = backends.Rbd
    disk_info_path = None    # there is but one format

    def __init__(self, instance: Instance | None = None,
                 disk_name: str | None = None,
                 path: str | None = None,
                 disk_info_mapping: Mapping[str, Any] | None = None, *,
                 host: Host | None = None) -> None:
        host = host_of(registered(self.conf)) if host is None else host
        if path is not None:
            named = self.disk_class.by_path(host, path)
            instance, path = instance or named.instance, str(named.path)
            disk_name = disk_name or named.name
        super().__init__(instance, disk_name, path, disk_info_mapping,
                         host=host)
        self.source_type = "block"
        self.driver_io = None

    @property
    def disk(self) -> backends.Rbd:
        """The disk that this image wraps."""
        return cast(backends.Rbd, self._disk)

    @property
    def path(self) -> str:
        """What qemu's programs call the disk."""
        policy = self.disk.host.policy.rbd
        return f"rbd:{self.disk.path}" \
            + (f":id={policy.user}" if policy.user else "") \
            + (f":conf={policy.conf}" if policy.conf else "")

    @property
    def rbd_name(self) -> str:
        """The name of the volume in its pool."""
        return self.disk.volume.image

    def clone(self, context: object, image_id_or_uri: str,
              copy_to_store: bool = True) -> None:
        """Make the disk a clone of what Glance keeps in this cluster.

        :param copy_to_store: have Glance copy it there, if need be and if
            images_rbd_glance_store_name is set
        :raises ImageUnacceptable: it keeps nothing that could be cloned
        """
        image = self._image(context, image_id_or_uri)
        if not self.disk.clone(image, None, copy_to_store=copy_to_store):
            raise exception.ImageUnacceptable(
                image_id=image_id_or_uri, reason="it cannot be cloned from"
                " Glance's own pool")

    def copy_to_store(self, context: object,
                      image_meta: Mapping[str, Any]) -> None:
        """Have Glance copy an image into images_rbd_glance_store_name.

        :raises ImageUnacceptable, Forbidden: it does not
        """
        host, image_id = self.disk.host, image_meta["id"]
        store = self._image(context, image_id).store
        if not isinstance(store, sources.Locator):
            raise exception.ImageUnacceptable(
                image_id=image_id, reason="its store makes no copies")
        RbdImages(host.policy, host.observe).copy(image_id, store)

    def get_disk_size(self, name: str) -> int:
        """Return the bytes a guest sees of this disk, whatever ``name``."""
        return self.disk.size()

    def get_model(self, connection: Any) -> imagemodel.Image:
        """Describe the disk; its user's key comes from libvirt.

        :param connection: to libvirt, asked only if a secret is configured
        """
        policy, key = self.disk.host.policy.rbd, None
        if policy.secret:
            secret = connection.secretLookupByUUIDString(policy.secret)
            key = base64.b64encode(secret.value())
        return imagemodel.RBDImage(
            self.rbd_name, self.disk.volume.pool, policy.user, key,
            [":".join(monitor) for monitor in self._monitors()])

    def libvirt_info(self, cache_mode: str | None,
                     extra_specs: Mapping[str, guest.Number],
                     boot_order: guest.Number | None = None,
                     disk_unit: guest.Number | None = None
                     ) -> guest.LibvirtConfigGuestDisk:
        if self.disk_info_mapping is None:
            raise AttributeError("libvirt_info() needs a disk_info_mapping")
        policy = self.disk.host.policy
        info = guest.disk_config(
            source_type="network", path=None,
            driver_format=self.driver_format, mapping=self.disk_info_mapping,
            cache_mode=cache_mode, extra_specs=extra_specs,
            boot_order=boot_order, disk_unit=disk_unit,
            discard=self.discard_mode, virt_type=policy.virt_type)
        info.source_protocol = "rbd"
        info.source_name = str(self.disk.path)
        for host, port in self._monitors():
            info.source_hosts.append(host.strip("[]"))
            info.source_ports.append(port)
        if policy.rbd.user or policy.rbd.secret:
            info.auth_secret_type = "ceph"  # noqa: S105  (a kind of secret)
            info.auth_secret_uuid = policy.rbd.secret
            info.auth_username = policy.rbd.user
        return info

    def direct_snapshot(self, context: object, snapshot_name: str,
                        image_format: str, image_id: str,
                        base_image_id: str) -> str:
        """Make an image of the disk in the pool where Glance keeps its base.

        :return: where it is, for the caller to register with Glance
        :raises ImageUnacceptable: Glance's pool is not known, or the image
            is to be of another format; a copy may do
        :raises Forbidden: nor may that pool be written to
        """
        if image_format not in ("raw", "iso", "rbd"):
            raise exception.ImageUnacceptable(
                image_id=image_id, reason="disks in Ceph are raw, and"
                f" {image_format} is requested")
        with self._cluster() as cluster:
            pool = publish.pool_of_glance(
                cluster, base_image_id, self._places(context, base_image_id),
                self.disk.parent())
            return str(publish.publish(
                cluster, self.disk.volume, snapshot_name, pool, image_id))

    def cleanup_direct_snapshot(
            self, location: str | Mapping[str, str] | None,
            also_destroy_volume: bool = False,
            ignore_errors: bool = False) -> None:
        """Remove what direct_snapshot() made, or its snapshot only.

        :param location: what it returned, or a mapping with it as ``url``
        """
        url = location if isinstance(location, str) \
            else (location or {}).get("url")
        found = Location.parse(url) if url else None
        if found is None:
            return
        ignored = (exception.HostError,) if ignore_errors else ()
        with contextlib.suppress(*ignored), self._cluster() as cluster:
            publish.withdraw(cluster, found,
                                 volume_too=also_destroy_volume)

    def import_file(self, instance: Instance, local_file: str,
                    remote_name: str) -> None:
        """Make a disk of a raw file; one of that name is replaced."""
        self.disk_class(self.disk.host, uuid_of(instance), remote_name) \
            .import_file(pathlib.Path(local_file))

    def create_snap(self, name: str) -> None:
        self.disk.create_snapshot(name)

    def remove_snap(self, name: str, ignore_errors: bool = False) -> None:
        """Remove a snapshot, if it is there.

        :raises StorageBusy: it is protected
        """
        ignored = exception.HostError if ignore_errors \
            else exception.SnapshotNotFound
        with contextlib.suppress(exception.SnapshotNotFound, ignored):
            self.disk.remove_snapshot(name)

    def rollback_to_snap(self, name: str) -> None:
        """Bring back the disk as it was.

        :raises SnapshotNotFound: there is no such snapshot
        """
        self.disk.roll_back(name)

    def _monitors(self) -> list[tuple[str, str]]:
        with self._cluster() as cluster:
            return cluster.monitors()

    def _cluster(self) -> contextlib.AbstractContextManager[rbd.Cluster]:
        return connected(self.disk.host.policy.rbd)

    def _image(self, context: object, image_id_or_uri: str) -> sources.Image:
        """Ask Glance, as the configuration or Backend says."""
        image_id = image_id_or_uri.rpartition("/")[2]
        if not is_uuid(image_id):
            raise exception.ImageUnacceptable(
                image_id=image_id_or_uri, reason="it is not in Glance")
        glance = type(self).glance
        return ImageStores(
            registered(self.conf),
            glance(context) if glance else None).image(image_id)

    def _places(self, context: object, image_id: str) -> Iterable[str]:
        with contextlib.suppress(exception.ImageError, exception.SourceError):
            image = self._image(context, image_id)
            if isinstance(image.store, sources.Locator):
                return image.description.locations \
                    or image.store.locations(image_id)
        return ()
