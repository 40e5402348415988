# SPDX-License-Identifier: Apache-2.0
"""Images of formats that are not accepted unless the operator says so.

Those in vmdk have a module of their own.  Each is uploaded as what it is; what
they do as ``raw`` is in claims.py.
``listed`` is the rule that must refuse one where its format is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hostile_images import foreign
from hostile_images.foreign import (
    VHDX_PARAMETERS,
    VHDX_SECTOR,
    VHDX_SIZE,
    vhd,
    vhdx,
)
from hostile_images.sample import (
    CLAIM,
    NOT_ALLOWED,
    UNKNOWN,
    Accepted,
    Build,
    Refused,
    alone,
)
from imagecache.model import GiB, KiB, MiB
from imagecache.testing import images

_INPUT = ("CVE-2014-0144",)      # what qemu's drivers once believed
_VHDX = ("CVE-2014-0148", "qemu-work-item-3860", "qemu-work-item-4033",
         "qemu-work-item-4470", "qemu-work-item-4487")


def samples() -> Iterator[Refused]:
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
    yield Accepted("vhd-geometry", "vhd", lambda: images.convert(
        images.content(), "vpc"), lambda: images.content().ljust(
            4 * 31 * 17 * 512, b"\0"))
    yield Accepted("vhd-sized", "vhd", lambda: vhd(
        size=MiB, creator=b"win "), images.content)
    # VirtualBox writes such images, and qemu rounds their size up.
    yield Accepted("vdi-odd-size", "vdi", lambda: foreign.vdi(size=MiB - 511),
                   images.content)
    yield written("vdi-dynamic", "vdi", "vdi")
    yield written("vdi-static", "vdi", "vdi", "-o", "static=on")


def _refused(claim: str, id: str, listed: str, build: Build,
             represents: tuple[str, ...] = ()) -> Refused:
    return Refused(f"{claim}-{id}", claim, NOT_ALLOWED, build, represents,
                   listed)


def _vhd() -> Iterator[Refused]:
    vhds: dict[str, tuple[str, Build]] = {
        "fixed": (CLAIM, alone(
            images.convert, images.content(), "vpc",
            "-o", "subformat=fixed")),
        "differencing": ("vhd-type", lambda sentinel: vhd(
            4, parent=b"p" * 16,
            parent_name=str(sentinel.path).encode("utf-16be"))),
        "parent": ("vhd-parent", alone(vhd, parent=b"p" * 16)),
        "locator": ("vhd-parent", alone(
            vhd, locators=b"W2ku" + bytes(4) + b"\0\0\0\x20" + bytes(12))),
        "size-huge": ("vhd-size", alone(vhd, size=1 << 60)),
        "size-0": ("vhd-size", alone(vhd, size=0)),
        "entries-huge": ("vhd-size", alone(vhd, entries=b"\xff" * 4)),
        "size-beyond-table": ("vhd-size", alone(vhd, size=GiB)),
        "saved-state": ("vhd-state", alone(vhd, state=1)),
        "version-2": ("vhd-version", alone(vhd, version=0x20000)),
        "cookie": ("vhd-checksum", alone(vhd, cookie=b"nosparse")),
        "header-checksum": ("vhd-checksum", lambda sentinel:
                            vhd()[:1000] + b"!"
                            + vhd()[1001:]),
        "header-in-footer": ("vhd-place", alone(foreign.vhd_in_footer)),
        "table-in-header": ("vhd-place", alone(
            vhd, table=(1024).to_bytes(8, "big"))),
        "table-unaligned": ("vhd-place", alone(
            vhd, table=(1537).to_bytes(8, "big"))),
        "table-outside": ("vhd-place", alone(
            vhd, table=(1 << 40).to_bytes(8, "big"))),
        "block-0": ("vhd-block", alone(vhd, block=bytes(4))),
        "block-odd": ("vhd-block", alone(vhd, block=b"\0\x20\0\1")),
        "geometry-0": ("vhd-geometry", alone(vhd, geometry=bytes(4))),
        "geometry-huge": ("vhd-geometry", alone(
            vhd, geometry=b"\xff\xff\x10\x3f")),
        "checksum": ("vhd-checksum", lambda sentinel: vhd()[:100] + b"!"
                     + vhd()[101:]),
        "cut": ("truncated", lambda sentinel: vhd()[:1000]),
    }
    vhds |= {f"block-{id}": ("vhd-table", alone(vhd, blocks=blocks))
             for id, blocks in {
                 "is-footer": bytes(4), "is-header": b"\0\0\0\2",
                 "is-table": b"\0\0\0\3", "reaches-table": b"\0\0\0\1",
                 "partly-outside": b"\0\0\0\6",
                 "outside": b"\xff\xff\xff\xfe"}.items()}
    vhds["block-twice"] = ("vhd-table", alone(
        vhd, entries=b"\0\0\0\2", blocks=b"\0\0\0\4" * 2))
    return (_refused("vhd", id, rule, build, _INPUT)
            for id, (rule, build) in vhds.items())


def _vhdx() -> Iterator[Refused]:
    for id, (rule, build) in (_vhdx_sizes() | _vhdx_tables()).items():
        yield _refused("vhdx", id, rule, build, _VHDX)
    yield _refused("vhdx", "parent-locator", "vhdx-parent",
                   lambda sentinel: vhdx(
        parent=str(sentinel.path).encode("utf-16le")), _VHDX)
    for id, blocks in _vhdx_blocks().items():
        yield _refused("vhdx", f"block-{id}", "vhdx-bat",
                       alone(vhdx, blocks=blocks), _VHDX)
    yield _refused("vhdx", "block-many-times", "vhdx-bat", alone(
        vhdx, items={VHDX_SIZE: (64 * MiB).to_bytes(8, "little")},
        blocks=_entry(8 * MiB) * 64), _VHDX)
    yield _refused("vhdx", "cut", "truncated",
                   lambda sentinel: vhdx()[:200 * 1024], _VHDX)


def _vhdx_blocks() -> dict[str, bytes]:
    return {
        "is-header": _entry(0), "outside": _entry(1 << 40),
        "far-outside": _entry(((1 << 44) - 1) * MiB),
        "is-log": _entry(MiB), "is-bat": _entry(3 * MiB),
        "is-metadata": _entry(2 * MiB),
        "partly-there": _entry(8 * MiB, state=7),
        "state-4": _entry(8 * MiB, state=4)}


def _entry(offset: int, state: int = 6) -> bytes:
    return (offset | state).to_bytes(8, "little")


def _vhdx_sizes() -> dict[str, tuple[str, Build]]:
    def item(guid: bytes, value: int, size: int) -> Build:
        return alone(vhdx, items={guid: value.to_bytes(size, "little")})

    sizes = {
        # The number of blocks no longer fits what qemu counts it in.
        "trunc": (1 << 32) * MiB, "1E": 1 << 60, "0": 0,
        "beyond-table": 64 * 1024 * GiB, "odd": MiB + 1}
    return {f"size-{id}": ("vhdx-size", item(VHDX_SIZE, size, 8))
            for id, size in sizes.items()} | {
        f"block-{size}": ("vhdx-block", item(VHDX_PARAMETERS, size, 4))
        for size in (512 * KiB, 512 * MiB, 3 * MiB)} | {
        f"sector-{size}": ("vhdx-block", item(VHDX_SECTOR, size, 4))
        for size in (1, 1024, 4096, 1 << 30)} | {
        "differencing": ("vhdx-parent", item(
            VHDX_PARAMETERS, (2 << 32) + MiB, 8))}


def _vhdx_tables() -> dict[str, tuple[str, Build]]:
    def number(value: int, size: int = 4) -> bytes:
        return value.to_bytes(size, "little")

    def both(bat: tuple[int, bytes]) -> Build:
        return alone(vhdx, regions={bat[0]: bat[1]})

    return {
        "log": ("vhdx-log", alone(vhdx, log=b"l" * 16)),
        "copies-differ": ("vhdx-regions", lambda sentinel:
                          vhdx()[:256 * KiB + 40]
                          + b"!" + vhdx()[256 * KiB + 41:]),
        "region-unknown": ("vhdx-regions", both((16, b"?" * 16))),
        "regions-unmarked": ("vhdx-regions", both((0, b"nope"))),
        "regions-many": ("vhdx-regions", both((8, number(3)))),
        "region-in-header": ("vhdx-place", both((32, number(0, 8)))),
        "region-unaligned": ("vhdx-place", both((32, number(3 * MiB + 1, 8)))),
        "region-empty": ("vhdx-place", both((40, number(0)))),
        "region-outside": ("vhdx-place", both((32, number(1 << 40, 8)))),
        "metadata-outside": ("truncated", both((64, number(1 << 40, 8)))),
        "metadata-far-outside": ("bounds", both((64, number(1 << 63, 8)))),
        "regions-overlap": ("vhdx-overlap", both((32, number(3 * MiB, 8)))),
        "region-is-log": ("vhdx-overlap", both((32, number(MiB, 8)))),
        "items-unmarked": ("vhdx-metadata", alone(
            vhdx, table={0: b"nometada"})),
        "items-many": ("vhdx-metadata", alone(vhdx, table={10: b"\0\x08"})),
        "item-missing": ("vhdx-metadata", alone(vhdx, table={
            10: b"\1\0"})),
        "item-in-table": ("vhdx-metadata", alone(
            vhdx, entries={VHDX_SIZE: number(0)})),
        "item-outside": ("vhdx-metadata", alone(
            vhdx, entries={VHDX_SIZE: number(1 << 31)})),
        "item-huge": ("vhdx-metadata", alone(
            vhdx, entries={VHDX_SIZE: number(64 * KiB) + number(512 * KiB)})),
        **{f"item-{id}-short": ("vhdx-metadata", alone(
            vhdx, entries={guid: number(64 * KiB) + number(2)}))
           for id, guid in (("size", VHDX_SIZE), ("sector", VHDX_SECTOR),
                            ("parameters", VHDX_PARAMETERS))},
    }


def _vdi() -> Iterator[Refused]:
    lies: dict[str, tuple[str, dict[str, Any]]] = {
        "size-huge": ("vdi-size", {"size": 1 << 60}),
        "size-0": ("vdi-size", {"size": 0}),
        "blocks-huge": ("vdi-size", {"count": 0xFFFFFFFF}),
        "block-0": ("vdi-blocks", {"block": 0}),
        "sector-1": ("vdi-blocks", {"sector": 1}),
        "version-2": ("vdi-version", {"version": 0x20000}),
        "differencing": ("vdi-type", {"kind": 4}),
        "parent": ("vdi-parent", {"parent": 1}),
        "map-outside": ("vdi-place", {"map_offset": 0x7FFFFE00}),
        "map-unaligned": ("vdi-place", {"map_offset": 0x201}),
        "map-in-header": ("vdi-place", {"map_offset": 0}),
        "data-unaligned": ("vdi-place", {"data_offset": 0x401}),
        "data-in-map": ("vdi-place", {"data_offset": 0x200}),
        "data-outside": ("vdi-place", {"data_offset": 0x7FFFFE00}),
        "block-unknown": ("vdi-map", {"blocks": b"\1\0\0\0"}),
        "block-outside": ("vdi-map", {"blocks": b"\1\0\0\0", "count": 2}),
        "block-many-times": ("vdi-map", {
            "blocks": bytes(256), "count": 64, "size": 64 * MiB}),
    }
    return (_refused("vdi", id, rule, alone(foreign.vdi, **fields), _INPUT)
            for id, (rule, fields) in lies.items())


def _others() -> Iterator[Refused]:
    """Yield images of formats that no operator can allow."""
    def other(claim: str, build: Build, represents: tuple[str, ...] = (), *,
              id: str | None = None) -> Refused:
        return Refused(f"claimed-{claim if id is None else id}", claim,
                       UNKNOWN, build, represents)

    def overlay(format: str) -> Build:
        return lambda sentinel: images.create(
            format, "-b", str(sentinel.path), "-F", "raw")

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
                     ("long", "x" * 10_000)):
        yield other(name, alone(images.content), id=id)
