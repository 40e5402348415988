# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a disk come from: image stores, and this host itself.

``types`` has the contract; ``registry`` finds the image store of a reference.
"""

from imagecache.sources.types import (
    Copy,
    DelegatedImage,
    Image,
    ImageStore,
    Locator,
    Requirements,
    Resized,
    Source,
    Stream,
    Template,
    Write,
    behind,
    is_resized,
)

__all__ = [
    "Copy",
    "DelegatedImage",
    "Image",
    "ImageStore",
    "Locator",
    "Requirements",
    "Resized",
    "Source",
    "Stream",
    "Template",
    "Write",
    "behind",
    "is_resized",
]
