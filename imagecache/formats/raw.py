# SPDX-License-Identifier: Apache-2.0
"""raw: an image that begins as no other format does.

A raw disk has no header, so the rule is a list of the marks that it must not
begin with: those by which qemu, and similar tools, recognize formats.  The
content of a guest's disk (partition tables, file systems) is not checked.
"""

from __future__ import annotations

import re

NEEDED = 512    # bytes at the beginning of a file that are checked

# The first bytes of formats, as qemu's drivers probe for them.
MAGIC: dict[str, tuple[int, bytes]] = {
    "qcow2": (0, b"QFI\xfb"),
    "qed": (0, b"QED\0"),
    "vmdk": (0, b"KDMV"),
    "vmdk (ESX)": (0, b"COWD"),
    "vhd": (0, b"conectix"),
    "vhdx": (0, b"vhdxfile"),
    "luks": (0, b"LUKS\xba\xbe"),
    "parallels": (0, b"WithoutFreeSpace"),
    "parallels (ext)": (0, b"WithouFreSpacExt"),
    "bochs": (0, b"Bochs Virtual HD Image"),
    "cloop": (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    "vdi": (0x40, (0xBEDA107F).to_bytes(4, "little")),
}

# How qemu recognizes the text of a vmdk: after comments and blank lines comes
# its version.
_VMDK_TEXT = re.compile(
    rb"(?:#[^\n]*\n|[ \t]*\r?\n)*version=[123]\r?\n", re.DOTALL)

# Text whose first line after the comments cannot be a line of a vmdk.
_OTHER_TEXT = re.compile(
    rb"(?!# *Disk *DescriptorFile)(?:#[^\n]*\n|[ \t]*\r?\n)*"
    rb"(?!#|[ \t]|\r?\n|(?:version|encoding|(?:parent)?CID|createType"
    rb"|isNativeSnapshot|parentFileNameHint)[ \t]*=|(?:RW|RDONLY|NOACCESS)\s)"
    rb"[^\n]*\n", re.IGNORECASE)


def is_other_text(start: bytes) -> bool:
    """Say whether the start is text, and not the text of a vmdk.

    :param start: the first 512 bytes, or the whole file
    """
    return _OTHER_TEXT.match(start[:NEEDED]) is not None


def format_of(start: bytes) -> str | None:
    """Name the format that a file begins as; None for raw.

    :param start: the first 512 bytes, or the whole file
    """
    for name, (offset, magic) in MAGIC.items():
        if start[offset:offset + len(magic)] == magic:
            return name
    if _VMDK_TEXT.match(start[:NEEDED]):
        return "vmdk (text)"
    return None
