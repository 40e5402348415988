# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a disk come from.

A source is an *Image*, which a tenant chose and no code trusts, or a
*Template*, which this host makes.  A caller says which by the type.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from imagecache.inspection.signatures import Signer
from imagecache.model import Description, Digest, GiB

Write = Callable[[pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Stream:
    """An open download.

    ``offset`` is where it starts: an image store that cannot start at the
    requested offset starts at 0.
    """

    offset: int
    chunks: Iterator[bytes]


class ImageStore(Protocol):
    """A place that holds images: a directory, a web server, Glance.

    For example, an image whose data breaks off after 1 MiB is read so::

        image = store.describe("https://host/disk.qcow2")
        image.size, image.disk_format       # 3145728, "qcow2"
        with store.read(image) as stream:   # GET; stream.offset is 0
            for chunk in stream.chunks:     # 1 MiB, then SourceUnreachable
                file.write(chunk)
        with store.read(image, file.tell()) as stream:
            if stream.offset == 0:          # the store has no ranges
                file.seek(0)
            for chunk in stream.chunks:     # the other 2 MiB
                file.write(chunk)
    """

    def describe(self, ref: str) -> Description:
        """Return the metadata of an image; its data is not read.

        :raises ImageNotFound: there is none, or none the caller may see
        :raises ImageNotActive: there is one, but it has no data to read
        :raises Forbidden: the store refuses the caller
        :raises SourceError: the store cannot be reached now
        """

    def read(self, image: Description,
             offset: int = 0) -> contextlib.AbstractContextManager[Stream]:
        """Open the image's bytes from ``offset`` on.

        A chunk has 1 to 1,048,576 bytes.  The connection is closed when the
        block ends.  Raises the errors of describe(), and while the chunks
        are read:

        :raises SourceUnreachable: the connection broke
        :raises DownloadStalled: no byte came within the read time-out
        :raises DownloadTruncated: the store ended it before its size
        """


class Copy(enum.Enum):
    """The state of a copy of an image in another store of Glance."""

    THERE = "there"
    COMING = "coming"
    FAILED = "failed"    # the last attempt failed
    ABSENT = "absent"


@runtime_checkable
class Locator(Protocol):
    """An image store that shows the locations of its data: Glance.

    Every method raises the errors of describe(), besides those it names.
    """

    def locations(self, ref: str) -> Sequence[str]:
        """Return the URLs of an image's data that the store shows."""

    def request_copy(self, ref: str, store: str) -> None:
        """Request a copy of an image in a named store; do not wait for it.

        :raises ImageUnacceptable: the store refuses, for example while it
            copies the image to another store; ``reason`` has its message
        """

    def copy_of(self, ref: str, store: str) -> Copy:
        """Return the state of a copy."""

    def register(self, ref: str, location: str) -> None:
        """Give a queued image the data at a URL.

        :raises ImageUnacceptable: the store refuses
        """


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What a source asks of its base, and of the disks made of it.

    None: the source does not ask for anything in particular.
    """

    min_disk: int = 0                  # bytes a disk must have at least
    virtual_size: int | None = None    # bytes the base must have exactly
    digest: Digest | None = None       # of the bytes the base was made from
    disk_format: str | None = None     # of these bytes, as Glance names it
    certificate: str | None = None     # by which their signature was verified


@dataclasses.dataclass(frozen=True)
class Image:
    """An image that this library reads from a store."""

    store: ImageStore
    description: Description
    signer: Signer | None = None    # None: it need not be signed
    in_place: ClassVar[bool] = False
    original: ClassVar[None] = None

    @property
    def key(self) -> str:
        return self.description.key

    @property
    def name(self) -> str:
        """The name that people use for it."""
        return self.description.ref

    @property
    def requires(self) -> Requirements:
        described = self.description
        return Requirements(
            min_disk=described.min_disk, digest=described.digest,
            disk_format=described.disk_format,
            certificate=self.signer.certificate if self.signer else None)

    def resized(self, size: int) -> Resized:
        return Resized(self, size)


@dataclasses.dataclass(frozen=True)
class DelegatedImage:
    """An image that a function of the caller fetches, as nova's does."""

    key: str
    write: Write
    # The function writes to the base's own path.
    in_place: bool = False
    original: ClassVar[None] = None
    requires: ClassVar[Requirements] = Requirements()

    @property
    def name(self) -> str:
        return self.key

    def resized(self, size: int) -> Resized:
        return Resized(self, size)


@dataclasses.dataclass(frozen=True)
class Template:
    """Content that this host makes itself: a file system, swap space."""

    key: str
    write: Write
    # False: what ``write`` wrote is validated, as an image is.
    trusted: bool = True
    # Whether ``write`` can also fill a block device, and whether the device
    # must then read as zeros.
    on_device: bool = False
    zeros: bool = False
    in_place: ClassVar[bool] = False
    original: ClassVar[None] = None
    requires: ClassVar[Requirements] = Requirements()

    @property
    def name(self) -> str:
        return self.key

    def resized(self, size: int) -> None:
        """Return None: a template already has the size of its disk."""


@dataclasses.dataclass(frozen=True)
class Resized:
    """A copy of an image's base that has the size of its disks."""

    original: Image | DelegatedImage    # the source whose base is copied
    size: int                           # bytes, whole GiB
    in_place: ClassVar[bool] = False

    @property
    def key(self) -> str:
        return f"{self.original.key}_{self.size // GiB}"

    @property
    def name(self) -> str:
        return self.original.name

    @property
    def requires(self) -> Requirements:
        return dataclasses.replace(self.original.requires,
                                   virtual_size=self.size)

    def resized(self, size: int) -> Resized:
        return Resized(self.original, size)


Source = Image | DelegatedImage | Template | Resized


def is_resized(key: str) -> bool:
    """Return whether a key is that of a resized base."""
    return bool(re.fullmatch(r"[0-9a-f]{40}_[0-9]+", key))


def behind(key: str, source: Source) -> Source | None:
    """Return what makes the base of a key again, if ``source`` can."""
    if key == source.key:
        return source
    size = re.fullmatch(rf"{re.escape(source.key)}_([1-9][0-9]{{0,8}})", key)
    return source.resized(int(size[1]) * GiB) if size else None
