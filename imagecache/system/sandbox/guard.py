# SPDX-License-Identifier: Apache-2.0
"""A guard: it waits for bubblewrap, and ends it with all that came of it.

Whoever kills bubblewrap while it makes its namespaces leaves an orphan: its
child asks to die with it only later, and if bubblewrap died before it said
"go on", the child waits for ever.  So nobody kills it.  The process that we
start becomes two: bubblewrap, and a guard in front, which is asked to end it
(SIGTERM: by us, or by our death) and knows how.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal

# Not through os: eventlet replaces functions there, by some that wait for
# other green threads.
from posix import _exit, fork, waitpid
from typing import NoReturn

from imagecache.system.sandbox import kernel

ENDING = signal.SIGTERM    # what tells a guard to end


def guarded(parent: int) -> kernel.Call:
    """A call that returns in a new process, guarded by the one it was in.

    :param parent: with whom both are to die
    """
    die = kernel.die_with(parent, ENDING)
    adopt = kernel.adopt_orphans()
    every = signal.valid_signals()
    close = kernel.close_all()

    def call() -> None:
        before = signal.pthread_sigmask(signal.SIG_SETMASK, every)
        die()
        adopt()
        child = fork()
        if child:
            _guard(child, close)
        os.setsid()     # what a terminal sends is for whoever started us
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return call


def _guard(child: int, close: kernel.Call) -> NoReturn:
    status = 255
    try:
        close()     # or our caller waits for the end of what we do not write
        status = _wait(child)
        _end_orphans()
    finally:
        # As bubblewrap itself says that a signal ended a program.
        _exit(status if status >= 0 else 128 - status)


def _wait(child: int) -> int:
    """Return how a process ended, also if this guard was told to end it."""
    while True:
        if signal.sigwait({signal.SIGCHLD, ENDING}) == ENDING:
            return _end(child)
        pid, status = waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)


def _end(child: int) -> int:
    """Kill a process and its children; return when all are dead."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGSTOP)     # from here on it has no more
    _, status = waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        for each in _children(child):
            # The first process of a namespace takes all others with it.  It
            # is its stopped parent's until that dies: no other has its
            # number.
            descriptor = os.pidfd_open(each)
            os.kill(each, signal.SIGKILL)
            select.select([descriptor], [], [])
        os.kill(child, signal.SIGKILL)
        _, status = waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _end_orphans() -> None:
    """Kill what bubblewrap left; return when all of it is dead.

    bubblewrap ends as soon as its program does, and the namespace only after
    that: until then, another process in it can still write.
    """
    with contextlib.suppress(ChildProcessError):    # there are none
        while True:
            for each in _children(os.getpid()):
                os.kill(each, signal.SIGKILL)
            waitpid(-1, 0)


def _children(process: int) -> list[int]:
    return [int(each) for each in pathlib.Path(
        f"/proc/{process}/task/{process}/children").read_text().split()]
