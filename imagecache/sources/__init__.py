# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a disk come from.

A source is an *Image*, chosen by a tenant and trusted by nobody, or a
*Template*, made by this host.  Intent is a type here, not a key to look for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Protocol

from imagecache.model import Description

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
