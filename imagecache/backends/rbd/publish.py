# SPDX-License-Identifier: Apache-2.0
"""A disk's content as an image in Glance's pool; no byte leaves the cluster.

    disk@snapshot --clone--> images/<image id> --flatten--> @snap, protected

The result is what Glance's own store makes of an upload, so Glance accepts it
as a location of the image, and other hosts can clone it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from imagecache import exception
from imagecache.backends.rbd.cluster import RbdName
from imagecache.backends.rbd.glance_images import SNAPSHOT, Location
from imagecache.tools import rbd
from imagecache.tools.rbd_image import Volume


def pool_of_glance(cluster: rbd.Cluster, image_id: str,
                   locations: Iterable[str],
                   parent: tuple[str, str, str] | None) -> str:
    """Return the pool in which Glance keeps an image.

    :param image_id: of the image that the disk was made from
    :param locations: its URLs, as far as Glance tells
    :param parent: pool, volume and snapshot that the disk is a clone of
    :raises ImageUnacceptable: it is not in this cluster, or not known to be
    """
    for location in filter(None, map(Location.parse, locations)):
        if location.fsid == cluster.fsid and location.image == image_id:
            return location.pool
    if parent and parent[1] == image_id:
        return parent[0]
    raise exception.ImageUnacceptable(
        image_id=image_id, reason="Glance names no location of it in this"
        " cluster, so the pool for a new image is not known")


def publish(cluster: rbd.Cluster, disk: RbdName, snapshot: str, pool: str,
            image_id: str) -> Location:
    """Copy a disk into Glance's pool, as it is at this moment.

    If a guest is running on it, the copy is what a power failure would leave.
    When this returns, the copy depends on no other volume.

    :param snapshot: a name that no snapshot of the disk has
    :raises Forbidden: the pool may not be written to
    :raises HostError: and nothing is left behind
    """
    with cluster.pool(disk.pool) as disks, cluster.pool(pool) as images, \
            disks.open(disk.image) as volume:
        volume.create_snapshot(snapshot)
        try:
            volume.protect(snapshot)
            _copy(disks, disk.image, snapshot, images, image_id)
        except exception.StorageForbidden as e:
            raise exception.Forbidden(
                image_id=image_id, reason=e.message) from e
        finally:
            _drop(volume, snapshot)
    return Location(cluster.fsid, pool, image_id, SNAPSHOT)


def withdraw(cluster: rbd.Cluster, location: Location, *,
             volume_too: bool) -> None:
    """Remove a snapshot, and its volume if asked; neither need be there.

    :raises StorageBusy: disks have been made of it since
    """
    with cluster.pool(location.pool) as pool:
        with contextlib.suppress(exception.StorageMissing), \
                pool.open(location.image) as volume:
            _drop(volume, location.snapshot)
        if volume_too:
            pool.remove(location.image)


def _copy(disks: rbd.Pool, disk: str, snapshot: str, images: rbd.Pool,
          image_id: str) -> None:
    images.clone(disks, disk, snapshot, image_id)
    try:
        with images.open(image_id) as image:
            image.flatten()
            image.create_snapshot(SNAPSHOT)
            try:
                image.protect(SNAPSHOT)
            except exception.HostError:
                image.remove_snapshot(SNAPSHOT)
                raise
    except exception.HostError:
        images.remove(image_id)
        raise


def _drop(volume: Volume, snapshot: str) -> None:
    with contextlib.suppress(exception.StorageMissing):
        if volume.is_protected(snapshot):
            volume.unprotect(snapshot)
        volume.remove_snapshot(snapshot)
