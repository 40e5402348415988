# SPDX-License-Identifier: Apache-2.0
"""Load Ceph's libraries, and translate their errors."""

from __future__ import annotations

import contextlib
import errno
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from imagecache import exception

_KINDS: Mapping[int | None, type[exception.StorageFailed]] = {
    errno.ENOENT: exception.StorageMissing,
    errno.EEXIST: exception.StorageExists,
    errno.EBUSY: exception.StorageBusy,
    errno.ENOTEMPTY: exception.StorageBusy,    # it has snapshots
    errno.EROFS: exception.StorageBusy,        # another client has its lock
    errno.EPERM: exception.StorageForbidden,
    errno.EACCES: exception.StorageForbidden,
    errno.ETIMEDOUT: exception.StorageUnreachable,
    errno.ENOTCONN: exception.StorageUnreachable,
    errno.ESHUTDOWN: exception.StorageUnreachable,   # blocklisted
}


def bindings() -> tuple[Any, Any]:
    """Return the modules rados and rbd.

    :raises InvalidConfiguration: they are not installed
    """
    try:
        return importlib.import_module("rados"), importlib.import_module("rbd")
    except ImportError as e:
        raise exception.InvalidConfiguration(
            "Disks in Ceph are configured, and Python has no bindings for"
            f" Ceph ({e}): install the packages python3-rados and python3-rbd."
            " They are not on PyPI; for a virtual environment of the same"
            " Python, link rados.*.so and rbd.*.so from"
            " /usr/lib/python3/dist-packages"
            " into a directory that a .pth file in its site-packages names",
            option="[libvirt] images_type", value="rbd",
            reason=str(e)) from e


@contextlib.contextmanager
def translated(what: str, where: str) -> Iterator[None]:
    """Translate an error of Ceph's libraries."""
    rados, rbd = bindings()
    try:
        yield
    except (rados.Error, rbd.Error) as e:
        raise failure(getattr(e, "errno", None), str(e), what, where) from e


def failure(number: int | None, said: str, what: str,
            where: str) -> exception.HostError:
    """Return this library's exception for an error number of Ceph's."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return exception.NoSpace(path=where, what=what, needed="more",
                                 available=0)
    kind = _KINDS.get(number, exception.StorageFailed)
    return kind(what=what, path=where,
                reason=said or (errno.errorcode.get(number or 0) or "?"))
