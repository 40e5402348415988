# SPDX-License-Identifier: Apache-2.0
"""Raw images as they are found in clouds, as far as their first megabyte.

What makes people, and inspectors, doubt is at the beginning: boot sectors,
partition tables, the superblocks of file systems.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator

from hostile_images import claims
from hostile_images.sample import Accepted, raw
from imagecache.model import KiB, MiB
from imagecache.testing import images

_SECTOR = 512
_BOOTS = b"\x55\xaa"


def samples() -> Iterator[Accepted]:
    yield from _plain()
    yield from _partitioned()
    yield from _boot_sectors()
    yield from _file_systems()
    yield from _others()
    yield from claims.harmless()


def _plain() -> Iterator[Accepted]:
    yield raw("raw-zeros", bytes(MiB))
    yield raw("raw-data", images.content(96 * KiB, 7))
    yield raw("raw-sparse", images.content())
    yield raw("raw-ones", b"\xff" * 64 * KiB)
    for size in (1, 511, 513, 4095, 64 * KiB + 1, MiB + 100):
        yield raw(f"raw-of-{size}", images.content(size, 8))
    for claim in ("ami", "aki", "ari"):
        yield raw(f"{claim}-data", images.content(64 * KiB, 9), claim)


def _partitioned() -> Iterator[Accepted]:
    yield raw("mbr", images.mbr())
    yield raw("mbr-as-ami", images.mbr(), "ami")
    yield raw("gpt", images.gpt())
    linux, boots, guard = _entry(0x83), _entry(0x83, 0x80), _entry(0xee, 0, 1)
    tables = {
        "mbr-four": (boots, linux, _entry(0x82), _entry(5)),
        "mbr-none-boots": (linux,),
        "mbr-empty": (),
        "mbr-odd-boot-flag": (_entry(0x83, 0x01),),
        "mbr-two-boot": (boots, boots),
        # A boot loader's code reaches into the table.
        "mbr-superfloppy": (b"\xcd\x13\x72\x05" * 4,) * 4,
        # GPT, and the first of its partitions for a BIOS to boot from.
        "hybrid": (guard, boots),
        "hybrid-reversed": (boots, guard),
        "gpt-of-microsoft": (_entry(0xee, 0, 1, b"\0\x02\0"),),
        "gpt-boots": (_entry(0xee, 0x80, 1),),
    }
    for id, entries in tables.items():
        yield raw(id, _table(*entries))
    yield raw("gpt-whole", _gpt())
    yield raw("gpt-without-copy", _gpt()[:-_SECTOR] + bytes(_SECTOR))


def _entry(kind: int, flag: int = 0, start: int = 63,
           chs: bytes = b"\xfe\xff\xff") -> bytes:
    return struct.pack("<B3sB3sII", flag, chs, kind, b"\xfe\xff\xff", start,
                       MiB // _SECTOR - start)


def _table(*entries: bytes, code: bytes = b"\xeb\x63\x90") -> bytes:
    return code.ljust(446, b"\x90") + b"".join(entries).ljust(64, b"\0") \
        + _BOOTS + images.content()[_SECTOR:]


def _gpt() -> bytes:
    """Return a disk with both copies of an empty GPT."""
    last = MiB // _SECTOR - 1

    def header(own: int, other: int) -> bytes:
        fields = [b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, last - 33,
                  b"u" * 16, 2 if own == 1 else last - 32, 128, 128,
                  binascii.crc32(bytes(128 * 128))]
        layout = "<8sIIIIQQQQ16sQIII"
        fields[3] = binascii.crc32(struct.pack(layout, *fields))
        return struct.pack(layout, *fields).ljust(_SECTOR, b"\0")

    start = _table(_entry(0xee, 0, 1, b"\0\x02\0"))[:_SECTOR]
    return start + header(1, last) \
        + bytes(MiB - 3 * _SECTOR) + header(last, 1)


def _boot_sectors() -> Iterator[Accepted]:
    """File systems without a partition table begin as if they had one."""
    for id, start in {
            "ntfs": b"\xeb\x52\x90NTFS    \0\2\x08",
            "exfat": b"\xeb\x76\x90EXFAT   ",
            "fat12": b"\xeb\x3c\x90MSDOS5.0\0\2\1\1\0\2\xe0\0\x40\x0b\xf0",
            "fat16": b"\xeb\x3c\x90mkfs.fat\0\2\4\4\0\2\0\2\0\0\xf8",
            "fat32": b"\xeb\x58\x90mkfs.fat\0\2\x08\x20\0\2\0\0\0\0\xf8",
            "grub": b"\xeb\x63\x90\x10\x8e\xd0\xbc\0\xb0\xb8\0\0",
            "syslinux": b"\xeb\x58\x90SYSLINUX",
            "isolinux": b"\xfa\x31\xc0\x8e\xd0\xbc\0\x7c",
            }.items():
        noise = images.content(446, 10)
        yield raw(f"boots-{id}", start + noise[len(start):] + noise[:64]
                  + _BOOTS + images.content()[_SECTOR:])


def _file_systems() -> Iterator[Accepted]:
    for id, (at, mark) in {
            "ext4": (0x438, b"\x53\xef"),
            "xfs": (0, b"XFSB\0\0\x10\0"),
            "btrfs": (0x10040, b"_BHRfS_M"),
            "squashfs": (0, b"hsqs"),
            "swap": (4086, b"SWAPSPACE2"),
            "lvm": (512, b"LABELONE\1\0\0\0\0\0\0\0"),
            "zfs": (128 * KiB, b"\x0c\xb1\xba\0"),
            "md": (4096, b"\xfc\x4e\x2b\xa9"),
            "luks-in-partition": (63 * _SECTOR, b"LUKS\xba\xbe\0\1"),
            "qcow2-in-partition": (63 * _SECTOR, b"QFI\xfb\0\0\0\3"),
            "udf": (32769, b"BEA01\1"),
            }.items():
        content = bytearray(images.mbr() if "partition" in id
                            else bytes(MiB))
        content[at:at + len(mark)] = mark
        yield raw(f"holds-{id}", bytes(content))
    yield raw("iso-plain", images.iso(), "iso")
    yield raw("iso-hybrid", images.hybrid_iso(), "iso")
    yield raw("iso-hybrid-gpt", _table(
        _entry(0, 0x80), _entry(0xef))[:_SECTOR] + images.iso()[_SECTOR:],
        "iso")
    yield raw("iso-as-raw", images.iso())
    yield raw("iso-hybrid-as-raw", images.hybrid_iso())


def _others() -> Iterator[Accepted]:
    """What is uploaded as a kernel, a ramdisk, or by people who try."""
    setup = bytearray(images.content(64 * KiB, 11))
    setup[0x1fe:0x206] = _BOOTS + b"\xeb\x66HdrS"
    yield raw("aki-bzimage", bytes(setup), "aki")
    yield raw("raw-bzimage", bytes(setup))
    for id, start, claim in (
            ("cpio", b"070701" + b"0" * 104, "ari"),
            ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\3", "ari"),
            ("elf", b"\x7fELF\2\1\1\0", "aki"),
            ("efi", b"MZ\0\0", "raw"),
            ("xz", b"\xfd7zXZ\0", "raw"),
            ("zip", b"PK\3\4", "raw"),
            ("cloud-config", b"#cloud-config\nusers: []\n", "raw"),
            ("script", b"#!/bin/sh\nexec true\n", "raw"),
            ("comments", b"# a\n# b\n\n# c\n", "raw"),
            ("text", b"Hello, World.\n", "raw")):
        yield raw(f"{claim}-{id}", start.ljust(8192, b"\n"), claim)
    # The inspector of oslo.utils 10.2 fails on text and other bytes.
    for id, start, then in (
            ("and-archive", b"#!/bin/sh\n# and an archive\n", b"\xff"),
            ("and-utf8", b"#cloud-config\nusers: []\n",
             "# M\u00fcller\n".encode())):
        yield raw(f"raw-text-{id}", start * 99 + then * 512)
