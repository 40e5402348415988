# SPDX-License-Identifier: Apache-2.0
"""Facts that travel between modules; all frozen, none does any work."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import pathlib
import re
import socket
from collections.abc import Mapping
from typing import ClassVar, Self

from imagecache import exception

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
SECTOR = 512


def whole_sectors(size: int) -> int:
    """Return what a guest sees of so many bytes."""
    return -(-size // SECTOR) * SECTOR


class Format(enum.StrEnum):
    """The formats that are known here, in qemu's words.

    A base or a disk is one of the first two; an image may arrive as any.
    """

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VPC = "vpc"      # vhd
    VHDX = "vhdx"
    VDI = "vdi"


NATIVE = (Format.RAW, Format.QCOW2)


def native(name: str) -> Format:
    """Return the format of a base or a disk; ValueError if it is not one."""
    if name not in NATIVE:
        raise ValueError(f"{name!r} is not the format of any base or disk")
    return Format(name)


@dataclasses.dataclass(frozen=True)
class Digest:
    """A cryptographic digest of the bytes as the store holds them."""

    algorithm: str   # a name hashlib knows, as in Glance's os_hash_algo
    value: str       # lower-case hexadecimal

    def __post_init__(self) -> None:
        # Both come from outside; value ends up in records and messages.
        try:
            size = hashlib.new(self.algorithm, usedforsecurity=False
                               ).digest_size
            if not size:    # shake_128 has as many as one asks for
                raise ValueError
        except (ValueError, TypeError):
            raise exception.InvalidName(
                name=self.algorithm, what="a digest algorithm",
                reason="this Python knows none of that name") from None
        if not re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", self.value):
            raise exception.InvalidName(
                name=self.value, what=f"a {self.algorithm} digest",
                reason=f"it must be {2 * size} lower-case hex digits")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What an image store says of an image's signature: mere words."""

    value: str             # base64
    hash_method: str       # "SHA-256", ...
    key_type: str          # "RSA-PSS", "DSA", "ECC_SECP384R1", ...
    certificate_id: str    # of the signer's, in a key manager


@dataclasses.dataclass(frozen=True)
class Description:
    """What an image store says of an image before a byte of it is read."""

    ref: str                          # what the store knows it by
    identity: str                     # same identity, same bytes, same base
    size: int | None = None           # bytes to read; None: the store is mute
    disk_format: str | None = None    # as claimed; None: nobody claims any
    digest: Digest | None = None
    min_disk: int = 0                 # bytes a disk must have at least
    locations: tuple[str, ...] = ()   # where else the bytes are, as URLs
    version: str | None = None        # a validator for If-Range (strong ETag)
    signature: Signature | None = None

    @property
    def key(self) -> str:
        """The name of the base: the sha1 of the identity, as nova has it."""
        return hashlib.sha1(self.identity.encode(),
                            usedforsecurity=False).hexdigest()


@dataclasses.dataclass(frozen=True)
class NbdExport:
    """A raw block device that a program reaches through a socket.

    The program finds its end of the connection as its standard input, so it
    needs no right to open one.
    """

    client: socket.socket

    name: ClassVar[str] = (    # for qemu-img
        'json:{"driver": "raw", "file": {"driver": "nbd",'
        ' "server": {"type": "fd", "str": "0"}}}')


Output = pathlib.Path | NbdExport    # where qemu-img writes to


@dataclasses.dataclass(frozen=True)
class Validated:
    """A staged file whose content is known; still invisible to everybody."""

    path: pathlib.Path
    format: Format
    virtual_size: int    # bytes a guest would see


@dataclasses.dataclass(frozen=True)
class Base:
    """A committed base: complete, validated, never rewritten.

    Within its lease it cannot be removed.  Nobody needs to ask again what it
    contains.
    """

    key: str
    path: pathlib.Path
    format: Format
    virtual_size: int                  # bytes a guest would see
    cluster_size: int | None = None    # bytes; of a qcow2 base only

    @property
    def content(self) -> Validated:
        return Validated(self.path, self.format, self.virtual_size)

    @classmethod
    def of(cls, key: str, path: pathlib.Path, record: Record) -> Self:
        """Return the base that a record describes."""
        return cls(key, path, record.format, record.virtual_size,
                   record.cluster_size)


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What a backend can do: declared once, never asked by isinstance."""

    depends_on_base: bool = False      # the disk is broken without its base
    generates_in_place: bool = False   # templates need no base
    file: bool = False                 # a file in its instance's directory
    block_device: bool = False         # the guest gets a device, not a file
    shared_storage: bool = False       # other hosts see the same disk


class Sandbox(enum.StrEnum):
    """Whether a program runs where it reaches only the files it is given."""

    REQUIRED = "required"     # or it does not run
    AVAILABLE = "available"   # if this host can do that
    NEVER = "never"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one run of an outside program may use.  None: no limit."""

    address_space: int | None = None   # bytes
    cpu_time: int | None = None        # seconds
    file_size: int | None = None       # bytes, of any file it writes
    wall_clock: int | None = None      # seconds
    sandbox: Sandbox | None = None     # None: it reads no tenant's bytes
    # The option that sets a limit, by the name of the limit here.
    options: Mapping[str, str] = dataclasses.field(
        default_factory=dict, compare=False)

    def writing(self, size: int | None) -> Limits:
        """The same, and no file may have more than ``size`` bytes."""
        return dataclasses.replace(self, file_size=size)


@dataclasses.dataclass(frozen=True)
class Record:
    """What was validated of a base, kept beside it.

    A base that has one costs a stat and a small read to use again.
    """

    format: Format
    virtual_size: int            # bytes a guest would see
    size: int                    # bytes of the base's file or device
    rules: int                   # the version of the rules it was validated by
    source: str                  # what it was made from, for people
    source_format: str | None = None  # what it was then; None: not known
    digest: str | None = None    # of the source's bytes, "sha256:..."
    cluster_size: int | None = None   # bytes; of a qcow2 base only
    committed: str = ""          # when, ISO 8601
    # The certificate by which the source's signature was verified: its id
    # and its digest.  None: nobody asked.
    signature: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A base as it is found in its store."""

    key: str
    path: pathlib.Path
    size: int                    # bytes of its file or device
    allocated: int               # bytes of storage it occupies
    used: float                  # when last used, seconds since the epoch
    record: Record | None        # None: it was never validated
    store: str = ""              # which one, for people

    def as_base(self) -> Base:
        if self.record is None:
            raise ValueError(f"{self.path} has not been validated")
        return Base.of(self.key, self.path, self.record)
