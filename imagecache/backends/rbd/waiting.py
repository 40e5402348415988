# SPDX-License-Identifier: Apache-2.0
"""Wait for another host that writes to a volume, at little cost for Ceph.

A waiting host keeps the volume open read-only, which no other host notices,
and asks Ceph for the volume's watchers: every client that has it open for
writing is one.  A look takes two operations and no lock.  Ceph itself ends
the watch of a client that died.

The pauses between two looks grow, and are random, so that many hosts that
began to wait together do not look together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from imagecache.tools import rbd

_FIRST, _LONGEST = 0.25, 5.0     # seconds, on average
_GROWTH = 1.5


def pauses() -> Iterator[float]:
    """Yield seconds to wait before each next look, without end."""
    pause = _FIRST
    while True:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311  (no secret)
        pause = min(pause * _GROWTH, _LONGEST)


def await_writers(pool: rbd.Pool, name: str,
                  waiting: Callable[[], object]) -> None:
    """Return when no client has a volume open for writing.

    :param waiting: called before the first pause, if there is one
    :raises StorageMissing: there is no such volume, or no longer
    """
    with pool.open(name, read_only=True) as volume:
        for pause in pauses():
            if not volume.is_open_for_writing():
                return
            waiting()
            time.sleep(pause)
