# SPDX-License-Identifier: Apache-2.0
"""Instances' disks from cached base images.

    cache = imagecache.ImageCache(conf)
    disk = cache.create_disk(instance, image_ref, size=20 * 1024**3)

``imagecache.imagebackend`` is the same for code written against nova.
"""

from imagecache.encryption import Encryption
from imagecache.image_cache import ImageCache
from imagecache.model import Digest, Format

__all__ = ["Digest", "Encryption", "Format", "ImageCache"]
