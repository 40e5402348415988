# SPDX-License-Identifier: Apache-2.0
"""Disks that are logical volumes, as nova's drivers see them."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from imagecache import backends, imagemodel
from imagecache.backends.lvm import volumes
from imagecache.backends.lvm.encrypted import SUFFIX
from imagecache.host import Host
from imagecache.image_cache import Instance
from imagecache.imagebackend.image import Image, host_of, registered


class Lvm(Image):
    disk_class = backends.Lvm
    disk_info_path = None    # there is but one format

    def __init__(self, instance: Instance | None = None,
                 disk_name: str | None = None,
                 path: str | None = None,
                 disk_info_mapping: Mapping[str, Any] | None = None, *,
                 host: Host | None = None) -> None:
        host = host_of(registered(self.conf)) if host is None else host
        if path and path.endswith(SUFFIX):    # as libvirt knows it
            path = str(volumes.group_of(host.policy).device(
                pathlib.Path(path).name.removesuffix(SUFFIX)))
        super().__init__(instance, disk_name, path, disk_info_mapping,
                         host=host)
        if self._key_id():     # without the key until a method needs it
            self._disk = backends.EncryptedLvm(
                host, self._disk.instance, self._disk.name, self._volume)
        policy = self.disk.host.policy.lvm
        self.sparse = policy.sparse or policy.thin_pool is not None
        # A volume has all its space, or only what the guest has used.
        self.preallocate = not self.sparse
        self.driver_io = "native" if self.preallocate else None

    @property
    def lv(self) -> str:
        """The name of the volume."""
        return self._volume.name

    @property
    def vg(self) -> str:
        """The name of its group."""
        return self._volume.parent.name

    @property
    def _volume(self) -> pathlib.Path:
        return cast(backends.Lvm, self._disk).volume

    def _key_id(self) -> str | None:
        """The key of the instance: its volumes are encrypted beneath it."""
        if isinstance(self._instance, Mapping):
            return self._instance.get("ephemeral_key_uuid")
        return getattr(self._instance, "ephemeral_key_uuid", None)

    def get_model(self, connection: object) -> imagemodel.Image:
        return imagemodel.LocalBlockImage(self.path)

    @staticmethod
    def escape(filename: str) -> str:
        """Return a disk's name as it is part of its volume's."""
        return filename.replace("_", "__")

    @contextlib.contextmanager
    def remove_volume_on_error(self, path: str) -> Iterator[None]:
        """Remove the volume if the block fails, and has made it."""
        disk = cast(backends.Lvm, self.disk)
        mine = pathlib.Path(path) in (disk.path, disk.volume) \
            and not disk.has_volume()
        try:
            yield
        except BaseException:
            if mine:
                disk.remove()
            raise
