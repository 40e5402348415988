# SPDX-License-Identifier: Apache-2.0
"""Make a file larger, and the file system in it as well."""

from __future__ import annotations

import os
import pathlib

from imagecache import exception
from imagecache.model import Format
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import filesystem, qemu_img


def enlarge(path: pathlib.Path, format: Format, size: int,
            policy: Policy) -> str | None:
    """Give a file another size; in a raw one, the file system grows, too.

    :param size: bytes a guest will see
    :return: why a file system kept its size, as grow_filesystem() returns
    """
    if format is not Format.RAW:
        qemu_img.resize(path, format, size, limits=policy.inspection)
        return None
    with durable.translated("resizing a base", path):
        os.truncate(path, size)
    return grow_filesystem(path, policy)


def grow_filesystem(path: pathlib.Path, policy: Policy) -> str | None:
    """Let an unpartitioned ext file system fill a raw file or device.

    A broken file system keeps its size, as the guest may have broken it:
    that is no reason to refuse the disk.

    :return: why a file system kept its size; None if it grew, or if there
        is none
    """
    try:
        if filesystem.is_ext(path, policy.inspection):
            filesystem.grow_ext(path, policy.conversion)
    except exception.CommandNotFound:
        raise
    except exception.CommandFailed as e:
        return str(e)
    return None
