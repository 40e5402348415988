# SPDX-License-Identifier: Apache-2.0
"""Named locks between the threads and processes that use one directory.

A lock file stays when its lock is released.  If it were removed, a process
that waits for the lock and a process that comes later could each hold the
lock, on two files.  The kernel frees the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from oslo_concurrency import lockutils

from imagecache.system import durable

# A user who can open a lock file can hold the lock for ever.
_MODE = 0o600


@dataclasses.dataclass(frozen=True)
class Locks:
    directory: pathlib.Path
    # With nova's prefix, "nova-", nova and this library use the same locks.
    prefix: str = "imagecache-"

    @contextlib.contextmanager
    def holding(self, name: str, waiting: Callable[[], object] | None = None
                ) -> Iterator[None]:
        """Hold the lock ``name`` until the block ends; wait if it is held.

        The lock is not reentrant.  A thread that holds one and takes another
        must follow the lock order of doc/source/on-disk-layout.rst; otherwise
        two threads can deadlock.

        :param waiting: called once if the lock is held
        :raises StorageFailed: this process may not lock here
        """
        with contextlib.ExitStack() as stack:
            durable.make_directory(self.directory)
            with durable.translated("locking", self.directory):
                self._take(name, stack, waiting or (lambda: None))
            yield

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Hold the lock until the block ends if it is free.

        Yield whether this thread holds it.  This never waits, so a thread that
        holds another lock may call it.

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
        between = self._between_processes(name)
        if not between.acquire(blocking=False):
            # No other thread of this process can hold this lock now.
            between.lockfile.close()
            return False
        stack.callback(between.release)
        return True

    def _take(self, name: str, stack: contextlib.ExitStack,
              waiting: Callable[[], object]) -> None:
        """Take the lock between threads, then the lock between processes.

        Only the thread that holds the first opens the file of the second, and
        only once: when a process closes any descriptor of a file, the kernel
        frees all locks of the process on that file.
        """
        waits = False
        try:
            stack.enter_context(lockutils.internal_lock(name, blocking=False))
        except lockutils.AcquireLockFailedException:
            waits = True
            waiting()
            stack.enter_context(lockutils.internal_lock(name))
        between = self._between_processes(name)
        if not between.acquire(blocking=False):
            if not waits:
                waiting()
            between.acquire()    # with the same open file
        stack.callback(between.release)

    def _between_processes(self, name: str) -> Any:
        """Return the lock between processes; create its file.

        The umask has no effect on who can lock.
        """
        found = lockutils.external_lock(name, self.prefix,
                                        str(self.directory))
        with contextlib.suppress(FileExistsError):
            _create(os.fsdecode(found.path))
        return found


def _create(path: str) -> None:
    """Create a lock file that only the agent's user can open.

    A lock file that root creates belongs to the owner of its directory, which
    is the user of the agent.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        os.fchmod(descriptor, _MODE)
        if os.geteuid() == 0:
            owner = os.stat(os.path.dirname(path))
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
