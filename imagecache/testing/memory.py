# SPDX-License-Identifier: Apache-2.0
"""An image store in memory, for tests without a Glance."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Iterator

from imagecache import exception
from imagecache.model import Description, Digest, MiB, Signature
from imagecache.sources import Stream


class MemoryStore:
    """Stores images by id, with the metadata of Glance; counts reads."""

    def __init__(self) -> None:
        self.reads = 0
        self._images: dict[str, tuple[Description, bytes]] = {}

    def add(self, content: bytes, disk_format: str, *, min_disk: int = 0,
            image_id: str | None = None, algorithm: str = "sha512",
            signature: Signature | None = None) -> str:
        """Store an image and return its id."""
        ref = image_id or str(uuid.uuid4())
        digest = Digest(algorithm, hashlib.new(
            algorithm, content, usedforsecurity=False).hexdigest())
        self._images[ref] = Description(
            ref, identity=ref, size=len(content), disk_format=disk_format,
            digest=digest, min_disk=min_disk, signature=signature), content
        return ref

    def remove(self, ref: str) -> None:
        del self._images[ref]

    def describe(self, ref: str) -> Description:
        if ref not in self._images:
            raise exception.ImageNotFound(image_id=ref)
        return self._images[ref][0]

    @contextlib.contextmanager
    def read(self, image: Description,
             offset: int = 0) -> Iterator[Stream]:
        self.describe(image.ref)
        self.reads += 1
        content = self._images[image.ref][1]
        yield Stream(offset, (content[start:start + MiB] for start in
                              range(offset, len(content), MiB)))
