# SPDX-License-Identifier: Apache-2.0
"""Named locks, shared by every thread and process that shares a directory.

Lock files stay when the lock is released: removing one would let a waiter
and a newcomer hold "the same" lock on two files.  The kernel frees the lock
of a process that dies.
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
        between = self._between_processes(name)
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
        between = self._between_processes(name)
        if not between.acquire(blocking=False):
            if not waits:
                waiting()
            between.acquire()    # on the file that is open
        stack.callback(between.release)

    def _between_processes(self, name: str) -> Any:
        """Return the lock of processes, which is not taken; make its file.

        The umask does not decide who may lock.
        """
        found = lockutils.external_lock(name, self.prefix,
                                        str(self.directory))
        with contextlib.suppress(FileExistsError):
            _create(os.fsdecode(found.path))
        return found


def _create(path: str) -> None:
    """Make a lock file that is the agent's alone.

    If root makes one, it belongs to the owner of the directory: to the user
    that the agent runs as.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        os.fchmod(descriptor, _MODE)
        if os.geteuid() == 0:
            owner = os.stat(os.path.dirname(path))
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
