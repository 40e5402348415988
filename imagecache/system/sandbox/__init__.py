# SPDX-License-Identifier: Apache-2.0
"""The sandbox of programs that read a tenant's data.

The sandbox assumes that the data has taken the program over.  The program has

====================  ===================================================
limits                of memory, time and the size of files; no core file
Landlock              the files that the call names, and its libraries
seccomp               no sockets, no new processes, no other processes,
                      and no changes to a file but to its content
capabilities          those that open files; only root had any
environment           the search path, and variables for messages in
                      English
====================  ===================================================

The new process sets all of this itself, between fork and exec.  No other
program is started for it, and it takes half a millisecond.  Where the kernel
has no Landlock, bubblewrap replaces Landlock and the dropped capabilities; a
guard process starts and ends bubblewrap.

When the call ends, the program and all processes that it started have ended:
seccomp lets it start none, and bubblewrap's namespace ends with the program.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    restrict: Callable[[], None] | None   # the new process calls it
    # The signal that ends the process and all that it started.
    ending: signal.Signals = signal.SIGKILL


@contextlib.contextmanager
def around(command: tuple[str, ...], limits: Limits, *,
           reads: Iterable[Path], writes: Iterable[Path],
           environment: Mapping[str, str], secret: bool) -> Iterator[Launch]:
    """Yield how to start a command within its limits and its sandbox.

    :param environment: of the command; its PATH finds the program
    :param secret: the program opens its standard input as /dev/stdin
    :raises InvalidConfiguration: a sandbox is required, and there is none
    :raises CommandNotFound: there is no such program
    """
    if limits == Limits():
        yield Launch(command, None)
        return
    search = environment["PATH"]
    kind = _choose(limits.sandbox, search)
    if kind is Kind.BUBBLEWRAP:
        with _wrapped(command, allow(command[0], search, reads, writes),
                      limits, environment, secret) as launch:
            yield launch
        return
    calls = [kernel.die_with(os.getpid(), signal.SIGKILL)]
    with contextlib.ExitStack() as stack:
        if kind is Kind.LANDLOCK:
            calls += stack.enter_context(_confined(
                allow(command[0], search, reads, writes)))
        yield Launch(command, _each(*calls, setter(limits)))


@contextlib.contextmanager
def _confined(allowance: Allowance) -> Iterator[list[kernel.Call]]:
    program = seccomp.program(others=True)
    with landlock.ruleset(allowance) as restrict:
        yield [kernel.close_on_exec(), kernel.no_new_privileges(), restrict,
               kernel.drop_capabilities(),
               *([kernel.filter_calls(program, seccomp.PROCESS)]
                 if program else [])]


@contextlib.contextmanager
def _wrapped(command: tuple[str, ...], allowance: Allowance, limits: Limits,
             environment: Mapping[str, str], secret: bool
             ) -> Iterator[Launch]:
    """Yield how to start a command in bubblewrap."""
    if secret and limits.file_size is not None:
        # bubblewrap writes the secret to a file in memory.
        limits = limits.writing(max(limits.file_size, MOST_SECRET))
    calls = [guard.guarded(os.getpid()), setter(limits)]
    # A PID namespace has no other processes that a call could name.
    program = seccomp.program(others=False)
    if program is None:
        yield Launch(bubblewrap.wrapped(command, allowance, secret, None),
                     _each(*calls), guard.ENDING)
        return
    with _readable(program) as filter:
        command = bubblewrap.wrapped(command, allowance, secret, filter)
        # bubblewrap reads the filter from a descriptor that Python would
        # close.
        calls[1:1] = [kernel.close_on_exec(),
                      kernel.keep_on_exec(filter)]
        calls.append(kernel.become(
            shutil.which(command[0], path=environment["PATH"]) or command[0],
            command, environment))
        yield Launch(command, _each(*calls), guard.ENDING)


@contextlib.contextmanager
def _readable(content: bytes) -> Iterator[int]:
    """Yield a descriptor from which some bytes can be read once."""
    reader, writer = os.pipe()
    try:
        with open(writer, "wb") as f:
            f.write(content)     # it fits into the buffer of a pipe
        yield reader
    finally:
        os.close(reader)


def _each(*calls: kernel.Call) -> Callable[[], None]:
    def restrict() -> None:
        for call in calls:
            call()
    return restrict


def _choose(mode: Sandbox | None, search: str) -> Kind:
    """Return the best sandbox of this host, and log the choice once."""
    if mode is None:
        return Kind.NONE
    if mode is Sandbox.NEVER:
        return _say(Kind.NONE, "switched off")
    version = landlock.version()
    if version and seccomp.program():
        return _say(Kind.LANDLOCK, f"version {version}, with seccomp")
    if bubblewrap.works(search):
        return _say(Kind.BUBBLEWRAP, _lack(version))
    if mode is Sandbox.REQUIRED:
        raise exception.InvalidConfiguration(
            option="[image_cache] sandbox", value=mode.value,
            reason=f"{_lack(version)}, and bubblewrap (package bubblewrap) is"
            " not installed or may not make namespaces")
    if version:
        return _say(Kind.LANDLOCK, f"version {version}, without seccomp: a"
                    " program can leave processes behind; bubblewrap, which"
                    " would end them, does not work here", logging.WARNING)
    return _say(Kind.NONE, f"{_lack(version)}, and there is no bubblewrap"
                " that works", logging.WARNING)


def _lack(version: int) -> str:
    """Say why Landlock does not do, by its version."""
    if version:
        return "the system calls of this machine are not known to the filter" \
            f" ({os.uname().machine})"
    return "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and" \
        " landlock in lsm=)"


@functools.cache
def _say(kind: Kind, why: str, level: int = logging.INFO) -> Kind:
    LOG.log(level, "Programs that read images have this sandbox: %s (%s)",
            kind, why)
    return kind
