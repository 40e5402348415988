# SPDX-License-Identifier: Apache-2.0
"""What happened, told to whoever asked.  The default listener is silent.

The core neither draws progress bars nor measures time: it says what it does,
and an observer makes of that a log, a bar, a metric, or a test's stop sign.
Observers are called in the thread that works, or for ``convert`` in one that
watches it, so they must be quick; what they raise ends the operation.

The names, in the order in which a cold disk sees them:

===============  =========================================================
waiting          another has the lock of the key; it may be fetching
hit              a base was there; ``subject`` is its key
miss             it was not
download         bytes arrived: ``done`` of ``total`` (None: unknown)
retry            a download broke; ``reason``; it goes on at ``offset``
verified         size and digest are right
signed           so is its signature; ``certificate`` is its signer's
validated        the content is known: ``format``, ``virtual_size``
convert          bytes read and converted: ``done`` of ``total`` (or None)
committed        the base is in the cache
adopted          a base made elsewhere was validated and given a record
not resized      the disk is made of the image's own base; ``reason``
not here         a location of the image cannot be cloned; ``reason``
copying          Glance copies the image into its ``store`` in Ceph
not copied       it did not; ``reason``
created          the disk exists; ``subject`` is its path
filling          a thin pool has little room left: ``data``, ``metadata``
unpreallocated   its blocks are not allocated: the file system cannot
filesystem kept  the file system in it did not grow; ``reason``
grown            it has its size: ``size``
extracted        its content is in another file: ``output``
removed          it is gone
===============  =========================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

PROGRESS = {"download", "convert"}   # told again and again, as they go on
TROUBLE = {"retry", "filling", "filesystem kept", "unpreallocated",
           "not copied"}


@dataclasses.dataclass(frozen=True)
class Event:
    name: str
    subject: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Observer = Callable[[Event], None]


def silent(event: Event) -> None:
    """Hear nothing."""


def log(event: Event) -> None:
    """Write down what happened, but not every step of the way."""
    if event.name in PROGRESS:
        return
    level = logging.WARNING if event.name in TROUBLE else logging.DEBUG
    facts = "".join(f" {k}={v}" for k, v in event.facts.items())
    LOG.log(level, "%s %s%s", event.name, event.subject, facts)


def both(first: Observer, second: Observer) -> Observer:
    """An observer that tells two."""
    def tell(event: Event) -> None:
        first(event)
        second(event)
    return tell
