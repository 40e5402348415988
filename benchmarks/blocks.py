# SPDX-License-Identifier: Apache-2.0
"""What went over the host's disk.

Runs inside nova's virtualenv too: standard library only.
"""

from __future__ import annotations

import resource

_UNIT = 512    # bytes, whatever the file system has


def written() -> int:
    """Bytes that this process, and those it has waited for, had written.

    They count when they enter the page cache, so what is deleted before it
    reaches the disk counts, too.
    """
    return _UNIT * sum(
        resource.getrusage(whose).ru_oublock
        for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
