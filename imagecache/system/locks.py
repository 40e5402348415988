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

from imagecache.system import durable


@dataclasses.dataclass(frozen=True)
class Locks:
    directory: pathlib.Path
    # nova's is "nova-"; with it, nova and this library exclude each other.
    prefix: str = "imagecache-"

    @contextlib.contextmanager
    def holding(self, name: str, waiting: Callable[[], object] | None = None
                ) -> Iterator[None]:
        """Hold the lock ``name`` until the block ends; wait if it is taken.

        It is not reentrant.  Whoever takes a second keeps to the order of
        doc/source/on-disk-layout.rst, or two can wait for each other.

        :param waiting: called once if it is taken
        :raises StorageFailed: this process may not lock here
        """
        with contextlib.ExitStack() as stack:
            durable.make_directory(self.directory)
            with durable.translated("locking", self.directory):
                self._take(name, stack, waiting or (lambda: None))
            yield

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Hold the lock until the block ends, if it is free; yield if it was.

        It never waits, so whoever holds a lock may try another.

        :raises StorageFailed: this process may not lock here
        """
        with contextlib.ExitStack() as stack:
            durable.make_directory(self.directory)
            with durable.translated("locking", self.directory):
                free = self._try(name, stack)
            yield free

    def _try(self, name: str, stack: contextlib.ExitStack) -> bool:
        try:
            stack.enter_context(lockutils.internal_lock(name, blocking=False))
        except lockutils.AcquireLockFailedException:
            return False
        between = lockutils.external_lock(name, self.prefix,
                                          str(self.directory))
        if not between.acquire(blocking=False):
            between.lockfile.close()    # while no thread of ours has the lock
            return False
        stack.callback(between.release)
        return True

    def _take(self, name: str, stack: contextlib.ExitStack,
              waiting: Callable[[], object]) -> None:
        """Take the lock of this process's threads, then that of processes.

        Only the thread that has the first may open the file of the second,
        and only once: when a process closes any descriptor of a file, the
        kernel frees all the locks that the process has on it.
        """
        waits = False
        try:
            stack.enter_context(lockutils.internal_lock(name, blocking=False))
        except lockutils.AcquireLockFailedException:
            waits = True
            waiting()
            stack.enter_context(lockutils.internal_lock(name))
        between = lockutils.external_lock(name, self.prefix,
                                          str(self.directory))
        if not between.acquire(blocking=False):
            if not waits:
                waiting()
            between.acquire()    # on the file that is open
        stack.callback(between.release)
