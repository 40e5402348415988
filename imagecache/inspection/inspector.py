# SPDX-License-Identifier: Apache-2.0
"""Inspects an image while its bytes arrive.

Two opinions are asked: the rules of imagecache.formats, and oslo.utils'
inspector.  They must agree on the format, and with what was claimed.  An
image that breaks a rule is refused as soon as its bytes show it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Collection
from typing import BinaryIO, cast

from oslo_utils.imageutils import format_inspector

from imagecache import exception
from imagecache.formats import qcow2, qcow2_tables, raw, vdi, vhd, vhdx, vmdk
from imagecache.formats.rules import RuleViolation, require
from imagecache.model import Format, whole_sectors

_CHUNK = 1024 * 1024    # small reads cost the inspector 50 times more

# No file is as long; says "the end has not been seen yet" to the rules.
_ENDLESS = 2**64

# What our rules call a format, by its mark; None marks raw.
_OURS: dict[str | None, Format] = {
    None: Format.RAW, "qcow2": Format.QCOW2, "vmdk": Format.VMDK,
    "vhd": Format.VPC, "vhdx": Format.VHDX, "vdi": Format.VDI}

# What the inspector calls it.  The contents of a raw disk (a partition
# table, an ISO 9660 file system) are the guest's.
_THEIRS = {"raw": Format.RAW, "gpt": Format.RAW, "iso": Format.RAW,
           "qcow2": Format.QCOW2, "vmdk": Format.VMDK, "vhd": Format.VPC,
           "vhdx": Format.VHDX, "vdi": Format.VDI}

# What an image may claim to be.  The kinds of Amazon's are raw bytes.
CLAIMS = {"raw": Format.RAW, "iso": Format.RAW, "ami": Format.RAW,
           "aki": Format.RAW, "ari": Format.RAW, "qcow2": Format.QCOW2,
           "vmdk": Format.VMDK, "vhd": Format.VPC, "vhdx": Format.VHDX,
           "vdi": Format.VDI}

# Formats whose rules look at more than the beginning.
_WHOLE: dict[Format, Callable[[BinaryIO, int], int]] = {
    Format.QCOW2: qcow2_tables.validate, Format.VMDK: vmdk.validate,
    Format.VPC: vhd.validate,
    Format.VHDX: vhdx.validate, Format.VDI: vdi.validate}

# What the first sector says of the virtual size, which the rules check later.
# That of a vhdx is megabytes further on.
_STATED_SIZES: dict[Format, Callable[[bytes], int]] = {
    Format.QCOW2: qcow2.stated_size, Format.VMDK: vmdk.stated_size,
    Format.VPC: vhd.stated_size, Format.VDI: vdi.stated_size}

# Ours are stricter: the inspector refuses extended L2 entries by this name.
_OVERRULED = {"unknown_features"}


@dataclasses.dataclass(frozen=True)
class Found:
    """What an image is, by every rule that needs no other program."""

    format: Format
    virtual_size: int    # bytes a guest would see


class Inspector:
    """Sees an image once, from its first byte to its last.

    :param claim: the disk_format it is said to have; None if nobody said
    :param accepted: the formats that are welcome here
    """

    def __init__(self, image_id: str, claim: str | None,
                 accepted: Collection[Format]) -> None:
        self._image_id = image_id
        self._accepted = accepted
        self._claimed = None if claim is None else self._claim(claim)
        self._says_iso = claim == "iso"
        self._start = b""
        self.format: Format | None = None    # known after the first cluster
        self._pipe = _Pipe()
        # One each, so that one that trips costs no other its say.
        self._inspectors = [
            format_inspector.InspectWrapper(cast(BinaryIO, self._pipe),
                                            allowed_formats=[name])
            for name in format_inspector.ALL_FORMATS]

    @property
    def needs_more(self) -> bool:
        """Whether more bytes could change what is known so far."""
        return self.format is None or self._opinion() is None

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes.

        :raises ImageUnacceptable: they break a rule
        """
        if self.format is None:
            self._start += chunk
            needed = qcow2.needed(self._start)
            if len(self._start) >= needed:
                self._start = self._start[:needed]
                self.format = self._recognise(_ENDLESS)
        if self._opinion() is None:
            self._pipe.chunk = chunk
            for each in self._inspectors:
                each.read(len(chunk))

    def least_size(self, stored: int) -> int:
        """Return how many bytes a guest will see at least, as known so far.

        :param stored: bytes that the image has, or has at least
        """
        if self.format is Format.RAW:
            return whole_sectors(stored)
        stated = _STATED_SIZES.get(self.format) if self.format else None
        return stated(self._start) if stated else 0

    def finish(self, path: pathlib.Path) -> Found:
        """Inspect the whole file; all its bytes went through feed().

        :raises ImageUnacceptable: it breaks a rule
        """
        size = path.stat().st_size
        if not size:
            raise self._refusal("it is empty", "empty")
        # Once more: now it is known how long the file is.
        found = self._recognise(size)
        for each in self._inspectors:
            each.close()
        self._require_agreement(found)
        if found is Format.RAW:
            return Found(found, whole_sectors(size))
        with path.open("rb") as f:
            try:
                return Found(found, _WHOLE[found](f, size))
            except RuleViolation as e:
                raise self._refusal(e.reason, e.rule) from e

    def _claim(self, claim: str) -> Format:
        if claim not in CLAIMS:
            raise self._refusal(f"its disk_format is {claim}; known are "
                                + ", ".join(CLAIMS), "claim-known")
        self._require_accepted(CLAIMS[claim])
        return CLAIMS[claim]

    def _recognise(self, file_size: int) -> Format:
        """Return the format, by the rules that look at the beginning."""
        mark = raw.format_of(self._start[:raw.NEEDED])
        found = _OURS.get(mark)
        if found is None:
            raise self._refusal(f"its content begins as {mark}",
                                "format-known")
        self._require_accepted(found)
        if self._claimed not in (None, found):
            raise self._refusal(f"it claims to be {self._claimed}, and its"
                                f" content is {found}", "claim")
        if found is Format.QCOW2:
            try:
                require(qcow2.SELF_CONTAINED,
                        qcow2.parse(self._start, file_size))
            except RuleViolation as e:
                raise self._refusal(e.reason, e.rule) from e
        return found

    def _require_accepted(self, found: Format) -> None:
        if found not in self._accepted:
            raise self._refusal(
                f"its format is {found}; [image_cache] accepted_formats"
                " allows " + ", ".join(sorted(self._accepted)),
                "format-accepted")

    def _opinion(self) -> list[format_inspector.FileInspector] | None:
        """Return what the inspectors match; None if they must see more."""
        found = []
        for each in self._inspectors:
            try:
                matches = each.formats
            except AttributeError:
                # The inspector of vmdk (oslo.utils 10.2) raises it if text is
                # followed by other bytes, as in a shell archive.  Our own
                # rules refuse the text that qemu takes for a vmdk.
                continue
            if matches is None:
                return None
            found += matches
        # What is nothing else is raw.
        return [each for each in found if str(each) != Format.RAW] or found

    def _require_agreement(self, found: Format) -> None:
        """Ask the inspector, which must not know better."""
        inspectors = self._opinion() or []
        names = sorted(map(str, inspectors))
        # The inspector takes any text with a createType for a vmdk.
        if self._claimed is Format.RAW and names == ["vmdk"] \
                and raw.is_other_text(self._start):
            names = ["raw"]
        # Two may match and agree: a hybrid ISO has a partition table as well.
        if {_THEIRS.get(name) for name in names} != {found}:
            raise self._refusal(f"its content is {found}, and also "
                                + " and ".join(names), "second-opinion")
        if self._says_iso and "iso" not in names:
            raise self._refusal("it claims to be iso, and its content is "
                                + " and ".join(names), "claim")
        # What it thinks of a partition table is no reason to refuse a disk.
        if found is not Format.RAW:
            self._require_safe(inspectors[0])

    def _require_safe(self, inspector: format_inspector.FileInspector
                      ) -> None:
        try:
            inspector.safety_check()
        except format_inspector.SafetyCheckFailed as e:
            failed = sorted(set(e.failures) - _OVERRULED)
            if failed:
                raise self._refusal("it fails the safety checks "
                                    + ", ".join(failed), "safety") from e
        except format_inspector.ImageFormatError as e:
            raise self._refusal(f"its header is damaged: {e}",
                                "safety") from e

    def _refusal(self, reason: str, rule: str
                 ) -> exception.ImageUnacceptable:
        return exception.ImageUnacceptable(
            image_id=self._image_id, reason=f"{reason} (rule {rule})",
            rule=rule)


class _Pipe:
    """Hands the inspector what we have just seen."""

    chunk = b""

    def read(self, size: int) -> bytes:
        return self.chunk


def inspect(path: pathlib.Path, image_id: str, claim: str | None,
            accepted: Collection[Format]) -> Found:
    """Inspect a complete file.

    :raises ImageUnacceptable: it breaks a rule
    """
    inspector = Inspector(image_id, claim, accepted)
    with path.open("rb") as f:
        while inspector.needs_more and (chunk := f.read(_CHUNK)):
            inspector.feed(chunk)
    return inspector.finish(path)
