# SPDX-License-Identifier: Apache-2.0
"""The configuration: options of oslo.config, read once into a Policy.

Groups, names and defaults are nova's if nova has the option, so an agent's
configuration file stays valid.  If the embedding program has already
registered an option of the same name, that definition is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

from oslo_config import cfg, types

from imagecache.model import Format, GiB, KiB, Sandbox
from imagecache.opts import glance as glance_opts
from imagecache.opts import lvm as lvm_opts
from imagecache.opts import rbd as rbd_opts
from imagecache.policy import CONVERSION, INSPECTION, Policy

# Glance's names of the formats, and those of this library.
_FORMATS = {"raw": Format.RAW, "qcow2": Format.QCOW2, "vmdk": Format.VMDK,
            "vhd": Format.VPC, "vhdx": Format.VHDX, "vdi": Format.VDI}

DEFAULT_OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "instances_path", default="/var/lib/imagecache/instances",
        help="Directory that holds a directory for each instance, the base"
             " images, and the locks."),
    cfg.BoolOpt(
        "use_cow_images", default=True,
        deprecated_for_removal=True,
        deprecated_reason="[libvirt] images_type says the same: qcow2 for"
                          " true, raw for false",
        help="Make disks that share a base and hold only what the guest"
             " writes (qcow2). If false, every disk is a full copy (raw)."
             " Read only if images_type is 'default'."),
    cfg.BoolOpt(
        "force_raw_images", default=True,
        help="Convert every image to raw when it enters the cache. If false,"
             " a qcow2 image stays as it is: it takes less space and is cached"
             " faster, but guests read through its compression."),
    cfg.StrOpt(
        "preallocate_images", default="none",
        choices=[("none", "blocks are allocated as the guest writes"),
                 ("space", "all blocks are allocated when the disk is made")],
        help="Preallocation of the disks that are files. With 'space', a lack"
             " of space is an error when the disk is made, and not in the"
             " guest later."),
    cfg.BoolOpt(
        "resize_fs_using_block_device", default=False,
        help="Let the host grow an unpartitioned ext2, ext3 or ext4 inside a"
             " qcow2 disk, when the disk is made and when it grows, through a"
             " network block device (modprobe nbd), which root_helper"
             " connects. Guests with cloud-init grow it themselves; the host"
             " always grows it in raw disks and logical volumes."),
    cfg.StrOpt(
        "default_ephemeral_format", default=None,
        help="File system of ephemeral disks; ext4 if not set."),
)

LIBVIRT_OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "images_type", default="default",
        deprecated_name="libvirt_images_type", deprecated_group="DEFAULT",
        help="Backend of the disks: qcow2, raw (or flat), lvm, rbd, the name"
             " of an imagecache.backends entry point, or default, which"
             " follows use_cow_images."),
    cfg.BoolOpt(
        "snapshot_compression", default=False,
        deprecated_name="libvirt_snapshot_compression",
        deprecated_group="DEFAULT",
        help="Compress the qcow2 images that disks are extracted to."),
    cfg.StrOpt(
        "hw_disk_discard", default=None,
        choices=[("ignore", "they are ignored"),
                 ("unmap", "they free space on the host")],
        help="What happens to a guest's discard requests."),
    cfg.StrOpt(
        "virt_type", default="kvm",
        choices=["kvm", "lxc", "qemu", "parallels"],
        help="The hypervisor that libvirt drives."),
    cfg.IntOpt(
        "images_cpu_time_limit", default=INSPECTION.cpu_time, min=1,
        help="CPU time for qemu-img to inspect an image, in seconds."),
    cfg.IntOpt(
        "images_address_space_limit", default=2, min=1,
        help="Address space for qemu-img to inspect an image, in GiB."),
)

IMAGE_CACHE_OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "subdirectory_name", default="_base",
        deprecated_opts=[
            cfg.DeprecatedOpt("image_cache_subdirectory_name", "DEFAULT"),
            cfg.DeprecatedOpt("base_dir_name", "DEFAULT")],
        help="Directory of the bases, within instances_path."),
    cfg.StrOpt(
        "lock_path", default=None, sample_default="$instances_path/locks",
        help="Directory of the lock files. Hosts that share instances_path"
             " must share this too."),
    cfg.StrOpt(
        "lock_prefix", default="imagecache-",
        help="Prefix of the names of lock files. With 'nova-', nova and this"
             " library can use one directory of bases at the same time."),
    cfg.ListOpt(
        "accepted_formats", default=["raw", "qcow2"],
        item_type=types.String(choices=list(_FORMATS)),
        help="Formats of images that are accepted. The content of an image"
             " must have the format that the image claims. Each of vmdk, vhd,"
             " vhdx and vdi adds a large parser that a hostile image can"
             " attack."),
    cfg.BoolOpt(
        "resized_bases", default=False,
        help="Make qcow2 disks of whole GiB from a base of their size,"
             " <key>_<GiB>, which is copied from the image's own base once"
             " for each size. An unpartitioned ext file system on a raw base"
             " is grown in it once, for all guests of that size, and without"
             " a block device. Each size takes the space of the image again,"
             " unless the file system shares blocks (XFS, btrfs)."),
    cfg.IntOpt(
        "max_image_size", default=0, min=0,
        help="Largest image that is downloaded, in GiB; 0 for no limit."),
    cfg.IntOpt(
        "max_virtual_size", default=0, min=0,
        help="Largest virtual size of an image, in GiB; 0 for no limit."),
    cfg.IntOpt(
        "download_retries", default=3, min=0,
        help="How often in a row a broken download is resumed if no new byte"
             " arrives."),
    cfg.IntOpt(
        "download_min_rate", default=8, min=0,
        help="Lowest rate of a download, in KiB a second, on average over a"
             " minute; 0 for no limit."),
    cfg.BoolOpt(
        "allow_md5", default=False,
        help="Accept an image whose store has only an md5 checksum of it. A"
             " user that uploads images can make two images with the same"
             " md5."),
    cfg.FloatOpt(
        "connect_timeout", default=10.0, min=0.1,
        help="Seconds to wait for a connection to an image store: to all"
             " addresses of its name together, and then for the TLS"
             " handshake."),
    cfg.FloatOpt(
        "read_timeout", default=60.0, min=0.1,
        help="Seconds to wait for an image store: for its status and headers"
             " as a whole, for an image record as a whole, then each time for"
             " the next bytes of the image, and for the end of the answer."),
    cfg.StrOpt(
        "http_redirects", default="same-origin",
        choices=[("none", "a redirect is an error"),
                 ("same-origin", "only redirects to the same server"),
                 ("any", "redirects to any server")],
        help="Which redirects of a web server are followed."),
    cfg.StrOpt(
        "http_ca_file", default=None,
        help="File with the certificates of the authorities that vouch for"
             " web servers; if not set, those of the system."),
    cfg.StrOpt(
        "sandbox", default=Sandbox.AVAILABLE.value,
        choices=[("required", "programs do not run without a sandbox"),
                 ("available", "a sandbox is used if this host has one"),
                 ("never", "programs run with resource limits only")],
        help="Whether programs that read data of a tenant or a guest"
             " (qemu-img, e2fsck) run in a sandbox, in which they can access"
             " only the files they work on. The sandbox is Landlock, or else"
             " bubblewrap."),
    cfg.StrOpt(
        "root_helper", default="sudo",
        help="Command that runs other commands as root: those that make"
             " logical volumes and block devices. It can have arguments, and"
             " is not run by a shell. An agent that is root does not use it."),
    cfg.IntOpt(
        "inspection_timeout", default=INSPECTION.wall_clock, min=1,
        help="Longest time for the inspection of one image, in seconds."),
    cfg.IntOpt(
        "conversion_timeout", default=CONVERSION.wall_clock, min=1,
        help="Longest time for the conversion of one image, or the check of"
             " one file system, in seconds."),
    cfg.IntOpt(
        "conversion_cpu_time_limit", default=CONVERSION.cpu_time, min=1,
        help="CPU time for a conversion, in seconds, over all processors."),
    cfg.IntOpt(
        "conversion_address_space_limit", default=4, min=1,
        help="Address space for a conversion, in GiB."),
)

_GROUPS: Sequence[tuple[str, Sequence[cfg.Opt]]] = (
    ("DEFAULT", DEFAULT_OPTS),
    ("libvirt", LIBVIRT_OPTS),
    ("image_cache", IMAGE_CACHE_OPTS),
    *lvm_opts.GROUPS,
    *rbd_opts.GROUPS,
)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return every option by group, as oslo-config-generator wants them."""
    mine = [(group, list(options)) for group, options in _GROUPS]
    return mine + glance_opts.list_glance_opts()


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option that ``conf`` does not have yet."""
    for group, options in _GROUPS:
        for option in options:
            _register(conf, option, None if group == "DEFAULT" else group)
    glance_opts.register_glance_opts(conf)


def _register(conf: cfg.ConfigOpts, option: cfg.Opt,
              group: str | None) -> None:
    # A definition of the embedding program is kept.
    with contextlib.suppress(cfg.DuplicateOptError):
        conf.register_opt(option, group=group)


def policy_from(conf: cfg.ConfigOpts) -> Policy:
    """Return the settings that the configuration holds now."""
    libvirt, cache, glance = conf.libvirt, conf.image_cache, conf.glance
    return Policy(
        instances=pathlib.Path(conf.instances_path).absolute(),
        base_subdirectory=cache.subdirectory_name,
        lock_directory=_absolute(cache.lock_path),
        lock_prefix=cache.lock_prefix,
        images_type=libvirt.images_type,
        use_cow=conf.use_cow_images,
        force_raw=conf.force_raw_images,
        preallocate=conf.preallocate_images == "space",
        resize_fs_using_block_device=conf.resize_fs_using_block_device,
        resized_bases=cache.resized_bases,
        compress_snapshots=libvirt.snapshot_compression,
        ephemeral_format=conf.default_ephemeral_format or "ext4",
        discard=libvirt.hw_disk_discard,
        virt_type=libvirt.virt_type,
        root_helper=cache.root_helper,
        lvm=lvm_opts.lvm_policy_from(conf),
        rbd=rbd_opts.rbd_policy_from(conf),
        accepted=frozenset(map(_FORMATS.__getitem__, cache.accepted_formats)),
        max_image_size=cache.max_image_size * GiB or None,
        max_virtual_size=cache.max_virtual_size * GiB or None,
        retries=cache.download_retries,
        min_rate=cache.download_min_rate * KiB,
        allow_md5=cache.allow_md5,
        verify_signatures=glance.verify_glance_signatures,
        validate_certificates=glance.enable_certificate_validation,
        trusted_certificates=tuple(glance.default_trusted_certificate_ids),
        inspection=dataclasses.replace(
            INSPECTION, sandbox=Sandbox(cache.sandbox),
            cpu_time=libvirt.images_cpu_time_limit,
            address_space=libvirt.images_address_space_limit * GiB,
            wall_clock=cache.inspection_timeout),
        conversion=dataclasses.replace(
            CONVERSION, sandbox=Sandbox(cache.sandbox),
            cpu_time=cache.conversion_cpu_time_limit,
            address_space=cache.conversion_address_space_limit * GiB,
            wall_clock=cache.conversion_timeout))


def _absolute(path: str | None) -> pathlib.Path | None:
    return pathlib.Path(path).absolute() if path else None
