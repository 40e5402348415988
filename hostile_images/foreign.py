# SPDX-License-Identifier: Apache-2.0
"""Images of formats other than raw and qcow2: valid ones and hostile ones.

qemu-img writes the formats that it can write; this module builds the others.
"""

from __future__ import annotations

import struct
import uuid

from hostile_images.canary import Sentinel
from imagecache.model import KiB, MiB
from imagecache.testing import images

SECTOR = 512
_DESCRIPTOR = slice(SECTOR, 21 * SECTOR)   # in a vmdk of qemu-img

VDI_MARK = (0xBEDA107F).to_bytes(4, "little")
CLOOP = (b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t"
         b" iso9660 /dev/cloop $1\n")


def descriptor(kind: str, *lines: str, parent: str = "ffffffff",
               before: str = "# Disk DescriptorFile\n",
               version: str = "1", newline: str = "\n") -> bytes:
    """Return the text of a vmdk."""
    return (before + newline.join((
        f"version={version}", "CID=12345678", f"parentCID={parent}",
        f'createType="{kind}"', "", "# Extent description", *lines, "",
        "# The Disk Data Base", 'ddb.adapterType = "ide"', ""))).encode()


def flat(sentinel: Sentinel, kind: str = "FLAT") -> str:
    """Return the line that makes a file of the host the data of a vmdk."""
    return f'RW 8 {kind} "{sentinel.path}"' + (" 0" if kind == "FLAT" else "")


def vmdk(text: bytes, subformat: str = "monolithicSparse",
         **fields: int) -> bytes:
    """Return a vmdk with ``text`` in place of its own descriptor.

    :param fields: values to write into its header, by the field's name
    """
    image = bytearray(images.convert(
        images.content(), "vmdk", "-o", f"subformat={subformat}"))
    image[_DESCRIPTOR] = text.ljust(20 * SECTOR, b"\0")
    places = {"version": (4, "<I"), "capacity": (12, "<Q"),
              "grain": (20, "<Q"), "descriptor_offset": (28, "<Q"),
              "descriptor_size": (36, "<Q"), "entries": (44, "<I"),
              "directory": (56, "<Q"), "marks": (73, "<I")}
    for name, value in fields.items():
        at, layout = places[name]
        struct.pack_into(layout, image, at, value)
    return bytes(image)


def sparse_text(*more: str, kind: str = "monolithicSparse",
                parent: str = "ffffffff", extent: str | None = None) -> bytes:
    """Return the text of a vmdk that consists of one file."""
    own = f'RW {MiB // SECTOR} SPARSE "disk.vmdk"'
    return descriptor(kind, own if extent is None else extent, *more,
                      parent=parent)


def cowd() -> bytes:
    """Return a disk in the old sparse format of ESX."""
    return b"COWD" + bytes(MiB)


def vhd(kind: int = 3, size: int | None = None, version: int = 0x10000,
        state: int = 0, creator: bytes = b"", geometry: bytes = b"",
        blocks: bytes = b"", **header: bytes) -> bytes:
    """Return a dynamic vhd.

    :param kind: 2 fixed, 3 dynamic, 4 a difference
    :param blocks: the first bytes of its block table
    :param header: bytes to write into the dynamic header: cookie, parent,
        parent_name, locators, table (its offset), entries, block
    """
    image = bytearray(images.convert(images.content(), "vpc"))
    footer = image[:SECTOR]
    struct.pack_into(">I", footer, 12, version)
    footer[84] = state
    struct.pack_into(">I", footer, 60, kind)
    if size is not None:
        struct.pack_into(">Q", footer, 48, size)
    footer[28:28 + len(creator)] = creator
    footer[56:56 + len(geometry)] = geometry
    _sum(footer, 64)
    image[:SECTOR] = image[-SECTOR:] = footer
    image[3 * SECTOR:3 * SECTOR + len(blocks)] = blocks
    dynamic = image[SECTOR:3 * SECTOR]
    places = {"cookie": 0, "table": 16, "entries": 28, "block": 32,
              "parent": 40, "parent_name": 64, "locators": 576}
    for name, value in header.items():
        at = places[name]
        dynamic[at:at + len(value)] = value
    _sum(dynamic, 36)
    image[SECTOR:3 * SECTOR] = dynamic
    return bytes(image)


def vhd_in_footer() -> bytes:
    """Return a vhd whose dynamic header begins within its footer."""
    image = bytearray(vhd())
    image[256:256 + 1024] = image[SECTOR:3 * SECTOR]
    footer = image[:SECTOR]
    struct.pack_into(">Q", footer, 16, 256)
    _sum(footer, 64)
    image[:SECTOR] = image[-SECTOR:] = footer
    return bytes(image)


