# SPDX-License-Identifier: Apache-2.0
"""Where a disk's bytes are, in the classes of nova.virt.image.model."""

from imagecache.guest.imagemodel import (
    FORMAT_QCOW2,
    FORMAT_RAW,
    Image,
    LocalBlockImage,
    LocalFileImage,
    LocalImage,
    RBDImage,
)

__all__ = [
    "FORMAT_QCOW2",
    "FORMAT_RAW",
    "Image",
    "LocalBlockImage",
    "LocalFileImage",
    "LocalImage",
    "RBDImage",
]
