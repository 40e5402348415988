# SPDX-License-Identifier: Apache-2.0
"""What the library tells an observer while it works.

An observer is any callable that takes an :class:`Event`.  It can write a log,
draw a progress bar, count for metrics, or cancel the operation: an exception
that it raises ends the operation and reaches the caller.  The library calls
it in the thread that does the work, and for ``convert`` in a thread that
watches the conversion, so it must return quickly.  The default observer does
nothing.

The name, the subject and the facts of each event are an interface: a release
that changes one has a note.  Sizes are in bytes.

The subject is a base, by its key in the cache:

========================  ================================================
waiting                   another thread, process or host holds the lock of
                          the key, perhaps to fetch it. ``source``: the
                          image, or the volume that is being made in Ceph
hit                       the base is in the cache
miss                      it is not. ``source``: the image or the template
                          that it is made of
committed                 the new base is in the cache
leftovers_kept            what a killed process left of the base could not
                          be removed. ``reason``
adopted                   the base has no record, or one by older rules; it
                          was validated and has a record now
========================  ================================================

The subject is an image, by its reference:

========================  ================================================
download                  data arrived. ``done``: bytes so far; ``total``:
                          bytes of the image, or None if unknown
retry                     the download broke and goes on. ``reason``: the
                          error; ``offset``: bytes that are kept
verified                  size and digest are right. ``size``: in bytes;
                          ``digest``: algorithm, colon, hexadecimal digits
signature_verified        the signature is right. ``certificate``: the
                          signer's, by its id and its digest
validated                 the content is what it claims to be. ``format``;
                          ``virtual_size``: in bytes
location_not_usable       the image cannot be cloned from one of its
                          locations. ``location``: its URL; ``reason``
glance_copy_started       Glance was asked to copy the image into this
                          cluster. ``store``: the name of Glance's store
glance_copy_failed        there will be no copy. ``store``; ``reason``
========================  ================================================

The subject is a disk, by its path:

========================  ================================================
base_not_resized          the disk is made of the image's own base and not
                          of a resized one. ``reason``
created                   the disk exists
blocks_not_allocated      the file system cannot preallocate the blocks
grown                     the disk has a new size. ``size``: in bytes
extracted                 the content was copied. ``output``: the new file
========================  ================================================

The subject depends:

========================  ================================================
convert                   an image, or a disk that is extracted, is being
                          converted. ``done``: bytes read so far;
                          ``total``: bytes to read, or None if unknown
filesystem_not_resized    the file system in a disk, or in a resized base,
                          does not fill it. ``reason``
removed                   a disk, or a base, was removed
pool_nearly_full          a thin pool, as ``group/pool``, is filled to
                          ``lvm_pool_warning`` or more. ``data`` and
                          ``metadata``: whole per cent in use
========================  ================================================
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging

from imagecache import text

LOG = logging.getLogger(__name__)


class Name(enum.StrEnum):
    """The name of an event; each member equals its name in lower case."""

    WAITING = enum.auto()
    HIT = enum.auto()
    MISS = enum.auto()
    COMMITTED = enum.auto()
    LEFTOVERS_KEPT = enum.auto()
    ADOPTED = enum.auto()

    DOWNLOAD = enum.auto()
    RETRY = enum.auto()
    VERIFIED = enum.auto()
    SIGNATURE_VERIFIED = enum.auto()
    VALIDATED = enum.auto()
    LOCATION_NOT_USABLE = enum.auto()
    GLANCE_COPY_STARTED = enum.auto()
    GLANCE_COPY_FAILED = enum.auto()

    BASE_NOT_RESIZED = enum.auto()
    CREATED = enum.auto()
    BLOCKS_NOT_ALLOCATED = enum.auto()
    GROWN = enum.auto()
    EXTRACTED = enum.auto()

    CONVERT = enum.auto()
    FILESYSTEM_NOT_RESIZED = enum.auto()
    REMOVED = enum.auto()
    POOL_NEARLY_FULL = enum.auto()


# Sent again and again while the work goes on.
PROGRESS = frozenset({Name.DOWNLOAD, Name.CONVERT})
# Logged as warnings: the operation goes on, but an operator should know.
TROUBLE = frozenset({
    Name.RETRY, Name.POOL_NEARLY_FULL, Name.FILESYSTEM_NOT_RESIZED,
    Name.BLOCKS_NOT_ALLOCATED, Name.GLANCE_COPY_FAILED,
    Name.LEFTOVERS_KEPT})


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that happened.

    :ivar name: a :class:`Name`; a backend of another package may send names
        of its own
    """

    name: str
    subject: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Observer = Callable[[Event], None]


def silent(event: Event) -> None:
    """Do nothing."""


def log(event: Event) -> None:
    """Log an event, unless it only reports progress."""
    if event.name in PROGRESS:
        return
    level = logging.WARNING if event.name in TROUBLE else logging.DEBUG
    facts = "".join(f" {k}={v}" for k, v in event.facts.items())
    said = text.one_line(f"{event.subject}{facts}")
    LOG.log(level, "%s %s", event.name, said)


def both(first: Observer, second: Observer) -> Observer:
    """Return an observer that passes each event to two others, in order."""
    def tell(event: Event) -> None:
        first(event)
        second(event)
    return tell