def _sum(block: bytearray, at: int) -> None:
    block[at:at + 4] = bytes(4)
    struct.pack_into(">I", block, at, ~sum(block) & 0xFFFFFFFF)


def vhdx_guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


VHDX_PARAMETERS = vhdx_guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VHDX_SIZE = vhdx_guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
VHDX_SECTOR = vhdx_guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_BAT = vhdx_guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
_PARENT = vhdx_guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_HEADERS = (64 * KiB, 128 * KiB)
_REGIONS = (192 * KiB, 256 * KiB)


def vhdx(log: bytes | None = None, parent: bytes | None = None,
         regions: dict[int, bytes] | None = None,
         items: dict[bytes, bytes] | None = None,
         entries: dict[bytes, bytes] | None = None,
         table: dict[int, bytes] | None = None,
         blocks: bytes = b"") -> bytes:
    """Return a dynamic vhdx.

    :param log: the guid of a log to replay
    :param parent: the locator of a parent image
    :param regions: bytes for both region tables, by offset
    :param items: values of metadata items, by guid
    :param entries: bytes for the table entries of metadata items, after the
        guid (offset and length), by guid
    :param table: bytes for the metadata table, by offset
    :param blocks: the first bytes of its block table
    """
    image = bytearray(images.convert(images.content(), "vhdx",
                                     "-o", "block_size=1M"))
    metadata = image.index(b"metadata")

    def put(at: int, data: bytes) -> None:
        image[at:at + len(data)] = data

    for guid, data in (items or {}).items():
        entry = image.index(guid, metadata)
        offset, = struct.unpack_from("<I", image, entry + 16)
        put(metadata + offset, data)
    for guid, data in (entries or {}).items():
        put(image.index(guid, metadata) + 16, data)
    for offset, data in (table or {}).items():
        put(metadata + offset, data)
    put(_bat(image), blocks)
    for offset, data in (regions or {}).items():
        for at in _REGIONS:
            put(at + offset, data)
    for at in _HEADERS if log else ():
        put(at + 48, log or b"")
    if parent is not None:
        _add_parent(image, metadata, parent)
    return bytes(image)


def _bat(image: bytearray) -> int:
    """Return the offset of the block table."""
    entry = image.index(_BAT, _REGIONS[0])
    return int.from_bytes(image[entry + 16:entry + 24], "little")


def _add_parent(image: bytearray, metadata: int, parent: bytes) -> None:
    count, = struct.unpack_from("<H", image, metadata + 10)
    struct.pack_into("<H", image, metadata + 10, count + 1)
    offset = 65536 + 4096
    struct.pack_into("<16sIII", image, metadata + 32 + 32 * count,
                     _PARENT, offset, len(parent), 4)
    image[metadata + offset:metadata + offset + len(parent)] = parent


def vdi(blocks: bytes = b"", **fields: int) -> bytes:
    """Return a vdi, with ``fields`` written into its header.

    :param blocks: the first bytes of its block map
    """
    image = bytearray(images.convert(images.content(), "vdi"))
    image[SECTOR:SECTOR + len(blocks)] = blocks
    places = {"version": (0x44, "<I"), "kind": (0x4c, "<I"),
              "map_offset": (0x154, "<I"), "data_offset": (0x158, "<I"),
              "sector": (0x168, "<I"),
              "size": (0x170, "<Q"), "block": (0x178, "<I"),
              "count": (0x180, "<I"), "parent": (0x1b8, "<Q")}
    for name, value in fields.items():
        at, layout = places[name]
        struct.pack_into(layout, image, at, value)
    return bytes(image)


def luks(version: int = 1) -> bytes:
    """Return a file with a LUKS header and 1 MiB of data."""
    return (b"LUKS\xba\xbe" + struct.pack(
        ">H32s32s32sII20s32sI40s", version, b"aes", b"xts-plain64",
        b"sha256", 4096, 64, b"d" * 20, b"s" * 32, 1000,
        str(uuid.UUID(int=1)).encode())).ljust(MiB, b"\x5a")


def bochs() -> bytes:
    return struct.pack("<32s16s16sII", b"Bochs Virtual HD Image", b"Redolog",
                       b"Growing", 0x20000, 512).ljust(MiB, b"\0")


def cloop() -> bytes:
    return (CLOOP.ljust(128, b"\0") + struct.pack(">II", 65536, 1)
            + struct.pack(">QQ", 152, 160)).ljust(4096, b"\0")


def dmg() -> bytes:
    """Return a raw disk with the trailer of Apple's format."""
    trailer = struct.pack(">4sIII", b"koly", 4, SECTOR, 1)
    return images.content() + trailer.ljust(SECTOR, b"\0")
