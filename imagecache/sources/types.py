# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a disk come from.

A source is an *Image*, chosen by a tenant and trusted by nobody, or a
*Template*, made by this host.  Intent is a type here, not a key to look for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from imagecache.inspection.signatures import Signer
from imagecache.model import Description, GiB

Write = Callable[[pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Stream:
    """An open download.

    ``offset`` is where it really starts: an image store that cannot start
    in the middle starts at 0, whatever it was asked.
    """

    offset: int
    chunks: Iterator[bytes]


class ImageStore(Protocol):
    """A place that holds images: a directory, a web server, Glance."""

    def describe(self, ref: str) -> Description:
        """Say what is known of an image without reading it.

        :raises ImageNotFound: there is none, or none the caller may see
        :raises ImageNotActive: there is one, but it has no data to read
        :raises Forbidden: the store refuses the caller
        :raises SourceError: the store cannot be asked now
        """

    def read(self, image: Description,
             offset: int = 0) -> contextlib.AbstractContextManager[Stream]:
        """Open the image's bytes from ``offset`` on.

        Chunks have 1 MiB at most.  The connection is closed when the block
        ends.  Besides what describe() raises, while the chunks are read:

        :raises SourceUnreachable: the connection broke
        :raises DownloadStalled: no byte came within the read time-out
        :raises DownloadTruncated: the store ended it before its size
        """


class Copy(enum.Enum):
    """How far a copy of an image in another store behind its own is."""

    THERE = "there"
    COMING = "coming"
    FAILED = "failed"    # it was tried, and is not any more
    ABSENT = "absent"


@runtime_checkable
class Locator(Protocol):
    """An image store that others can read from behind its back: Glance.

    Besides what is said here, all of it raises what describe() raises.
    """

    def locations(self, ref: str) -> Sequence[str]:
        """Return the URLs of an image's data that the caller may know."""

    def request_copy(self, ref: str, store: str) -> None:
        """Ask for a copy of an image in a named store, and do not wait.

        :raises ImageUnacceptable: not now, as it is being copied to any
            store, or never; ``reason`` has the store's words
        """

    def copy_of(self, ref: str, store: str) -> Copy:
        """Say how far a copy is."""

    def register(self, ref: str, location: str) -> None:
        """Make an image of what is at a URL; it has waited for its data.

        :raises ImageUnacceptable: the store does not take it
        """


@dataclasses.dataclass(frozen=True)
class Image:
    """An image that this library reads from a store."""

    store: ImageStore
    description: Description
    signer: Signer | None = None    # None: it need not be signed

    @property
    def key(self) -> str:
        return self.description.key

    @property
    def name(self) -> str:
        """What people call it."""
        return self.description.ref


@dataclasses.dataclass(frozen=True)
class DelegatedImage:
    """An image that the caller's own function brings, as nova's does."""

    key: str
    write: Write
    # It looks at the path it is given, so that must be the base's own.
    in_place: bool = False

    @property
    def name(self) -> str:
        return self.key


@dataclasses.dataclass(frozen=True)
class Template:
    """Content this host makes itself: an empty file system, swap space."""

    key: str
    write: Write
    # False: it is looked at first, in case it is not as harmless as that.
    trusted: bool = True
    # Whether ``write`` can fill a device, too, and then needs to find zeros.
    on_device: bool = False
    zeros: bool = False

    @property
    def name(self) -> str:
        return self.key


Source = Image | DelegatedImage | Template


@dataclasses.dataclass(frozen=True)
class Resized:
    """An image's base once more, as large as the disks made of it."""

    image: Image | DelegatedImage
    size: int    # bytes, whole GiB

    @property
    def key(self) -> str:
        return f"{self.image.key}_{self.size // GiB}"

    @property
    def name(self) -> str:
        return self.image.name


def is_resized(key: str) -> bool:
    """Say whether a base of this key is another one's, resized."""
    return bool(re.fullmatch(r"[0-9a-f]{40}_[0-9]+", key))


def behind(key: str, source: Source) -> Source | Resized | None:
    """Return what makes the base of a key again, if it is of this source."""
    if key == source.key:
        return source
    size = re.fullmatch(rf"{re.escape(source.key)}_([1-9][0-9]{{0,8}})", key)
    if size and isinstance(source, (Image, DelegatedImage)):
        return Resized(source, int(size[1]) * GiB)
    return None
