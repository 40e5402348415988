# SPDX-License-Identifier: Apache-2.0
"""Images of formats that are not accepted unless the operator says so.

Each is uploaded as what it is; what they do as ``raw`` is in claims.py.
``listed`` is the rule that must refuse one where its format is allowed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from imagecache.model import GiB, MiB
from imagecache.testing import images
from imagecache.testing.corpus import foreign
from imagecache.testing.corpus.canary import Lure
from imagecache.testing.corpus.foreign import (
    descriptor,
    flat,
    sparse_text,
    vhd,
    vhdx,
    vmdk,
)
from imagecache.testing.corpus.sample import (
    NOT_ALLOWED,
    UNKNOWN,
    Accepted,
    Build,
    Refused,
    alone,
)

_VMDK = ("CVE-2022-47951",)
_INPUT = ("CVE-2014-0144",)      # what qemu's drivers once believed
_VHDX = ("CVE-2014-0148", "qemu-work-item-3860", "qemu-work-item-4033",
         "qemu-work-item-4470", "qemu-work-item-4487")


def samples() -> Iterator[Refused]:
    yield from _vmdk_text()
    yield from _vmdk_sparse()
    yield from _vmdk_header()
    yield from _vhd()
    yield from _vhdx()
    yield from _vdi()
    yield from _others()


def listed() -> Iterator[Accepted]:
    """Sound images of the formats that an operator can allow."""
    def written(id: str, claim: str, format: str,
                *arguments: str) -> Accepted:
        return Accepted(id, claim, lambda: images.convert(
            images.content(), format, *arguments), images.content)

    for kind in ("monolithicSparse", "streamOptimized"):
        yield written(f"vmdk-{kind}", "vmdk", "vmdk",
                      "-o", f"subformat={kind}")
    yield written("vhd-dynamic", "vhd", "vpc",
                  "-o", "subformat=dynamic,force_size=on")
    for kind in ("dynamic", "fixed"):
        yield written(f"vhdx-{kind}", "vhdx", "vhdx",
                      "-o", f"subformat={kind}")
    yield written("vdi-dynamic", "vdi", "vdi")
    yield written("vdi-static", "vdi", "vdi", "-o", "static=on")


def _refused(claim: str, id: str, listed: str, build: Build,
             represents: tuple[str, ...] = ()) -> Refused:
    return Refused(f"{claim}-{id}", claim, NOT_ALLOWED, build, represents,
                   listed)


def _vmdk_text() -> Iterator[Refused]:
    """A vmdk can be a text that names the files with its data."""
    texts: dict[str, Callable[[Lure], bytes]] = {
        "flat-abs": lambda lure: descriptor("monolithicFlat", flat(lure)),
        "flat-json": lambda lure: descriptor(
            "monolithicFlat", 'RW 8 FLAT "json:{\\"driver\\":\\"file\\",'
            f'\\"filename\\":\\"{lure.path}\\"}}" 0'),
        "flat-nbd": lambda lure: descriptor(
            "monolithicFlat", f'RW 8 FLAT "nbd://127.0.0.1:{lure.port}/" 0'),
        "flat-after-zero": lambda lure: descriptor(
            "monolithicFlat", "RW 8 ZERO", flat(lure)),
        "split-flat": lambda lure: descriptor(
            "twoGbMaxExtentFlat", flat(lure), flat(lure)),
        "split-sparse": lambda lure: descriptor(
            "twoGbMaxExtentSparse", flat(lure, "SPARSE")),
        "vmfs": lambda lure: descriptor("vmfs", flat(lure, "VMFS")),
        "vmfs-raw": lambda lure: descriptor(
            "vmfsRawDeviceMap", flat(lure, "VMFSRDM")),
        "vmfs-sparse": lambda lure: descriptor(
            "vmfsSparse", flat(lure, "VMFSSPARSE")),
        "sesparse": lambda lure: descriptor(
            "seSparse", flat(lure, "SESPARSE")),
        "full-device": lambda lure: descriptor(
            "fullDevice", 'RW 8 FLAT "/dev/zero" 0'),
        "custom": lambda lure: descriptor("custom", flat(lure)),
        "parent": lambda lure: descriptor(
            "monolithicFlat", f'parentFileNameHint="{lure.path}"',
            flat(lure), parent="11111111"),
        "no-extent": lambda lure: descriptor("monolithicFlat"),
        "sparse-text": lambda lure: descriptor(
            "monolithicSparse", flat(lure, "SPARSE")),
    }
    return (_refused("vmdk", id, "vmdk", build, _VMDK)
            for id, build in texts.items())


def _vmdk_sparse() -> Iterator[Refused]:
    """A vmdk that is one file still has such a text in it."""
    size = MiB // foreign.SECTOR
    texts: dict[str, tuple[str, Callable[[Lure], bytes]]] = {
        "flat": ("vmdk-extent", lambda lure: sparse_text(extent=flat(lure))),
        "and-flat": ("vmdk-extent", lambda lure: sparse_text(flat(lure))),
        "path": ("vmdk-extent", lambda lure: sparse_text(
            extent=f'RW {size} SPARSE "{lure.path}"')),
        "up": ("vmdk-extent", lambda lure: sparse_text(
            extent=f'RW {size} SPARSE "../secret"')),
        "protocol": ("vmdk-extent", lambda lure: sparse_text(
            extent=f'RW {size} SPARSE "nbd:unix:secret"')),
        "flat-type": ("vmdk-type", lambda lure: sparse_text(
            kind="monolithicFlat")),
        "split-type": ("vmdk-type", lambda lure: sparse_text(
            kind="twoGbMaxExtentSparse")),
        "parent": ("vmdk-parent", lambda lure: sparse_text(
            parent="11111111")),
        "parent-hint": ("vmdk-", lambda lure: sparse_text(
            f'parentFileNameHint="{lure.path}"', parent="11111111")),
        "hint-only": ("vmdk-descriptor", lambda lure: sparse_text(
            f'parentFileNameHint="{lure.path}"')),
        "hidden": ("vmdk-descriptor", lambda lure: sparse_text()
                   + b"\0" + flat(lure).encode()),
        "no-text": ("vmdk-", lambda lure: b""),
        "binary": ("vmdk-descriptor", lambda lure: b"\xff\xfe"
                   + sparse_text()),
    }
    return (_refused("vmdk", f"sparse-{id}", rule,
                     functools.partial(_with_text, text), _VMDK)
            for id, (rule, text) in texts.items())


def _with_text(text: Callable[[Lure], bytes], lure: Lure) -> bytes:
    return vmdk(text(lure))


def _vmdk_header() -> Iterator[Refused]:
    lies: dict[str, tuple[str, dict[str, int]]] = {
        "version-9": ("vmdk-version", {"version": 9}),
        # qemu then follows the extents of the text.
        "capacity-0": ("vmdk-capacity", {"capacity": 0}),
        "capacity-huge": ("vmdk-extent", {"capacity": 1 << 50}),
        "grain-huge": ("vmdk-grain", {"grain": 1 << 40}),
        "grain-0": ("vmdk-grain", {"grain": 0}),
        "entries-huge": ("vmdk-grain", {"entries": 1 << 31}),
        "directory-outside": ("vmdk-directory", {"directory": 1 << 40}),
        "text-outside": ("truncated", {"descriptor_offset": 1 << 30}),
        "text-huge": ("vmdk-descriptor", {"descriptor_size": 1 << 30}),
        "as-text": ("vmdk-marks", {"marks": 0x0a0a200a}),
    }
    for id, (rule, fields) in lies.items():
        yield _refused("vmdk", id, rule,
                       alone(vmdk, sparse_text(), **fields), _INPUT)
    yield _refused("vmdk", "stream-footer-lies", "vmdk-footer",
                   alone(_lying_footer), ("CVE-2026-2243",))
    yield _refused("vmdk", "cowd", "", alone(foreign.cowd), _INPUT)


def _lying_footer() -> bytes:
    stream = bytearray(images.convert(
        images.content(), "vmdk", "-o", "subformat=streamOptimized"))
    if stream[56:64] != b"\xff" * 8:      # qemu-img puts no footer
        stream[56:64] = b"\xff" * 8
        stream += bytes(512) + stream[:512] + bytes(512)
    stream[-1024 + 20] ^= 0xff            # another grain size
    return bytes(stream)


def _vhd() -> Iterator[Refused]:
    vhds: dict[str, tuple[str, Build]] = {
        "fixed": ("vhd", alone(
            images.convert, images.content(), "vpc",
            "-o", "subformat=fixed")),
        "differencing": ("vhd-type", lambda lure: vhd(
            4, parent=b"p" * 16,
            parent_name=str(lure.path).encode("utf-16be"))),
        "parent": ("vhd-parent", alone(vhd, parent=b"p" * 16)),
        "locator": ("vhd-parent", alone(
            vhd, locators=b"W2ku" + bytes(4) + b"\0\0\0\x20" + bytes(12))),
        "size-huge": ("vhd-size", alone(vhd, size=1 << 60)),
        "size-0": ("vhd-size", alone(vhd, size=0)),
        "entries-huge": ("vhd-size", alone(vhd, entries=b"\xff" * 4)),
        "table-outside": ("vhd-place", alone(
            vhd, table=(1 << 40).to_bytes(8, "big"))),
        "block-0": ("vhd-block", alone(vhd, block=bytes(4))),
        "block-odd": ("vhd-block", alone(vhd, block=b"\0\x20\0\1")),
        "checksum": ("vhd-checksum", lambda lure: vhd()[:100] + b"!"
                     + vhd()[101:]),
        "cut": ("truncated", lambda lure: vhd()[:1000]),
    }
    return (_refused("vhd", id, rule, build, _INPUT)
            for id, (rule, build) in vhds.items())


def _vhdx() -> Iterator[Refused]:
    vhdxs: dict[str, tuple[str, Build]] = {
        # The number of blocks no longer fits what qemu counts it in.
        "size-trunc": ("vhdx-size", alone(vhdx, size=(1 << 32) * 8 * MiB)),
        "size-1E": ("vhdx-size", alone(vhdx, size=1 << 60)),
        "size-beyond-table": ("vhdx-size", alone(
            vhdx, size=64 * 1024 * GiB)),
        "size-0": ("vhdx-size", alone(vhdx, size=0)),
        "differencing": ("vhdx-parent", alone(vhdx, flags=2)),
        "parent-locator": ("vhdx-parent", lambda lure: vhdx(
            parent=str(lure.path).encode("utf-16le"))),
        "log": ("vhdx-log", alone(vhdx, log=b"l" * 16)),
        "cut": ("truncated", lambda lure: vhdx()[:200 * 1024]),
    }
    return (_refused("vhdx", id, rule, build, _VHDX)
            for id, (rule, build) in vhdxs.items())


def _vdi() -> Iterator[Refused]:
    lies: dict[str, tuple[str, dict[str, int]]] = {
        "size-huge": ("vdi-size", {"size": 1 << 60}),
        "size-0": ("vdi-size", {"size": 0}),
        "blocks-huge": ("vdi-", {"blocks": 0xFFFFFFFF}),
        "block-0": ("vdi-blocks", {"block": 0}),
        "sector-1": ("vdi-blocks", {"sector": 1}),
        "version-2": ("vdi-version", {"version": 0x20000}),
        "differencing": ("vdi-type", {"kind": 4}),
        "parent": ("vdi-parent", {"parent": 1}),
        "map-outside": ("vdi-place", {"map_offset": 0x7FFFFE00}),
        "map-unaligned": ("vdi-place", {"map_offset": 0x201}),
    }
    return (_refused("vdi", id, rule, alone(foreign.vdi, **fields), _INPUT)
            for id, (rule, fields) in lies.items())


def _others() -> Iterator[Refused]:
    """No operator can allow these."""
    def other(claim: str, build: Build, represents: tuple[str, ...] = (), *,
              id: str | None = None) -> Refused:
        return Refused(f"claimed-{claim if id is None else id}", claim,
                       UNKNOWN, build, represents)

    def overlay(format: str) -> Build:
        return lambda lure: images.create(
            format, "-b", str(lure.path), "-F", "raw")

    old = ("CVE-2014-0222", "CVE-2014-0223")
    yield other("qed", alone(images.create, "qed"))
    yield other("qed", overlay("qed"), id="qed-backing")
    yield other("qcow", alone(images.create, "qcow"), old)
    yield other("qcow", overlay("qcow"), old, id="qcow-backing")
    yield other("luks", alone(foreign.luks), ("CVE-2017-18191",))
    yield other("luks", alone(foreign.luks, 2), id="luks-v2")
    for name in ("parallels", "ploop"):
        yield other(name, alone(images.create, "parallels"),
                    ("CVE-2014-0142",))
    yield other("bochs", alone(foreign.bochs), ("CVE-2014-0143",))
    yield other("cloop", alone(foreign.cloop), ("CVE-2014-0143",))
    yield other("dmg", alone(foreign.dmg),
                ("CVE-2014-0145", "qemu-work-item-3846"))
    for name in ("docker", "nbd", "vvfat", "gpt", "RAW", "-"):
        yield other(name, alone(images.content))
    for id, name in (("newline", "raw\n"), ("json", "json:{}"),
                     ("nothing", ""), ("long", "x" * 10_000)):
        yield other(name, alone(images.content), id=id)
