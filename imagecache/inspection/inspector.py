# SPDX-License-Identifier: Apache-2.0
"""Inspects an image while its bytes arrive.

There are two opinions: the rules of imagecache.formats, and oslo.utils'
inspector.  Both must find the format that was claimed.  An image that breaks
a rule is refused as soon as its bytes show it.
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
from imagecache.inspection.advice import unacceptable
from imagecache.model import Format, whole_sectors

_LONGEST = 40    # characters of a claim in a message
_CHUNK = 1024 * 1024    # in small reads the inspector takes 50 times longer

# The size of a file that is not complete yet: no file is larger.
_ENDLESS = 2**64

# The format of each mark that our rules know; no mark means raw.
_OURS: dict[str | None, Format] = {
    None: Format.RAW, "qcow2": Format.QCOW2, "vmdk": Format.VMDK,
    "vhd": Format.VPC, "vhdx": Format.VHDX, "vdi": Format.VDI}

# The format of each name that the inspector has.  A partition table or an ISO
# 9660 file system is the content of a raw disk.
_THEIRS = {"raw": Format.RAW, "gpt": Format.RAW, "iso": Format.RAW,
           "qcow2": Format.QCOW2, "vmdk": Format.VMDK, "vhd": Format.VPC,
           "vhdx": Format.VHDX, "vdi": Format.VDI}

# The claims that are known, and their formats.  Those of Amazon are raw.
CLAIMS = {"raw": Format.RAW, "iso": Format.RAW, "ami": Format.RAW,
           "aki": Format.RAW, "ari": Format.RAW, "qcow2": Format.QCOW2,
           "vmdk": Format.VMDK, "vhd": Format.VPC, "vhdx": Format.VHDX,
           "vdi": Format.VDI}

# Formats whose rules look at more than the beginning.
_WHOLE: dict[Format, Callable[[BinaryIO, int], int]] = {
    Format.QCOW2: qcow2_tables.validate, Format.VMDK: vmdk.validate,
    Format.VPC: vhd.validate,
    Format.VHDX: vhdx.validate, Format.VDI: vdi.validate}

# The virtual size that the first sector states; the rules check it later.  A
# vhdx has its size megabytes further on.
_STATED_SIZES: dict[Format, Callable[[bytes], int]] = {
    Format.QCOW2: qcow2.stated_size, Format.VMDK: vmdk.stated_size,
    Format.VPC: vhd.stated_size, Format.VDI: vdi.stated_size}

# Checks of the inspector that are not used: our rules are stricter.  This one
# refuses extended L2 entries.
_OVERRULED = {"unknown_features"}


@dataclasses.dataclass(frozen=True)
class Found:
    """The format and the size of an image that follows all rules."""

    format: Format
    virtual_size: int    # bytes a guest would see


class Inspector:
    """Inspects the bytes of an image, from the first to the last.

    :param claim: the disk_format that the image should have; None: any
    :param accepted: the formats that the configuration accepts
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
        # One for each format: if one fails, the others still have a result.
        self._inspectors = [
            format_inspector.InspectWrapper(cast(BinaryIO, self._pipe),
                                            allowed_formats=[name])
            for name in format_inspector.ALL_FORMATS]

    @property
    def needs_more(self) -> bool:
        """Return whether more bytes could change the result."""
        return self.format is None or self._opinion() is None

    def feed(self, chunk: bytes) -> None:
        """Inspect the next bytes.

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
        """Return how many bytes a guest will see at least; 0: not known.

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
        # Check again: the size of the file is known now.
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
            raise self._refusal(
                f"its disk_format is {claim[:_LONGEST]}, and the known ones"
                " are " + ", ".join(CLAIMS), "claim-known")
        self._require_accepted(CLAIMS[claim])
        return CLAIMS[claim]

    def _recognise(self, file_size: int) -> Format:
        """Return the format, by the rules for the beginning of a file."""
        mark = raw.format_of(self._start[:raw.NEEDED])
        found = _OURS.get(mark)
        if found is None:
            raise self._refusal(f"its content begins as {mark}",
                                "format-known")
        self._require_accepted(found)
        if self._claimed not in (None, found):
            raise self._refusal(f"it claims to be {self._claimed}, but its"
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
                f"its format is {found}, and [image_cache] accepted_formats"
                " allows only " + ", ".join(sorted(self._accepted)),
                "format-accepted")

    def _opinion(self) -> list[format_inspector.FileInspector] | None:
        """Return the inspectors that match; None if they need more bytes."""
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
        # An image that matches no other format is raw.
        return [each for each in found if str(each) != Format.RAW] or found

    def _require_agreement(self, found: Format) -> None:
        """Check that the inspectors found the same format, and no other."""
        inspectors = self._opinion() or []
        names = sorted(map(str, inspectors))
        # The inspector takes any text with a createType for a vmdk.
        if self._claimed is Format.RAW and names == ["vmdk"] \
                and raw.is_other_text(self._start):
            names = ["raw"]
        # Two may match and agree: a hybrid ISO has a partition table, too.
        if {_THEIRS.get(name) for name in names} != {found}:
            raise self._refusal(
                f"our rules find {found} in it, and the inspector of"
                " oslo.utils " + " and ".join(names), "second-opinion")
        if self._says_iso and "iso" not in names:
            raise self._refusal("it claims to be iso, and its content is "
                                + " and ".join(names), "claim")
        # The partition table of a raw disk may have errors: it is the guest's.
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
        return unacceptable(self._image_id, reason, rule)


class _Pipe:
    """A stream of one chunk, which the inspectors read."""

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
