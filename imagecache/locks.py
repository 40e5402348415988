# SPDX-License-Identifier: Apache-2.0
"""Named locks, shared by every thread and process that shares a directory.

Lock files stay when the lock is released: removing one would let a waiter
and a newcomer hold "the same" lock on two files.  The kernel frees the lock
of a process that dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator

from oslo_concurrency import lockutils

from imagecache import durable


@dataclasses.dataclass(frozen=True)
class Locks:
    directory: pathlib.Path
    # nova's is "nova-"; with it, nova and this library exclude each other.
    prefix: str = "imagecache-"

    @contextlib.contextmanager
    def holding(self, name: str, waiting: Callable[[], object] | None = None
                ) -> Iterator[None]:
        """Hold the lock ``name`` until the block ends; wait if it is taken.

        It is not reentrant, and whoever holds one takes no second.

        :param waiting: called once if it is taken
        :raises StorageFailed: this process may not lock here
        """
        with contextlib.ExitStack() as stack:
            durable.make_directory(self.directory)
            with durable.translated("locking", self.directory):
                try:
                    stack.enter_context(self._lock(name, blocking=False))
                except lockutils.AcquireLockFailedException:
                    if waiting:
                        waiting()
                    stack.enter_context(self._lock(name, blocking=True))
            yield

    def _lock(self, name: str, *, blocking: bool
              ) -> contextlib.AbstractContextManager[object]:
        return lockutils.lock(
            name, lock_file_prefix=self.prefix, external=True,
            lock_path=str(self.directory), blocking=blocking)
