# SPDX-License-Identifier: Apache-2.0
"""A qcow2 disk may refer to one file: a base of this host.

A guest cannot write to the header of its qcow2 disk.  An attacker who broke
out of the guest into its hypervisor can, and the next resize or snapshot has
more rights than the hypervisor.  So the header is checked again before any
program opens the disk.
"""

from __future__ import annotations

import pathlib

from imagecache import exception
from imagecache.formats import qcow2, raw
from imagecache.formats.rules import RuleViolation, require
from imagecache.model import Format
from imagecache.system import durable


def base_of(disk: pathlib.Path, bases: pathlib.Path, *,
            encrypted: bool = False) -> pathlib.Path | None:
    """Return the backing file of a qcow2 disk; None if it has none.

    :param bases: the directory that the backing file must be in
    :param encrypted: whether the disk is on record as encrypted
    :raises DiskNotFound: there is no disk
    :raises StorageFailed: the disk or its base cannot be read
    :raises InvalidDiskFormat: the disk is not qcow2
    :raises UnsafeDisk: its header breaks a rule; no program may open it
    """
    header = qcow2.read_header(disk)
    sound = qcow2.SOUND_ENCRYPTED if encrypted else qcow2.SOUND
    try:
        require(qcow2.NO_DATA_FILE + sound, header)
        if header.backing_file is None:
            require(qcow2.NO_BACKING_FILE, header)
            return None
        base = pathlib.Path(header.backing_file)
        # A name that does not begin with a slash may name a protocol.
        if not base.is_absolute() or base.parent.resolve() != bases.resolve():
            raise RuleViolation(
                "foreign-base", f"it is an overlay of {header.backing_file},"
                f" which is not in {bases}")
        if base.exists():
            _require_agreement(base, header.backing_format)
    except RuleViolation as e:
        raise exception.UnsafeDisk(path=disk, reason=str(e),
                                   rule=e.rule) from e
    return base


def _require_agreement(base: pathlib.Path, named: str | None) -> None:
    """Refuse a base that qemu would read as another format than it has.

    Any content is harmless if it is read as raw.  Overlays from before 2020
    name no format; then qemu probes the content.
    """
    if named == Format.RAW:
        return
    with durable.translated("reading a base", base), base.open("rb") as f:
        start = f.read(raw.NEEDED)
    mark = raw.format_of(start)
    if mark is None and named is None:
        return
    if mark != "qcow2" or named not in (None, Format.QCOW2):
        raise RuleViolation("base-format", f"its base {base} would be read as"
                            f" {named or mark}")
    require(qcow2.SELF_CONTAINED, qcow2.read_header(base))
