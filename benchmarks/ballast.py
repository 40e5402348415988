# SPDX-License-Identifier: Apache-2.0
"""Memory held for nothing, so that this process is as large as an agent.

A process that is started by fork() first copies the page tables of whoever
starts it, and both then fault on every page they touch: 100 MiB more cost
several milliseconds.  A small benchmark would not see what its users pay.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

MiB = 1024 * 1024

# nova-compute holds 145 MiB once it has imported its libvirt driver, and this
# process 50 MiB.
AGENT = 95 * MiB


@contextlib.contextmanager
def held(size: int = AGENT) -> Iterator[None]:
    """Hold ``size`` bytes in small pages, as a heap is, during the block."""
    with mmap.mmap(-1, size,
                   flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1
        yield
