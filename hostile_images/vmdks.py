# SPDX-License-Identifier: Apache-2.0
"""vmdk images, uploaded as such: the format with the most ways elsewhere.

``listed`` is the rule that must refuse one where vmdk is allowed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

from hostile_images import foreign
from hostile_images.canary import Sentinel
from hostile_images.foreign import (
    descriptor,
    flat,
    sparse_text,
    vmdk,
)
from hostile_images.sample import (
    NO_FORMAT,
    NOT_ALLOWED,
    Build,
    Refused,
    alone,
)
from imagecache.model import MiB
from imagecache.testing import images

_REFERENCES = ("CVE-2022-47951",)
_INPUT = ("CVE-2014-0144",)      # what qemu's driver once believed


def samples() -> Iterator[Refused]:
    yield from _text()
    yield from _sparse()
    yield from _hidden()
    yield from _header()


def _refused(id: str, listed: str, build: Build,
             represents: tuple[str, ...]) -> Refused:
    return Refused(f"vmdk-{id}", "vmdk", NOT_ALLOWED, build, represents,
                   listed)


def _text() -> Iterator[Refused]:
    """A vmdk can be a text that names the files with its data."""
    texts: dict[str, Callable[[Sentinel], bytes]] = {
        "flat-abs": lambda sentinel: descriptor(
            "monolithicFlat", flat(sentinel)),
        "flat-json": lambda sentinel: descriptor(
            "monolithicFlat", 'RW 8 FLAT "json:{\\"driver\\":\\"file\\",'
            f'\\"filename\\":\\"{sentinel.path}\\"}}" 0'),
        "flat-nbd": lambda sentinel: descriptor(
            "monolithicFlat",
            f'RW 8 FLAT "nbd://127.0.0.1:{sentinel.port}/" 0'),
        "flat-after-zero": lambda sentinel: descriptor(
            "monolithicFlat", "RW 8 ZERO", flat(sentinel)),
        "split-flat": lambda sentinel: descriptor(
            "twoGbMaxExtentFlat", flat(sentinel), flat(sentinel)),
        "split-sparse": lambda sentinel: descriptor(
            "twoGbMaxExtentSparse", flat(sentinel, "SPARSE")),
        "vmfs": lambda sentinel: descriptor("vmfs", flat(sentinel, "VMFS")),
        "vmfs-raw": lambda sentinel: descriptor(
            "vmfsRawDeviceMap", flat(sentinel, "VMFSRDM")),
        "vmfs-sparse": lambda sentinel: descriptor(
            "vmfsSparse", flat(sentinel, "VMFSSPARSE")),
        "sesparse": lambda sentinel: descriptor(
            "seSparse", flat(sentinel, "SESPARSE")),
        "full-device": lambda sentinel: descriptor(
            "fullDevice", 'RW 8 FLAT "/dev/zero" 0'),
        "custom": lambda sentinel: descriptor("custom", flat(sentinel)),
        "parent": lambda sentinel: descriptor(
            "monolithicFlat", f'parentFileNameHint="{sentinel.path}"',
            flat(sentinel), parent="11111111"),
        "no-extent": lambda sentinel: descriptor("monolithicFlat"),
        "sparse-text": lambda sentinel: descriptor(
            "monolithicSparse", flat(sentinel, "SPARSE")),
    }
    return (_refused(id, NO_FORMAT, build, _REFERENCES)
            for id, build in texts.items())


def _sparse() -> Iterator[Refused]:
    """A vmdk that is one file still has such a text in it."""
    size = MiB // foreign.SECTOR
    return _in_text({
        "flat": ("vmdk-extent", lambda sentinel: sparse_text(
            extent=flat(sentinel))),
        "and-flat": ("vmdk-extent", lambda sentinel: sparse_text(
            flat(sentinel))),
        "path": ("vmdk-extent", lambda sentinel: sparse_text(
            extent=f'RW {size} SPARSE "{sentinel.path}"')),
        "up": ("vmdk-extent", lambda sentinel: sparse_text(
            extent=f'RW {size} SPARSE "../secret"')),
        "protocol": ("vmdk-extent", lambda sentinel: sparse_text(
            extent=f'RW {size} SPARSE "nbd:unix:secret"')),
        "flat-type": ("vmdk-type", lambda sentinel: sparse_text(
            kind="monolithicFlat")),
        "split-type": ("vmdk-type", lambda sentinel: sparse_text(
            kind="twoGbMaxExtentSparse")),
        "parent": ("vmdk-parent", lambda sentinel: sparse_text(
            parent="11111111")),
        "parent-hint": ("vmdk-parent", lambda sentinel: sparse_text(
            f'parentFileNameHint="{sentinel.path}"', parent="11111111")),
        "hint-only": ("vmdk-parent", lambda sentinel: sparse_text(
            f'parentFileNameHint="{sentinel.path}"')),
        "no-text": ("vmdk-type", lambda sentinel: b""),
    })


def _hidden() -> Iterator[Refused]:
    """Text that one program ignores and another one uses."""
    size = MiB // foreign.SECTOR
    return _in_text({
        "hidden": ("vmdk-descriptor", lambda sentinel: sparse_text()
                   + b"\0" + flat(sentinel).encode()),
        "hidden-in-comment": ("vmdk-descriptor", lambda sentinel: sparse_text()
                              + b"#\0" + flat(sentinel).encode() + b"\n"),
        "binary": ("vmdk-descriptor", lambda sentinel: b"\xff\xfe"
                   + sparse_text()),
        # qemu looks for the words anywhere.
        "hint-in-comment": ("vmdk-parent", lambda sentinel: sparse_text(
            f'#parentFileNameHint="{sentinel.path}"')),
        "hint-about-hardware": ("vmdk-parent", lambda sentinel: sparse_text(
            f'ddb.parentFileNameHint="{sentinel.path}"')),
        "hint-in-extent": ("vmdk-parent", lambda sentinel: sparse_text(
            extent=f'RW {size} SPARSE "parentFileNameHint= secret"')),
        "hint-in-setting": ("vmdk-parent", lambda sentinel: sparse_text(
            'encoding="parentFileNameHint= secret"')),
        "type-in-comment": ("vmdk-descriptor", lambda sentinel: sparse_text(
            '#createType="monolithicFlat"')),
        "cid-in-comment": ("vmdk-descriptor", lambda sentinel: sparse_text(
            "#parentCID=11111111")),
        # What Python takes for the end of a line, and qemu does not.
        "one-line": ("vmdk-descriptor", lambda sentinel: sparse_text().replace(
            b"\nRW", b"\fRW")),
        "returned": ("vmdk-extent", lambda sentinel: sparse_text().replace(
            b"\nRW", b"\rRW")),
    })


def _in_text(texts: Mapping[str, tuple[str, Callable[[Sentinel], bytes]]]
             ) -> Iterator[Refused]:
    return (_refused(f"sparse-{id}", rule,
                     functools.partial(_with_text, text), _REFERENCES)
            for id, (rule, text) in texts.items())


def _with_text(text: Callable[[Sentinel], bytes], sentinel: Sentinel) -> bytes:
    return vmdk(text(sentinel))


def _header() -> Iterator[Refused]:
    lies: dict[str, tuple[str, dict[str, int]]] = {
        "version-9": ("vmdk-version", {"version": 9}),
        # qemu then follows the extents of the text.
        "capacity-0": ("vmdk-capacity", {"capacity": 0}),
        "capacity-huge": ("vmdk-extent", {"capacity": 1 << 50}),
        "grain-huge": ("vmdk-grain", {"grain": 1 << 40}),
        "grain-0": ("vmdk-grain", {"grain": 0}),
        "grain-24": ("vmdk-grain", {"grain": 24}),
        "entries-huge": ("vmdk-grain", {"entries": 1 << 31}),
        "directory-outside": ("vmdk-directory", {"directory": 1 << 40}),
        "text-outside": ("truncated", {"descriptor_offset": 1 << 30}),
        "text-huge": ("vmdk-descriptor", {"descriptor_size": 1 << 30}),
        "as-text": ("vmdk-marks", {"marks": 0x0a0a200a}),
    }
    for id, (rule, fields) in lies.items():
        yield _refused(id, rule,
                       alone(vmdk, sparse_text(), **fields), _INPUT)
    yield _refused("stream-footer-lies", "vmdk-footer",
                   alone(_lying_footer), ("CVE-2026-2243",))
    yield _refused("cowd", NO_FORMAT, alone(foreign.cowd), _INPUT)


def _lying_footer() -> bytes:
    stream = bytearray(images.convert(
        images.content(), "vmdk", "-o", "subformat=streamOptimized"))
    if stream[56:64] != b"\xff" * 8:      # qemu-img puts no footer
        stream[56:64] = b"\xff" * 8
        stream += bytes(512) + stream[:512] + bytes(512)
    stream[-1024 + 20] ^= 0xff            # another grain size
    return bytes(stream)
