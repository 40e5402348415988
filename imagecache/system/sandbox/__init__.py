# SPDX-License-Identifier: Apache-2.0
"""Where programs run that read what a tenant wrote.

Such a program is assumed to be taken over by what it reads.  Then it has

====================  ===================================================
limits                of memory, time and the size of files; no core file
Landlock              the files it was given, and its own libraries
seccomp               no sockets, no other processes, and no changes to a
                      file but to its content
capabilities          those that open files; only root had any
====================  ===================================================

All of this is set by the new process itself, between fork and exec: no other
program is started for it, and it takes half a millisecond.  Where the kernel
has no Landlock, bubblewrap takes the place of the last three, and a guard
stands before that.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from imagecache import exception
from imagecache.model import Limits, Sandbox
from imagecache.system.sandbox import (
    bubblewrap,
    guard,
    kernel,
    landlock,
    seccomp,
)
from imagecache.system.sandbox.allowance import Allowance, allow
from imagecache.system.sandbox.limits import explain, reached, setter

__all__ = ["Launch", "around", "explain", "reached"]

LOG = logging.getLogger(__name__)

MOST_SECRET = 4096    # bytes


class Kind(enum.StrEnum):
    LANDLOCK = "Landlock"
    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


class Launch(NamedTuple):
    command: tuple[str, ...]
    restrict: Callable[[], None] | None   # for the new process to call
    ending: signal.Signals = signal.SIGKILL    # what ends it, and its own


@contextlib.contextmanager
def around(command: tuple[str, ...], limits: Limits, *,
           reads: Iterable[Path], writes: Iterable[Path], search: str,
           secret: bool, bubblewrap_works: Callable[[], bool]
           ) -> Iterator[Launch]:
    """Yield how to start a command that is held by limits.

    :param search: the directories of programs, as in PATH
    :param secret: it is to open its standard input, as /dev/stdin
    :raises InvalidConfiguration: a sandbox is required, and there is none
    :raises CommandNotFound: there is no such program
    """
    if limits == Limits():
        yield Launch(command, None)
        return
    calls = [kernel.die_with(os.getpid(), signal.SIGKILL)]
    ending = signal.SIGKILL
    kind = _choose(limits.sandbox, bubblewrap_works)
    with contextlib.ExitStack() as stack:
        if kind is Kind.LANDLOCK:
            calls += stack.enter_context(_confined(
                allow(command[0], search, reads, writes)))
        elif kind is Kind.BUBBLEWRAP:
            command = bubblewrap.wrapped(
                command, allow(command[0], search, reads, writes), secret)
            calls, ending = [guard.guarded(os.getpid())], guard.ENDING
            if secret and limits.file_size is not None:
                # bubblewrap itself writes it, to a file in memory.
                limits = limits.writing(max(limits.file_size, MOST_SECRET))
        yield Launch(command, _each(*calls, setter(limits)), ending)


@contextlib.contextmanager
def _confined(allowance: Allowance) -> Iterator[list[kernel.Call]]:
    program = seccomp.program()
    with landlock.ruleset(allowance) as restrict:
        yield [kernel.close_on_exec(), kernel.no_new_privileges(), restrict,
               kernel.drop_capabilities(),
               *([kernel.filter_calls(program, seccomp.PROCESS)]
                 if program else [])]


def _each(*calls: kernel.Call) -> Callable[[], None]:
    def restrict() -> None:
        for call in calls:
            call()
    return restrict


def _choose(mode: Sandbox | None,
            bubblewrap_works: Callable[[], bool]) -> Kind:
    """Return the best there is, and say once which one that is."""
    if mode is None:
        return Kind.NONE
    if mode is Sandbox.NEVER:
        return _say(Kind.NONE, "it is switched off")
    if version := landlock.version():
        return _say(Kind.LANDLOCK, f"version {version}, with"
                    + (" seccomp" if seccomp.program() else "out seccomp"))
    if bubblewrap_works():
        return _say(Kind.BUBBLEWRAP, "this kernel has no Landlock")
    if mode is Sandbox.REQUIRED:
        raise exception.InvalidConfiguration(
            option="[image_cache] sandbox", value=mode.value,
            reason="this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK,"
            " and landlock in lsm=), and bubblewrap (package bubblewrap) is"
            " not installed or may not make namespaces")
    return _say(Kind.NONE, "this kernel has no Landlock, and there is no"
                " bubblewrap that works", logging.WARNING)


@functools.cache
def _say(kind: Kind, why: str, level: int = logging.INFO) -> Kind:
    LOG.log(level, "Programs that read images have this sandbox: %s (%s)",
            kind, why)
    return kind
