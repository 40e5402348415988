# SPDX-License-Identifier: Apache-2.0
"""Images with a wrong claim, and images of several formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hostile_images import foreign, layout
from hostile_images.foreign import descriptor, flat
from hostile_images.sample import (
    CLAIM,
    NO_FORMAT,
    NOT_ALLOWED,
    Accepted,
    Build,
    Refused,
    alone,
    raw,
)
from imagecache.model import KiB, MiB
from imagecache.testing import images

_SKIPPED = ("CVE-2024-40767", "CVE-2024-44082")   # raw was not inspected
_GUESSED = ("CVE-2015-1850", "CVE-2015-1851")     # ... and then was guessed at


def samples() -> Iterator[Refused]:
    yield from _honest_lies()
    yield from _as_raw()
    yield from _vmdk_texts()
    yield from _several()


def _honest_lies() -> Iterator[Refused]:
    """Each is a good image of another format."""
    contents: dict[str, Callable[[], bytes]] = {
        "qcow2": layout.image, "qcow2-zeros": lambda: images.create("qcow2"),
        "raw": images.content, "zeros": lambda: bytes(MiB),
        "iso": images.iso, "mbr": images.mbr, "gpt": images.gpt}
    for claim, kinds in {
            "raw": ("qcow2", "qcow2-zeros"), "ami": ("qcow2",),
            "aki": ("qcow2",), "ari": ("qcow2",),
            "iso": ("qcow2", "raw", "zeros", "mbr"),
            "qcow2": ("raw", "zeros", "iso", "mbr", "gpt")}.items():
        for kind in kinds:
            yield Refused(f"{claim}-is-{kind}", claim, CLAIM,
                          alone(contents[kind]), _SKIPPED)


def _as_raw() -> Iterator[Refused]:
    """Other formats that claim to be raw, so that tools probe them later."""
    for claim in ("raw", "ami", "aki", "ari", "iso"):
        yield Refused(
            f"{claim}-is-qcow2-backing", claim, CLAIM,
            lambda sentinel: layout.backed(str(sentinel.path)),
            _SKIPPED + _GUESSED)
        yield Refused(
            f"{claim}-is-qcow2-datafile", claim, CLAIM,
            lambda sentinel: layout.external(str(sentinel.path)),
            (*_SKIPPED, "CVE-2024-32498"))
        yield Refused(
            f"{claim}-is-vmdk-flat", claim, NO_FORMAT,
            lambda sentinel: descriptor("monolithicFlat", flat(sentinel)),
            (*_SKIPPED, "CVE-2022-47951"))
    for kind, (rule, build) in _contents().items():
        yield Refused(f"raw-is-{kind}", "raw", rule, build, _SKIPPED,
                      CLAIM if rule == NOT_ALLOWED else rule)
    for size in (4, 72, 511):
        yield Refused(f"raw-is-qcow2-cut-at-{size}", "raw", CLAIM,
                      alone(_cut, size))
        yield Refused(f"iso-is-raw-of-{size}", "iso", CLAIM,
                      alone(images.content, size))


def _cut(size: int) -> bytes:
    return layout.image()[:size]


def _contents() -> dict[str, tuple[str, Build]]:
    """Yield images that must not be accepted as raw."""
    def overlay(format: str) -> Build:
        return lambda sentinel: images.create(
            format, "-b", str(sentinel.path), "-F", "raw")

    return {
        "qcow": (CLAIM, alone(images.create, "qcow")),
        "qcow-backing": (CLAIM, overlay("qcow")),
        "qcow2-version-9": (CLAIM, alone(layout.image, version=9)),
        "qed": (NO_FORMAT, alone(images.create, "qed")),
        "qed-backing": (NO_FORMAT, overlay("qed")),
        "vmdk-sparse": (NOT_ALLOWED, alone(images.create, "vmdk")),
        "vmdk-stream": (NOT_ALLOWED, alone(
            foreign.vmdk, foreign.sparse_text(kind="streamOptimized"),
            "streamOptimized")),
        "vmdk-sparse-flat": (NOT_ALLOWED, lambda sentinel: foreign.vmdk(
            foreign.sparse_text(extent=flat(sentinel)))),
        "vmdk-cowd": (NO_FORMAT, alone(foreign.cowd)),
        "vhd": (NOT_ALLOWED, alone(foreign.vhd)),
        "vhd-differencing": (NOT_ALLOWED, alone(
            foreign.vhd, 4, parent=b"p" * 16)),
        "vhdx": (NOT_ALLOWED, alone(foreign.vhdx)),
        "vdi": (NOT_ALLOWED, alone(foreign.vdi)),
        "vdi-only-mark": (NOT_ALLOWED, lambda sentinel: bytes(64)
                          + foreign.VDI_MARK + bytes(MiB - 68)),
        "luks": (NO_FORMAT, alone(foreign.luks)),
        "luks-v2": (NO_FORMAT, alone(foreign.luks, 2)),
        "parallels": (NO_FORMAT, alone(images.create, "parallels")),
        "parallels-old": (NO_FORMAT, lambda sentinel: b"WithoutFreeSpace"
                          + bytes(MiB)),
        "bochs": (NO_FORMAT, alone(foreign.bochs)),
        "cloop": (NO_FORMAT, alone(foreign.cloop)),
    }


def _vmdk_texts() -> Iterator[Refused]:
    """Text that qemu takes for a vmdk: comments do not count."""
    before = {
        "after-nothing": "",
        "after-comment": "# nothing to see here\n",
        "after-comments": "#\n##\n# x\n" * 20,
        "after-shebang": "#!/bin/sh\n#\n",
        "after-blanks": "\n\n\n",
        "after-spaces": "   \n \n",
        "after-crlf": "# x\r\n\r\n",
        "after-binary": "#\x01\x02\xff\n",
    }
    for id, start in before.items():
        yield _text(id, start, "1", "\n")
    for version in ("1", "2", "3"):
        yield _text(f"version-{version}", "", version, "\n")
        yield _text(f"version-{version}-crlf", "", version, "\r\n")
    # By oslo.utils' rule: all of it is text, and it has a type.
    yield Refused("raw-is-vmdk-any-version", "raw", "second-opinion",
                  lambda sentinel: descriptor("monolithicFlat", flat(sentinel),
                                          version="4"), _SKIPPED)
    # Text that qemu does not take for a vmdk, and other programs may.
    for id, text in {
            "mark-only": b"# Disk DescriptorFile\nhello\n",
            "setting-first": b"# hello\nparentCID=ffffffff\n",
            "extent-first": b"\r\n#\nRW 8 FLAT \"/etc/passwd\" 0\n",
            "comments-first": b"#\n" * 256}.items():
        yield Refused(f"raw-is-vmdk-{id}", "raw", "second-opinion", alone(
            bytes, text + b'createType="monolithicFlat"\n' * 20), _SKIPPED)
    # By qemu's: the first lines are enough.
    yield Refused("raw-is-vmdk-and-binary", "raw", NO_FORMAT,
                  lambda sentinel: descriptor("monolithicFlat", flat(sentinel))
                  .ljust(4096, b"\n") + images.content(), _SKIPPED)


def _text(id: str, before: str, version: str, newline: str) -> Refused:
    return Refused(
        f"raw-is-vmdk-{id}", "raw", NO_FORMAT, lambda sentinel: descriptor(
            "monolithicFlat", flat(sentinel), before=before, version=version,
            newline=newline), _SKIPPED)


def _several() -> Iterator[Refused]:
    """Images that are qcow2 and another format."""
    both = {
        "iso": {32768: b"\x01CD001\x01"},
        "mbr": {446: images.mbr()[446:512]},
        "gpt": {446: images.gpt()[446:512]},
        # Where qcow2 has the offset of its snapshots, of which it has none.
        "vdi": {64: foreign.VDI_MARK},
        "vdi-and-mbr": {64: foreign.VDI_MARK, 446: images.mbr()[446:512]},
    }
    for id, marks in both.items():
        build = alone(_marked, marks)
        yield Refused(f"qcow2-and-{id}", "qcow2", "second-opinion", build)
        yield Refused(f"raw-is-qcow2-and-{id}", "raw", CLAIM, build,
                      _SKIPPED)
    yield Refused("iso-is-iso-and-qcow2", "iso", CLAIM, lambda sentinel:
                  layout.MAGIC + images.iso()[4:], _SKIPPED)
    yield Refused("iso-is-iso-and-vmdk", "iso", NO_FORMAT, lambda sentinel:
                  descriptor("monolithicFlat", flat(sentinel)).ljust(
                      32768, b"\n") + images.iso()[32768:], _SKIPPED)
    yield Refused("raw-is-mbr-and-vdi", "raw", NOT_ALLOWED, lambda sentinel:
                  bytes(64) + foreign.VDI_MARK + images.mbr()[68:], (), CLAIM)


def _marked(marks: dict[int, bytes]) -> bytes:
    """Return a sound qcow2 image, but for the marks."""
    image = bytearray(layout.image(tail=bytes(64 * 1024)))
    for at, mark in marks.items():
        image[at:at + len(mark)] = mark
    return bytes(image)


def harmless() -> Iterator[Accepted]:
    """Raw images that only look like one of the above."""
    text = b"version=1\n".ljust(4096, b"\0")
    for id, content in {
            "qcow2-in-second-sector": bytes(512) + layout.image(),
            "vmdk-in-second-sector": bytes(512) + text,
            "text-then-version": b"hello\n" + text,
            "comment-then-text": b"# hello\nhello\n" + text,
            "comments-past-first-sector": b"#\n" * 256 + text,
            "version-0": b"version=0\n" + text,
            "version-10": b"version=10\n" + text,
            "shell-archive": b"#!/bin/sh\n# an archive follows\nexit 0\n" * 99
            + images.content(64 * KiB),
            "cloud-config-in-utf-8":
            "#cloud-config\nhostname: caf\u00e9\n".encode() * 200,
            "text-about-vmdk":
            b"#!/bin/sh\n"
            b'sed -n "s/createType=\"\\(.*\\)\"/\\1/p" *.vmdk\n' * 99,
            "almost-cloop": foreign.CLOOP[:30].ljust(4096, b"\n"),
            "dmg": foreign.dmg()}.items():
        yield raw(f"raw-{id}", content)
