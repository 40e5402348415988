# SPDX-License-Identifier: Apache-2.0
"""Disks in Ceph, as nova's drivers see them."""

from __future__ import annotations

import base64
import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

from imagecache import backends, exception, guest, imagemodel, rbd_store
from imagecache.host import Host
from imagecache.image_cache import Instance, uuid_of
from imagecache.imagebackend.image import Image, host_of, registered
from imagecache.tools import rbd


class Rbd(Image):

    SUPPORTS_CLONE = True

    disk_class = backends.Rbd
    disk_info_path = None    # there is but one format
    disk: backends.Rbd

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
    def path(self) -> str:
        """What qemu's programs call the disk."""
        policy = self.disk.host.policy.rbd
        return f"rbd:{self.disk.path}" \
            + (f":id={policy.user}" if policy.user else "") \
            + (f":conf={policy.conf}" if policy.conf else "")

    @property
    def rbd_name(self) -> str:
        """The name of the volume in its pool."""
        return self.disk.path.name

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
            self.rbd_name, self.disk.path.parent.name, policy.user, key,
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
        with rbd.connected(rbd_store.access(
                self.disk.host.policy.rbd)) as cluster:
            return cluster.monitors()
