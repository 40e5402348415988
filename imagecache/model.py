# SPDX-License-Identifier: Apache-2.0
"""Value types that modules exchange: all frozen, and without side effects."""

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
    """Round a number of bytes up to the whole sectors that a guest sees."""
    return -(-size // SECTOR) * SECTOR


class Format(enum.StrEnum):
    """The supported formats, with qemu's names.

    A base or a disk has one of the first two; an image may have any.
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
        # Both are untrusted input; value appears in records and messages.
        try:
            size = hashlib.new(self.algorithm, usedforsecurity=False
                               ).digest_size
            if not size:    # shake_128 has no size of its own
                raise ValueError
        except (ValueError, TypeError):
            raise exception.InvalidName(
                name=self.algorithm, what="a digest algorithm",
                reason="this Python does not support it") from None
        if not re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", self.value):
            raise exception.InvalidName(
                name=self.value, what=f"a {self.algorithm} digest",
                reason=f"it must be {2 * size} lower-case hex digits")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """The signature of an image as its store describes it; not verified."""

    value: str             # base64
    hash_method: str       # "SHA-256", ...
    key_type: str          # "RSA-PSS", "DSA", "ECC_SECP384R1", ...
    certificate_id: str    # of the signer's, in a key manager


@dataclasses.dataclass(frozen=True)
class Description:
    """An image store's description of an image, before a byte is read."""

    ref: str                          # the name of the image in its store
    identity: str                     # same identity, same bytes, same base
    size: int | None = None           # bytes to read; None: unknown
    disk_format: str | None = None    # as claimed; None: no claim
    digest: Digest | None = None
    min_disk: int = 0                 # the least bytes of a disk
    locations: tuple[str, ...] = ()   # other places of the bytes, as URLs
    version: str | None = None        # a validator for If-Range (strong ETag)
    signature: Signature | None = None

    @property
    def key(self) -> str:
        """The name of the base: the sha1 of the identity, as in nova."""
        return hashlib.sha1(self.identity.encode(),
                            usedforsecurity=False).hexdigest()


@dataclasses.dataclass(frozen=True)
class NbdExport:
    """A raw block device that a program reaches through a socket.

    The program gets its end of the connection as standard input, so it needs
    no right to open a socket.
    """

    client: socket.socket

    name: ClassVar[str] = (    # for qemu-img
        'json:{"driver": "raw", "file": {"driver": "nbd",'
        ' "server": {"type": "fd", "str": "0"}}}')


Output = pathlib.Path | NbdExport    # the target of qemu-img


@dataclasses.dataclass(frozen=True)
class Validated:
    """A staged file whose content is known; not visible in the cache yet."""

    path: pathlib.Path
    format: Format
    virtual_size: int    # bytes a guest would see


@dataclasses.dataclass(frozen=True)
class Base:
    """A committed base: complete, validated, never rewritten.

    It cannot be removed while it is leased.  Its content needs no second
    inspection.
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
    """The abilities of a backend; callers ask these and not isinstance."""

    depends_on_base: bool = False      # the disk is broken without its base
    generates_in_place: bool = False   # templates need no base
    file: bool = False                 # a file in its instance's directory
    block_device: bool = False         # the guest gets a device, not a file
    shared_storage: bool = False       # other hosts see the same disk


class Sandbox(enum.StrEnum):
    """Whether a program runs in a sandbox that contains only its files."""

    REQUIRED = "required"     # without a sandbox the program does not run
    AVAILABLE = "available"   # in a sandbox if this host has one
    NEVER = "never"


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of one run of an outside program.  None: no limit."""

    address_space: int | None = None   # bytes
    cpu_time: int | None = None        # seconds
    file_size: int | None = None       # bytes, of any file it writes
    wall_clock: int | None = None      # seconds
    sandbox: Sandbox | None = None     # None: it reads no data of a tenant
    # The name of each limit here, and the option that sets it.
    options: Mapping[str, str] = dataclasses.field(
        default_factory=dict, compare=False)

    def writing(self, size: int | None) -> Limits:
        """Return these limits, with files of at most ``size`` bytes."""
        return dataclasses.replace(self, file_size=size)


@dataclasses.dataclass(frozen=True)
class Record:
    """The facts of a base that were validated, kept beside it.

    To use a base with a record again takes a stat and a small read.
    """

    format: Format
    virtual_size: int            # bytes a guest would see
    size: int                    # bytes of the base's file or device
    rules: int                   # the version of the rules at its validation
    source: str                  # the name of its source, for display
    source_format: str | None = None  # of the source; None: not known
    digest: str | None = None    # of the source's bytes, "sha256:..."
    cluster_size: int | None = None   # bytes; of a qcow2 base only
    committed: str = ""          # time, ISO 8601
    # The id and the digest of the certificate that verified the source's
    # signature.  None: the signature was not verified.
    signature: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A base as its store lists it."""

    key: str
    path: pathlib.Path
    size: int                    # bytes of its file or device
    allocated: int               # bytes of storage it occupies
    used: float                  # when last used, seconds since the epoch
    record: Record | None        # None: it was never validated
    store: str = ""              # the name of the store, for display

    def as_base(self) -> Base:
        if self.record is None:
            raise ValueError(f"{self.path} has not been validated")
        return Base.of(self.key, self.path, self.record)
