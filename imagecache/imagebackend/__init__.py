# SPDX-License-Identifier: Apache-2.0
"""The API for driver code that was written against nova's imagebackend.

A driver that has ``from nova.virt.libvirt import imagebackend`` can have
``from imagecache import imagebackend``.  This package only translates: names
and call shapes are nova's, and imagecache.provision and the backends do the
work.  doc/source/from-nova.rst lists the differences and their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oslo_config import cfg

from imagecache import backends, sources
from imagecache.backends import Disk
from imagecache.host import Host
from imagecache.image_cache import Instance
from imagecache.imagebackend.image import (
    FileImage,
    Image,
    Qcow2,
    Raw,
    host_of,
    registered,
)
from imagecache.imagebackend.lvm import Lvm
from imagecache.imagebackend.rbd import Rbd

__all__ = ["Backend", "Flat", "Image", "Lvm", "Qcow2", "Raw", "Rbd"]

Flat = Raw   # what nova calls it

_CLASSES: dict[type[Disk], type[Image]] = {
    backends.Lvm: Lvm,
    backends.Qcow2: Qcow2,
    backends.Raw: Raw,
    backends.Rbd: Rbd,
}


class Backend:
    """Finds the class of a disk, and the disk.

    :param use_cow: what ``default`` means: qcow2 or raw.  None: what the
        option use_cow_images says.
    :param conf: None for oslo.config's global one.  It is read anew for each
        disk, so that a changed option takes effect.
    :param glance: called with the context of a request; returns the image
        store to ask what disks in Ceph can be clones of, such as a
        GlanceStore.  None: the one that [glance] describes.
    :raises InvalidConfiguration: disks are to be in Ceph, and cannot be
    """

    def __init__(self, use_cow: bool | None = None,
                 conf: cfg.ConfigOpts | None = None,
                 glance: Callable[[Any], sources.ImageStore] | None = None,
                 ) -> None:
        self._use_cow = use_cow
        self._conf = conf
        self._glance = glance
        registered(conf)
        policy = self._host().policy
        if policy.images_type == "rbd":    # not when the first disk is made
            backends.Rbd.require(policy)

    def backend(self, image_type: str | None = None) -> type[Image]:
        """Return the class of a type's disks.

        :raises InvalidConfiguration: which is a RuntimeError; unknown type
        """
        return self._class(self._host(), image_type)

    def by_name(self, instance: Instance, name: str,
                image_type: str | None = None,
                disk_info_mapping: Mapping[str, Any] | None = None) -> Image:
        """Describe an instance's disk; nothing is changed.

        :param image_type: None for what an existing disk is on record as, or
            else for what is configured
        """
        return self._image(image_type, instance=instance, disk_name=name,
                           disk_info_mapping=disk_info_mapping)

    def by_libvirt_path(self, instance: Instance, path: str,
                        image_type: str | None = None) -> Image:
        """Describe the disk that libvirt knows by a path."""
        return self._image(image_type, instance=instance, path=path)

    def _image(self, image_type: str | None, **arguments: Any) -> Image:
        host = self._host()
        image = self._class(host, image_type)(**arguments, host=host)
        disk = image.disk
        if image_type is None and disk.capabilities.file \
                and disk.exists() and disk.format not in disk.formats:
            # The configuration has changed since the disk was made.
            return self._class(host, disk.format.value)(**arguments,
                                                        host=host)
        return image

    def _host(self) -> Host:
        return host_of(cfg.CONF if self._conf is None else self._conf)

    def _class(self, host: Host, image_type: str | None) -> type[Image]:
        name = image_type or host.policy.images_type
        if name == "default" and self._use_cow is not None:
            name = "qcow2" if self._use_cow else "raw"
        disk_class = backends.backend_for(host.policy, name)
        found = _CLASSES.get(disk_class)
        if found is None:
            found = type(disk_class.__name__, (
                FileImage if disk_class.capabilities.file else Image,),
                {"disk_class": disk_class})
            _CLASSES[disk_class] = found
        own = {"conf": self._conf, "glance": self._glance}
        if not any(own.values()):
            return found
        # So that the class, too, makes disks of this configuration.
        return type(found.__name__, (found,), own)
