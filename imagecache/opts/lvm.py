# SPDX-License-Identifier: Apache-2.0
"""The options of disks that are logical volumes; nova's if nova has them."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg

from imagecache.model import MiB
from imagecache.policy import LvmPolicy

_LIBVIRT_OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "images_volume_group", default=None,
        deprecated_name="libvirt_images_volume_group",
        deprecated_group="DEFAULT",
        help="Volume group of the disks, if images_type is lvm."),
    cfg.BoolOpt(
        "sparse_logical_volumes", default=False,
        deprecated_name="libvirt_sparse_logical_volumes",
        deprecated_group="DEFAULT",
        help="Make logical volumes that take space as the guest writes, each"
             " in a thin pool of its own. The pool starts with little more"
             " space than the image takes: let LVM extend it"
             " (thin_pool_autoextend_threshold in lvm.conf), or use one pool"
             " for all volumes by [image_cache] lvm_thin_pool."),
    cfg.StrOpt(
        "volume_clear", default=LvmPolicy.clear,
        choices=[("zero", "overwrite it with zeros"),
                 ("shred", "overwrite it three times with random data, then"
                           " with zeros"),
                 ("none", "keep it: the next volume can show it")],
        help="What happens to the content of a logical volume when it is"
             " removed. Thin volumes are not wiped: LVM never shows old data"
             " in a new one."),
    cfg.IntOpt(
        "volume_clear_size", default=0, min=0,
        help="MiB to wipe, from the start of the volume; 0 for all."),
)

_IMAGE_CACHE_OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "lvm_thin_pool", default=None,
        help="Thin pool in images_volume_group for the logical volumes. Each"
             " image is then converted once, into a base in the pool, and"
             " disks are snapshots of the base."),
    cfg.IntOpt(
        "lvm_pool_warning", default=LvmPolicy.pool_warning, min=1, max=100,
        help="Usage of a thin pool's data or metadata, in per cent, from"
             " which a warning is logged when a volume is made or grows."),
    cfg.IntOpt(
        "lvm_pool_limit", default=LvmPolicy.pool_limit, min=1, max=100,
        help="Usage of a thin pool's data or metadata, in per cent, above"
             " which no volume is made or grows."),
)

GROUPS: Sequence[tuple[str, Sequence[cfg.Opt]]] = (
    ("libvirt", _LIBVIRT_OPTS),
    ("image_cache", _IMAGE_CACHE_OPTS),
)


def lvm_policy_from(conf: cfg.ConfigOpts) -> LvmPolicy:
    libvirt, cache = conf.libvirt, conf.image_cache
    return LvmPolicy(
        volume_group=libvirt.images_volume_group,
        thin_pool=cache.lvm_thin_pool,
        sparse=libvirt.sparse_logical_volumes,
        clear=libvirt.volume_clear,
        clear_size=libvirt.volume_clear_size * MiB,
        pool_warning=cache.lvm_pool_warning,
        pool_limit=cache.lvm_pool_limit)
