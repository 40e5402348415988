# SPDX-License-Identifier: Apache-2.0
"""The types of samples in the corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hostile_images.canary import Sentinel
from imagecache import exception
from imagecache.model import whole_sectors

Build = Callable[[Sentinel], bytes]

# The rules of every API.  nova's fetch functions pass no claim, so an image
# that breaks only one of the first two is accepted from them, in its real
# format.
CLAIM = "claim"                   # a valid image of another format
UNKNOWN = "claim-known"           # the claimed format is not supported
NOT_ALLOWED = "format-accepted"   # the format is supported, but not accepted
NO_FORMAT = "format-known"        # the format is not supported


@dataclasses.dataclass(frozen=True)
class Refused:
    """An image that must be refused.

    ``build`` is called when the bytes are wanted, with what the sample is to
    point at.  No sample is wrong in two ways if it can be helped, so that
    the loss of any rule shows.
    """

    id: str
    claim: str                         # the disk_format it is uploaded with
    rule: str                          # by which it must be refused
    build: Build
    represents: tuple[str, ...] = ()   # published vulnerabilities
    listed: str = ""                   # the rule, where its format is allowed
    error: type[exception.ImageError] = exception.ImageUnacceptable


@dataclasses.dataclass(frozen=True)
class Accepted:
    """An image that must be accepted, and what a guest must read of it."""

    id: str
    claim: str
    build: Callable[[], bytes]
    content: Callable[[], bytes]

    def seen(self) -> bytes:
        """Return what a guest reads, in whole sectors."""
        content = self.content()
        return content.ljust(whole_sectors(len(content)), b"\0")


@dataclasses.dataclass(frozen=True)
class Odd:
    """An image that may be refused or accepted, without harm."""

    id: str
    claim: str
    build: Build
    represents: tuple[str, ...] = ()


def raw(id: str, content: bytes, claim: str = "raw") -> Accepted:
    """Return a raw image: its bytes are its content."""
    return Accepted(id, claim, lambda: content, lambda: content)


def alone(make: Callable[..., bytes], *arguments: Any,
          **options: Any) -> Build:
    """Return how to build a sample without a reference."""
    return lambda sentinel: make(*arguments, **options)
