# SPDX-License-Identifier: Apache-2.0
"""Landlock: a process gives up access to all files except a few.

It needs no privileges, and cannot be undone.

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from imagecache.system.sandbox import kernel
from imagecache.system.sandbox.allowance import Allowance

# The same numbers on all machines.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446

_VERSION = 1            # flag: return the version, create nothing
_PATH_BENEATH = 1       # kind of a rule

_EXECUTE = 1 << 0
_WRITE = 1 << 1
_READ = 1 << 2
_LIST = 1 << 3
_TRUNCATE = 1 << 14
_IOCTL_DEVICE = 1 << 15

# /proc/self differs for each process, so the new process opens it itself.
_OWN = Path("/proc/self")

# The number of rights in each version.  A handled right is denied except where
# a rule grants it.
_FILES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NETWORK = 4            # the first version that rules TCP's bind, connect
_SCOPES = 6             # the first for signals and abstract sockets


def version() -> int:
    """Return the version of Landlock in this kernel; 0 if there is none."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:    # not built in, not enabled, or forbidden here
        return 0


def handled(version: int) -> tuple[int, int, int]:
    """Return the rights to deny: on files, the network, other processes."""
    files = _FILES[min(version, max(_FILES))]
    return ((1 << files) - 1, 0b11 if version >= _NETWORK else 0,
            0b11 if version >= _SCOPES else 0)


@contextlib.contextmanager
def ruleset(allowance: Allowance) -> Iterator[kernel.Call]:
    """Yield a call that confines its thread to the allowed files.

    A program that the thread executes is confined as well.
    """
    files, network, beyond = handled(version())
    attributes = struct.pack("=3Q", files, network, beyond)
    descriptor = kernel.syscall(_CREATE_RULESET, attributes,
                                len(attributes), 0)    # close-on-exec
    try:
        own = []
        for path, rights in _rights(allowance):
            if _OWN in path.parents:
                own.append((path, rights))
            else:
                _allow(descriptor, path, rights, files)
        restrict = kernel.prepare("syscall", _RESTRICT_SELF, descriptor, 0)

        def restrict_me() -> None:
            for path, rights in own:
                _allow(descriptor, path, rights, files)
            restrict()

        yield restrict_me
    finally:
        os.close(descriptor)


def _rights(allowance: Allowance) -> Iterator[tuple[Path, int]]:
    for paths, rights in ((allowance.runs, _READ | _EXECUTE),
                          (allowance.reads, _READ),
                          (allowance.writes, _READ | _WRITE | _TRUNCATE)):
        yield from ((path, rights) for path in paths)


def _allow(ruleset: int, path: Path, rights: int, known: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:      # a missing file needs no rule
        return
    try:
        mode = os.fstat(beneath).st_mode
        if stat.S_ISDIR(mode):
            rights |= _LIST
        elif stat.S_ISBLK(mode):
            rights |= _IOCTL_DEVICE      # to read its size
        kernel.syscall(_ADD_RULE, ruleset, _PATH_BENEATH,
                       struct.pack("=Qi", rights & known, beneath), 0)
    finally:
        os.close(beneath)
