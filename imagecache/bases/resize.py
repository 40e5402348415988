# SPDX-License-Identifier: Apache-2.0
"""A file becomes larger, and the file system in it with it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable

from imagecache import exception
from imagecache.inspection import verify
from imagecache.model import Base, Format, Record, Validated
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import file_copy, filesystem, qemu_img

Complain = Callable[[str], object]    # why a file system did not grow


def copy(base: Base, record: Record, new: pathlib.Path, size: int,
         policy: Policy, complain: Complain) -> tuple[Validated, Record]:
    """Make a larger copy of a base, for disks of that size.

    :param record: of the base
    :raises NoSpace: there is no room for what it holds
    """
    with durable.translated("copying a base", new):
        new.touch()
    file_copy.copy(base.path, new)
    with verify.blaming(Validated(base.path, base.format, base.virtual_size),
                       record.source, policy):
        _grow(new, base.format, size, policy, complain)
    durable.fsync_file(new)
    return Validated(new, base.format, size), dataclasses.replace(
        record, virtual_size=size, size=new.stat().st_size,
        committed=durable.now())


def grow_filesystem(path: pathlib.Path, policy: Policy,
                    complain: Complain) -> None:
    """Let an unpartitioned ext file system fill a raw file or device.

    One that is broken keeps its size, as a guest's own mistake would have it:
    that is no reason to refuse the disk.

    :param complain: told why it was kept
    """
    try:
        if filesystem.is_ext(path, policy.inspection):
            filesystem.grow_ext(path, policy.conversion)
    except exception.CommandNotFound:
        raise
    except exception.CommandFailed as e:
        complain(str(e))


def _grow(path: pathlib.Path, format: Format, size: int, policy: Policy,
          complain: Complain) -> None:
    if format is Format.RAW:
        with durable.translated("resizing a base", path):
            os.truncate(path, size)
        grow_filesystem(path, policy, complain)
    else:
        qemu_img.resize(path, format, size, limits=policy.inspection)
