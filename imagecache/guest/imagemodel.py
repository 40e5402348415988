# SPDX-License-Identifier: Apache-2.0
"""What a nova driver is told of where a disk's bytes are.

The names and attributes are those of nova.virt.image.model, for drivers that
tell the kinds of disks apart by them.
"""

from __future__ import annotations

import dataclasses

FORMAT_RAW = "raw"
FORMAT_QCOW2 = "qcow2"


@dataclasses.dataclass(frozen=True)
class Image:
    format: str


@dataclasses.dataclass(frozen=True, init=False)
class LocalImage(Image):
    """An image that has a path on this host."""

    path: str

    def __init__(self, path: str, format: str) -> None:
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "format", format)


@dataclasses.dataclass(frozen=True, init=False)
class LocalFileImage(LocalImage):
    """A file."""


@dataclasses.dataclass(frozen=True, init=False)
class LocalBlockImage(LocalImage):
    """A block device, which is always raw."""

    def __init__(self, path: str) -> None:
        super().__init__(path, FORMAT_RAW)


@dataclasses.dataclass(frozen=True, init=False)
class RBDImage(Image):
    """A volume in a pool of Ceph, which is always raw."""

    name: str
    pool: str
    user: str | None
    password: bytes | None    # the user's key, in base64
    servers: list[str]        # the monitors, as host:port

    def __init__(self, name: str, pool: str, user: str | None,
                 password: bytes | None, servers: list[str]) -> None:
        object.__setattr__(self, "format", FORMAT_RAW)
        for field, value in (("name", name), ("pool", pool), ("user", user),
                             ("password", password), ("servers", servers)):
            object.__setattr__(self, field, value)
