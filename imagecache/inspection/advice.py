# SPDX-License-Identifier: Apache-2.0
"""What the owner of an image can do if a rule refuses it."""

from __future__ import annotations

from imagecache import exception, text

# Characters of a reason; an error would cut a longer one before its rule.
_LONGEST = 800

_UPLOAD = "upload the whole image again"
_CONVERT = "convert it with qemu-img convert -O qcow2"
_MERGE = f"on a machine that has all its files, {_CONVERT}"
_SHUT_DOWN = "shut its machine down, and upload it again"

# A rule that is not here is broken by damage or by hand only.
_ADVICE = {
    **dict.fromkeys(("empty", "whole", "truncated", "all-data", "corrupt",
                     "refcount-blocks", "l1-entry", "l2-entry",
                     "vmdk-marks"), _UPLOAD),
    **dict.fromkeys(("format-known", "format-accepted", "claim-known",
                     "version", "features", "compression", "safety",
                     "vmdk-type", "vmdk-descriptor", "vhd-type", "vdi-type",
                     "vhdx-block"), _CONVERT),
    **dict.fromkeys(("backing-file", "data-file", "vmdk-extent",
                     "vmdk-parent", "vhd-parent", "vhdx-parent",
                     "vdi-parent"), _MERGE),
    **dict.fromkeys(("vhd-state", "vhdx-log"), _SHUT_DOWN),
    "claim": "upload it with the disk_format that it has",
    "encryption": "decrypt it, and upload it again",
    "nested": "upload the inner image instead",
}


def unacceptable(image_id: str, reason: str,
                 rule: str) -> exception.ImageUnacceptable:
    """Return the error for an image that breaks a rule."""
    reason = text.one_line(reason, _LONGEST)
    if rule in _ADVICE:
        reason = f"{reason}; {_ADVICE[rule]}"
    return exception.ImageUnacceptable(
        image_id=image_id, reason=f"{reason} (rule {rule})", rule=rule)
