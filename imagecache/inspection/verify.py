# SPDX-License-Identifier: Apache-2.0
"""Decide which format a file has, before any program opens it.

Three opinions must agree with each other and with the claimed format: our own
rules and oslo.utils' inspector, which read the bytes (``inspector``), and then
qemu-img, which is told the driver and runs under limits.  An image that breaks
a rule is refused, and the reason names the rule.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from imagecache import exception
from imagecache.formats import qcow2, qcow2_tables, raw
from imagecache.formats.rules import RuleViolation
from imagecache.inspection.advice import unacceptable
from imagecache.inspection.inspector import Found, Inspector, inspect
from imagecache.model import Format, MiB, Validated, whole_sectors
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import qemu_img

# Raised whenever a rule becomes stricter: bases validated by older rules are
# validated again before their next use.
RULES = 4


def new_inspector(image_id: str, claim: str | None,
                  policy: Policy) -> Inspector:
    """Return an inspector for an image that is still arriving."""
    return Inspector(image_id, claim, policy.accepted)


def validate(path: pathlib.Path, image_id: str, claim: str | None,
             policy: Policy) -> Validated:
    """Return the content of a file that a user chose, or refuse it.

    :param claim: the disk_format that it should have; None: any
    :raises ImageUnacceptable: ``reason`` names the rule
    """
    return confirm(path, inspect(path, image_id, claim, policy.accepted),
                   image_id, policy)


def confirm(path: pathlib.Path, found: Found, image_id: str,
            policy: Policy) -> Validated:
    """Ask qemu-img for its opinion of an image that was inspected.

    :raises ImageUnacceptable: it does not agree, or needs more memory or CPU
        time than the limits allow
    :raises CommandFailed: it was killed, or took too long
    :raises StorageFailed: the file cannot be read
    """
    if found.format is Format.RAW:
        return Validated(path, Format.RAW, found.virtual_size)
    try:
        info = qemu_img.info(path, found.format, limits=policy.for_image(
            found.format, policy.inspection))
    except exception.CommandFailed as e:
        if not qemu_img.gave_up(e) and not e.facts.get("limit"):
            raise
        _read(path)
        raise _refusal(image_id, f"qemu-img cannot read it: {e}") from e
    for what, there in _references(info):
        if there:
            raise _refusal(image_id, f"it uses {what}")
    size = int(info["virtual-size"])
    if size != found.virtual_size:
        raise _refusal(
            image_id, f"its virtual size is {found.virtual_size} bytes, or"
            f" {size} by qemu-img")
    return Validated(path, found.format, size)


def require_intact(image: Validated, image_id: str, policy: Policy) -> None:
    """Check an image that becomes a base without a conversion.

    A conversion would find the same.

    Its refcounts must agree with its tables, its compressed clusters must
    inflate, and its content must not be another image.  The rules have
    checked its tables, so plain clusters need not be read.

    :raises ImageUnacceptable: a rule is broken
    """
    if image.format is not Format.QCOW2:
        return
    header = qcow2.read_header(image.path)
    try:
        with image.path.open("rb") as f:
            compressed = qcow2_tables.has_compressed_clusters(f, header)
    except RuleViolation as e:
        raise unacceptable(image_id, e.reason, e.rule) from e
    # qemu repairs the refcounts of a dirty image when it first writes to it.
    if not qemu_img.is_sound(image.path, image.format, image.virtual_size,
                             check=not header.dirty, read=compressed,
                             limits=policy.for_image(image.format,
                                                     policy.conversion)):
        _read(image.path)
        raise _corrupt(image_id, "qemu-img cannot check it or read it")
    with durable.staged(image.path.parent, image.path.name) as output:
        head = qemu_img.first_bytes(
            image.path, image.format, raw.NEEDED, output,
            limits=policy.for_image(image.format, policy.inspection))
    refuse_nested(head, image_id)


def refuse_nested(head: bytes, image_id: str) -> None:
    """Refuse an image whose content begins as another image.

    A program that probes the format of such a base, as nova does with the
    bases it shares with us, would open the files that the inner image names.

    :param head: the first raw.NEEDED bytes of the content
    :raises ImageUnacceptable: the content is not raw
    """
    found = raw.format_of(head)
    if found is not None:
        raise unacceptable(image_id, "it holds another image: its content"
                           f" begins as {found}", rule="nested")


@contextlib.contextmanager
def blaming(image: Validated, image_id: str, policy: Policy) -> Iterator[None]:
    """Find out whether the image or the host is at fault if qemu-img fails.

    The rules do not read all data, as most images are good.  If qemu-img
    fails, it reads the image again, and writes nothing.  If that fails too,
    and the file itself can be read, the image is damaged.

    :raises ImageUnacceptable: the image is at fault
    """
    try:
        yield
    except exception.CommandFailed as e:
        if image.format is Format.RAW or not qemu_img.gave_up(e) \
                or qemu_img.is_sound(
                    image.path, image.format, image.virtual_size,
                    limits=policy.for_image(image.format,
                                            policy.conversion)):
            raise
        _read(image.path)
        raise _corrupt(image_id, str(e)) from e


def _read(path: pathlib.Path) -> None:
    """Read a file to its end.

    :raises StorageFailed: it cannot be read
    """
    with durable.translated("reading", path), path.open("rb") as f:
        while f.read(MiB):
            pass


def trust(path: pathlib.Path) -> Validated:
    """Describe content this host made itself, which is always raw."""
    return Validated(path, Format.RAW, whole_sectors(path.stat().st_size))


def _corrupt(image_id: str, reason: str) -> exception.ImageUnacceptable:
    return unacceptable(
        image_id, f"its tables or its data are damaged: {reason}",
        rule="corrupt")


def _references(info: dict[str, Any]) -> list[tuple[str, bool]]:
    details = info.get("format-specific", {}).get("data", {})
    return [("a backing file", "backing-filename" in info),
            ("a data file", "data-file" in details),
            ("encryption", bool(info.get("encrypted", False)))]


def _refusal(image_id: str, reason: str) -> exception.ImageUnacceptable:
    return unacceptable(image_id, reason, rule="third-opinion")
