# SPDX-License-Identifier: Apache-2.0
"""Decide what a file really is, before anything else opens it.

Two opinions must agree, and agree with what was claimed: oslo.utils'
inspector, which looks at the bytes, and then qemu-img, told which driver to
use and held by limits.  What no rule accepts is refused.
"""

from __future__ import annotations

import pathlib

from oslo_utils.imageutils import format_inspector

from imagecache import exception
from imagecache.model import Format, Limits, Proven, whole_sectors
from imagecache.tools import qemu_img

# Raised whenever a rule becomes stricter: bases proven by older rules are
# proven again before their next use.
RULES = 1

_CHUNK = 1024 * 1024   # small reads cost the inspector 50 times more

# What the inspector finds, and what that is to a hypervisor.  The contents
# of a raw disk (a partition table, an ISO 9660 file system) are the guest's.
_FOUND = {"raw": Format.RAW, "gpt": Format.RAW, "iso": Format.RAW,
          "qcow2": Format.QCOW2}

# What an image may claim to be.  The kinds of Amazon's are raw bytes.
_CLAIMED = {"raw": Format.RAW, "iso": Format.RAW, "ami": Format.RAW,
            "aki": Format.RAW, "ari": Format.RAW, "qcow2": Format.QCOW2}


def prove(path: pathlib.Path, image_id: str, claim: str | None,
          limits: Limits) -> Proven:
    """Inspect content that somebody else chose, or refuse it.

    :param claim: the disk_format it is said to have; None if nobody said
    :raises ImageUnacceptable: ``reason`` names the rule
    """
    found = _inspect(path, image_id)
    if claim is not None:
        _require_claim(found, claim, image_id)
    if found is Format.RAW:
        return Proven(path, Format.RAW, whole_sectors(path.stat().st_size))
    return Proven(path, found, _qcow2_size(path, image_id, limits))


def trust(path: pathlib.Path) -> Proven:
    """Describe content this host made itself, which is always raw."""
    return Proven(path, Format.RAW, whole_sectors(path.stat().st_size))


def _inspect(path: pathlib.Path, image_id: str) -> Format:
    with path.open("rb") as f:
        wrapper = format_inspector.InspectWrapper(f)
        while wrapper.formats is None and wrapper.read(_CHUNK):
            pass
        empty = not f.tell()
        wrapper.close()
    if empty:
        raise exception.ImageUnacceptable(
            image_id=image_id, reason="it is empty")
    inspectors = {str(each): each for each in wrapper.formats or ()}
    # Two may match and agree: a hybrid ISO has a partition table as well.
    found = {_FOUND.get(name) for name in inspectors}
    agreed = found.pop() if len(found) == 1 else None
    if agreed is None:
        raise exception.ImageUnacceptable(
            image_id=image_id, reason="its content is "
            + " and ".join(sorted(inspectors))
            + "; accepted are raw, qcow2 and iso")
    if "qcow2" in inspectors:
        _require_safe(inspectors["qcow2"], image_id)
    return agreed


def _require_safe(inspector: format_inspector.FileInspector,
                  image_id: str) -> None:
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as e:
        raise exception.ImageUnacceptable(
            image_id=image_id, reason="it fails the safety checks "
            + ", ".join(sorted(e.failures))) from e
    except format_inspector.ImageFormatError as e:
        raise exception.ImageUnacceptable(
            image_id=image_id, reason=f"its header is damaged: {e}") from e


def _require_claim(found: Format, claim: str, image_id: str) -> None:
    if claim not in _CLAIMED:
        raise exception.ImageUnacceptable(
            image_id=image_id, reason=f"its disk_format is {claim};"
            " accepted are " + ", ".join(_CLAIMED))
    if _CLAIMED[claim] is not found:
        raise exception.ImageUnacceptable(
            image_id=image_id,
            reason=f"it claims to be {claim}, and its content is {found}")


def _qcow2_size(path: pathlib.Path, image_id: str, limits: Limits) -> int:
    try:
        info = qemu_img.info(path, Format.QCOW2, limits=limits)
    except exception.CommandNotFound:
        raise
    except exception.CommandFailed as e:
        raise exception.ImageUnacceptable(
            image_id=image_id,
            reason=f"qemu-img cannot read it: {e}") from e
    details = info.get("format-specific", {}).get("data", {})
    for what, there in (("a backing file", "backing-filename" in info),
                        ("a data file", "data-file" in details),
                        ("encryption", info.get("encrypted", False))):
        if there:
            raise exception.ImageUnacceptable(
                image_id=image_id, reason=f"it uses {what}")
    return int(info["virtual-size"])
