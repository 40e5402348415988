# SPDX-License-Identifier: Apache-2.0
"""A cache that encrypts every disk, for the tests of encrypted disks."""

from __future__ import annotations

from imagecache import Encryption, ImageCache
from imagecache.backends.base import Disk
from imagecache.image_cache import Instance
from imagecache.testing import conformance
from imagecache.testing.conformance import SIZE

PASSPHRASE = b"not to be seen anywhere: 3d9a7c"
KEY = Encryption(PASSPHRASE, iter_time=10)
WRONG = Encryption(b"another", iter_time=10)


class EncryptingCache(ImageCache):
    """An ImageCache that passes ``KEY`` for a disk without another key."""

    def disk(self, instance: Instance, name: str = "disk",
             image_type: str | None = None, *,
             encryption: Encryption | None = None) -> Disk:
        return super().disk(instance, name, image_type,
                            encryption=encryption or KEY)


class EncryptingTestCase(conformance.DiskTestCase):
    """A DiskTestCase whose disks are all encrypted."""

    # True if space that no program has written reads as noise, not as zeros.
    noise_behind = False

    @property
    def cache(self) -> ImageCache:
        return EncryptingCache(self.images.conf, glance=self.images.store,
                               observe=self.images.events.append)

    def visible(self, disk: Disk, content: bytes) -> bytes:
        """Return what a guest reads, with zeros in place of noise."""
        if self.noise_behind and disk.name == "disk":
            return content[:SIZE] + bytes(len(content[SIZE:]))
        return content
