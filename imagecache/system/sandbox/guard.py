# SPDX-License-Identifier: Apache-2.0
"""The guard: a process that waits for bubblewrap and can end it.

Killing bubblewrap while it makes its namespaces leaves an orphan: its child
asks the kernel to die with bubblewrap only later, and waits for ever if
bubblewrap dies before it told the child to continue.  So bubblewrap is never
killed directly.  The process that this library starts becomes two: bubblewrap,
and its parent, the guard.  The guard ends bubblewrap and its child in a safe
order when it receives SIGTERM, from this library or because the agent died.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal

# Not from os: eventlet replaces functions there by functions that wait for
# other green threads.
from posix import _exit, fork, waitpid
from typing import NoReturn

from imagecache.system.sandbox import kernel

ENDING = signal.SIGTERM    # tells a guard to end bubblewrap


def guarded(parent: int) -> kernel.Call:
    """Return a call that forks; the parent becomes the guard of the child.

    The call returns in the child.

    :param parent: the agent's process; the guard ends when it dies
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
        os.setsid()     # signals of a terminal must not reach bubblewrap
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return call


def _guard(child: int, close: kernel.Call) -> NoReturn:
    status = 255
    try:
        close()     # an open pipe would make the agent wait for its end
        status = _wait(child)
        _end_orphans()
    finally:
        # bubblewrap reports a program that a signal ended in the same way.
        _exit(status if status >= 0 else 128 - status)


def _wait(child: int) -> int:
    """Wait for a process and return its exit status; end it if told to."""
    while True:
        if signal.sigwait({signal.SIGCHLD, ENDING}) == ENDING:
            return _end(child)
        pid, status = waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)


def _end(child: int) -> int:
    """Kill a process and its children; return when all are dead."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGSTOP)     # so that it starts no more
    _, status = waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        for each in _children(child):
            # When the first process of a namespace dies, the kernel kills all
            # others.  Its stopped parent cannot reap it, so its number stays
            # its own.
            descriptor = os.pidfd_open(each)
            os.kill(each, signal.SIGKILL)
            select.select([descriptor], [], [])
        os.kill(child, signal.SIGKILL)
        _, status = waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _end_orphans() -> None:
    """Kill the processes that bubblewrap left, and wait for their end.

    bubblewrap ends as soon as its program does.  The namespace ends later, and
    until then another process in it can still write.
    """
    with contextlib.suppress(ChildProcessError):    # there are none
        while True:
            for each in _children(os.getpid()):
                os.kill(each, signal.SIGKILL)
            waitpid(-1, 0)


def _children(process: int) -> list[int]:
    return [int(each) for each in pathlib.Path(
        f"/proc/{process}/task/{process}/children").read_text().split()]
