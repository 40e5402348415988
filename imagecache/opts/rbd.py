# SPDX-License-Identifier: Apache-2.0
"""The options of disks in Ceph: nova's, and those on bases in a pool."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg

from imagecache.policy import RbdPolicy

_LIBVIRT_OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "images_rbd_pool", default="rbd",
        deprecated_name="libvirt_images_rbd_pool",
        deprecated_group="DEFAULT",
        help="Pool of Ceph that holds the disks, if images_type is rbd."),
    cfg.StrOpt(
        "images_rbd_ceph_conf", default="",
        deprecated_name="libvirt_images_rbd_ceph_conf",
        deprecated_group="DEFAULT",
        help="Path of the cluster's ceph.conf; if empty, Ceph uses its"
             " default paths."),
    cfg.StrOpt(
        "rbd_user", deprecated_group="DEFAULT",
        help="Ceph's user, without 'client.', for this library and for the"
             " hypervisor; admin if not set. It must be allowed"
             " 'profile rbd' of the monitors, and of every pool it uses."),
    cfg.StrOpt(
        "rbd_secret_uuid", deprecated_group="DEFAULT",
        help="UUID of the secret in libvirt that has this user's key."),
    cfg.IntOpt(
        "rbd_connect_timeout", default=5, min=1,
        help="Seconds to wait for a monitor of the cluster to answer."),
    cfg.StrOpt(
        "images_rbd_glance_store_name", default="",
        help="Name of Glance's store in this cluster. Glance is asked to copy"
             " a raw image to it that is not there yet, and disks are clones"
             " of the copy. If empty, no copy is requested."),
    cfg.IntOpt(
        "images_rbd_glance_copy_poll_interval", default=15, min=1,
        help="Seconds between two checks whether Glance has copied an image."),
    cfg.IntOpt(
        "images_rbd_glance_copy_timeout", default=600, min=1,
        help="Longest time for a copy, in seconds."),
    cfg.IntOpt(
        "rbd_destroy_volume_retries", default=12, min=0,
        help="How often the removal of a disk that is in use is repeated:"
             " Ceph takes half a minute to notice that a guest was killed."),
    cfg.IntOpt(
        "rbd_destroy_volume_retry_interval", default=5, min=0,
        help="Seconds between two of these attempts."),
)

_IMAGE_CACHE_OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "rbd_base_pool", default=None,
        help="Pool of Ceph that holds the bases of disks in Ceph; if not set,"
             " the pool of the disks. If all hosts of a cluster use the same"
             " pool, each image is converted once for all of them."),
    cfg.BoolOpt(
        "rbd_flatten_disks", default=False,
        help="Copy the base into each disk, so that the disk does not depend"
             " on it. This takes the time and the space that clones save."),
    cfg.IntOpt(
        "rbd_operation_timeout", default=60, min=1,
        help="Seconds to wait for an answer of the cluster, once connected."
             " With less than the 30 seconds that Ceph takes to notice a"
             " lost OSD, each such loss is an error."),
)

_WORKAROUNDS_OPTS: Sequence[cfg.Opt] = (
    cfg.BoolOpt(
        "never_download_image_if_on_rbd", default=False,
        help="Refuse to make a disk in Ceph from an image that cannot be"
             " cloned from Glance's store in the cluster. If false, a base is"
             " made from such an image."),
)

GROUPS: Sequence[tuple[str, Sequence[cfg.Opt]]] = (
    ("libvirt", _LIBVIRT_OPTS),
    ("image_cache", _IMAGE_CACHE_OPTS),
    ("workarounds", _WORKAROUNDS_OPTS),
)


def rbd_policy_from(conf: cfg.ConfigOpts) -> RbdPolicy:
    libvirt, cache = conf.libvirt, conf.image_cache
    return RbdPolicy(
        pool=libvirt.images_rbd_pool,
        conf=libvirt.images_rbd_ceph_conf,
        user=libvirt.rbd_user,
        secret=libvirt.rbd_secret_uuid,
        connect_timeout=libvirt.rbd_connect_timeout,
        timeout=cache.rbd_operation_timeout,
        base_pool=cache.rbd_base_pool or libvirt.images_rbd_pool,
        flatten=cache.rbd_flatten_disks,
        retries=libvirt.rbd_destroy_volume_retries,
        retry_interval=libvirt.rbd_destroy_volume_retry_interval,
        glance_store=libvirt.images_rbd_glance_store_name,
        glance_copy_poll_interval=
        libvirt.images_rbd_glance_copy_poll_interval,
        glance_copy_timeout=libvirt.images_rbd_glance_copy_timeout,
        never_download=conf.workarounds.never_download_image_if_on_rbd)
