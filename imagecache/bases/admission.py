# SPDX-License-Identifier: Apache-2.0
"""Whether a base may be used for a source, and for a disk of a size."""

from __future__ import annotations

from imagecache import exception
from imagecache.inspection import inspector
from imagecache.model import Base, Entry, Format
from imagecache.policy import Policy
from imagecache.sources import Requirements, Source


def require_min_disk(source: Source, size: int | None) -> None:
    """Refuse a disk that is smaller than its image's store allows.

    :param size: bytes of the disk; None or 0: what the image has
    :raises FlavorDiskSmallerThanMinDisk: it is smaller
    """
    least = source.requires.min_disk
    if size and size < least:
        raise exception.FlavorDiskSmallerThanMinDisk(
            flavor_size=size, image_min_disk=least)


def require_fit(source: Source, virtual_size: int, size: int | None,
                policy: Policy) -> None:
    """Refuse an image before a base or a disk is made of it.

    :param virtual_size: bytes a guest would see of it
    :param size: bytes of the disk that is wanted; None or 0: any
    :raises FlavorDiskSmallerThanImage: the wanted disk cannot hold it
    :raises ImageTooLarge: the site's limit is lower
    """
    if source.requires.virtual_size is not None:
        return    # its size is that of the disk, and not of the image
    if size and size < virtual_size:
        raise exception.FlavorDiskSmallerThanImage(
            flavor_size=size, image_size=virtual_size)
    limit = policy.max_virtual_size
    if limit is not None and virtual_size > limit:
        raise exception.ImageTooLarge(
            image_id=source.name, size=virtual_size, what="virtual size",
            option="[image_cache] max_virtual_size", limit=limit)


def require_same_image(source: Source, entry: Entry) -> None:
    """Refuse a base that was not made from the source as it is described.

    :raises ImageChanged: the base was made from other bytes
    :raises ImageUnacceptable: these bytes had another format than claimed
    :raises BaseNotVerified: their signature was not verified as required;
        that of a base without a record can be verified again
    """
    _require_digest(source.requires, source.name, entry)
    _require_claim(source.requires, source.name, entry)
    if entry.record is not None:
        require_signature(source, entry)


def require_signature(source: Source, entry: Entry) -> None:
    """Refuse a base whose record lacks the signature that is required.

    The bytes of a converted base are not those that were signed, so it cannot
    be verified now; nor may it be replaced while it has disks.

    :raises BaseNotVerified: the record has none, or another one
    """
    wanted = source.requires.certificate
    had = entry.record.signature if entry.record else None
    if wanted is not None and had != wanted:
        raise exception.BaseNotVerified(
            image_id=source.name, wanted=wanted, key=entry.key,
            had=f"was verified with {had}" if had else "was not verified")


def require_size(source: Source, base: Base) -> None:
    """Refuse a resized base that its maker, for example nova, did not finish.

    Disks may have been made of it all the same, so it stays as it is.

    :raises StorageFailed: the base has not the size that its key says
    """
    wanted = source.requires.virtual_size
    if wanted not in (None, base.virtual_size):
        raise exception.StorageFailed(
            what="using a resized base", path=base.path,
            reason=f"it has {base.virtual_size} bytes, and not {wanted}: its"
            " resizing was not finished; remove it, and the next disk makes it"
            " again")


def require_format(base: Base, format: Format | None) -> None:
    """Refuse a base through which a disk would read as other content.

    :param format: as which the disk reads its base; None: as either
    :raises StorageFailed: the base has another format
    """
    if format not in (None, base.format):
        raise exception.StorageFailed(
            what="reading a disk through its base", path=base.path,
            reason=f"it is {base.format}, and the disk reads it as {format}:"
            " the disk was made where force_raw_images was set otherwise")


def _require_digest(required: Requirements, name: str,
                    entry: Entry) -> None:
    wanted = required.digest
    had = entry.record.digest if entry.record else None
    # A digest of another algorithm says nothing about the one on record.
    if wanted and had and had.startswith(f"{wanted.algorithm}:") \
            and had != str(wanted):
        raise exception.ImageChanged(
            image_id=name, actual=wanted, expected=had, key=entry.key)


def _require_claim(required: Requirements, name: str, entry: Entry) -> None:
    claim = required.disk_format
    found = entry.record.source_format if entry.record else None
    if claim and found and inspector.CLAIMS.get(claim) != found:
        raise exception.ImageUnacceptable(
            image_id=name, reason=f"it claims to be {claim}, and its"
            f" content was {found} (rule claim)", rule="claim")
