# SPDX-License-Identifier: Apache-2.0
"""vmdk: VMware's format, the two kinds that are one file, and its rules.

Source: Virtual Disk Format 5.0 (VMware), and block/vmdk.c of qemu.  Numbers
are little-endian; offsets and sizes count sectors of 512 bytes.
"""

from __future__ import annotations

import dataclasses
import re
import string
import struct
from typing import BinaryIO

from imagecache.formats import reader
from imagecache.formats.rules import Rule, RuleViolation, require
from imagecache.model import KiB

_HEADER = "<4sIIQQQQIQQQB4sH"     # 79 bytes of 512
_SECTOR = 512
_KINDS = ("monolithicSparse", "streamOptimized")
_AT_END = 2**64 - 1               # the footer says where the directory is
_MARKS = b"\n \r\n"               # a transfer as text changes these
_LARGEST_DESCRIPTOR = 64 * KiB

_PLAIN = set(string.printable) - set("\v\f")

_EXTENT = re.compile(r"(?:RW|RDONLY|NOACCESS)\s")
_SPARSE_EXTENT = re.compile(r'RW\s+(\d+)\s+SPARSE\s+"[^/\\:"]+"\s*')
_SETTING = re.compile(r'([A-Za-z][\w.]*)\s*=\s*"?([^"]*?)"?\s*')
_SETTINGS = {"version", "encoding", "CID", "parentCID", "isNativeSnapshot",
             "createType"}
# qemu looks for these anywhere in the text, and takes the first.
_PARENT_HINT = "parentFileNameHint"
_SEARCHED = ("parentCID", "createType")


@dataclasses.dataclass(frozen=True)
class Image:
    version: int
    capacity: int            # sectors
    grain: int               # sectors
    descriptor_offset: int   # sectors
    descriptor_size: int     # sectors
    entries: int             # of a grain table
    directory: int           # sectors: where the grain directory is
    marks: bytes
    text: str                # the descriptor
    settings: dict[str, str]
    extents: tuple[str, ...]
    others: tuple[str, ...]  # lines that are neither
    footer_agrees: bool
    file_size: int


def _own_extent(image: Image) -> bool:
    found = [_SPARSE_EXTENT.fullmatch(line) for line in image.extents]
    return len(found) == 1 and found[0] is not None \
        and int(found[0][1]) == image.capacity


RULES: tuple[Rule[Image], ...] = (
    Rule("vmdk-version", "its version is not known",
         lambda i: i.version in (1, 2, 3)),
    # qemu follows the descriptor's extents where the capacity is 0.
    Rule("vmdk-capacity", "its header has no capacity",
         lambda i: i.capacity > 0),
    Rule("vmdk-marks", "it was damaged by a transfer as text",
         lambda i: i.marks == _MARKS),
    Rule("vmdk-grain", "its grains are out of range",
         lambda i: 8 <= i.grain <= 65536 and i.grain & (i.grain - 1) == 0
         and i.entries == 512),
    Rule("vmdk-type", "it is neither monolithicSparse nor streamOptimized",
         lambda i: i.settings.get("createType") in _KINDS),
    Rule("vmdk-parent", "it is a difference to another image",
         lambda i: i.settings.get("parentCID", "").lower() == "ffffffff"
         and _PARENT_HINT not in i.text),
    Rule("vmdk-extent", "its data is not only in this one file",
         _own_extent),
    Rule("vmdk-descriptor", "its descriptor has lines that are not known",
         lambda i: not i.others
         and all(i.text.count(name) == 1 for name in _SEARCHED)),
    Rule("vmdk-footer", "its footer contradicts its header",
         lambda i: i.footer_agrees),
    Rule("vmdk-directory", "its grain directory is not within the file",
         lambda i: i.directory == _AT_END
         or 0 < i.directory * _SECTOR < i.file_size),
)


def stated_size(start: bytes) -> int:
    """Return the virtual size, in bytes, that the first sector states."""
    return int.from_bytes(start[12:20], "little") * _SECTOR


def validate(f: BinaryIO, file_size: int) -> int:
    """Return the virtual size, in bytes.

    :raises RuleViolation: a rule is broken
    """
    header = reader.read(f, 0, _SECTOR)
    (_, version, _, capacity, grain, descriptor_offset, descriptor_size,
     entries, _, directory, _, _, marks, _) = struct.unpack_from(
        _HEADER, header)
    size = descriptor_size * _SECTOR
    if not descriptor_offset or not 0 < size <= _LARGEST_DESCRIPTOR:
        raise RuleViolation("vmdk-descriptor",
                            "it has no descriptor of its own")
    text = _text(reader.read(f, descriptor_offset * _SECTOR, size))
    require(RULES, Image(
        version, capacity, grain, descriptor_offset, descriptor_size,
        entries, directory, marks, text, *_parse(text),
        directory != _AT_END or _footer_agrees(f, file_size, header),
        file_size))
    return int(capacity * _SECTOR)


def _text(descriptor: bytes) -> str:
    try:
        text = descriptor.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise RuleViolation("vmdk-descriptor",
                            "its descriptor is not plain text") from None
    # Python ends lines at some control characters, and qemu does not.
    if not set(text) <= _PLAIN:
        raise RuleViolation("vmdk-descriptor",
                            "its descriptor has control characters")
    return text


def _parse(text: str
           ) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Sort the lines into settings, extents, and others."""
    settings: dict[str, str] = {}
    extents, others = [], []
    for line in map(str.strip, text.split("\n")):
        setting = _SETTING.fullmatch(line)
        if not line or line.startswith("#"):
            continue
        if _EXTENT.match(line):
            extents.append(line)
        elif setting and setting[1].startswith("ddb."):
            continue           # about the virtual hardware
        elif setting and setting[1] in _SETTINGS \
                and setting[1] not in settings:
            settings[setting[1]] = setting[2]
        else:
            others.append(line)
    return settings, tuple(extents), tuple(others)


def _footer_agrees(f: BinaryIO, file_size: int, header: bytes) -> bool:
    """Compare the header with its second copy, which qemu uses.

    The footer is the last but two of the file's sectors, between a marker
    and the end of the stream; only the grain directory's place may differ.
    """
    if file_size < 4 * _SECTOR:
        return False
    footer = reader.read(f, file_size - 2 * _SECTOR, _SECTOR)
    place = slice(56, 64)
    directory = int.from_bytes(footer[place], "little")
    return footer[:56] == header[:56] and footer[64:] == header[64:] \
        and 0 < directory * _SECTOR < file_size
