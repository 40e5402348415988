# SPDX-License-Identifier: Apache-2.0
"""System calls for which Python has no functions.

``prepare`` returns a call that is ready: names are looked up, arguments built
and libraries loaded.  So the call is safe between fork and exec.  There, any
lock may be held for ever, because another thread held it during the fork.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Call = Callable[[], None]

_F_SETFD = 2
_CLOSE_RANGE = 436      # the same number on all machines
_CLOSE_ON_EXEC = 4
_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITIES_V3 = 0x20080522
# Capabilities that only open files; Landlock decides which ones.
_KEPT_CAPABILITIES = 1 << 1 | 1 << 2    # DAC_OVERRIDE, DAC_READ_SEARCH


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """Make a system call by its number.

    :raises OSError: the kernel refused the call
    """
    words = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    result: int = _libc().syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def prepare(name: str, *arguments: object) -> Call:
    """Return a call of a C function; it raises OSError if that fails."""
    function: Any = getattr(_libc(), name)
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a
             for a in arguments]

    def call() -> None:
        if function(*words) < 0:
            raise OSError(ctypes.get_errno(), name)

    return call


def die_with(parent: int, signal: int) -> Call:
    """Return a call: the process gets ``signal`` when its parent dies."""
    ask = prepare("prctl", _PR_SET_PDEATHSIG, signal)

    def call() -> None:
        ask()
        if os.getppid() != parent:   # the parent has died already
            raise ProcessLookupError

    return call


def adopt_orphans() -> Call:
    """Return a call: orphaned descendants become children of the process."""
    return prepare("prctl", _PR_SET_CHILD_SUBREAPER, 1)


def become(path: str, command: Sequence[str],
           environment: Mapping[str, str]) -> Call:
    """Return a call: the process executes a program."""
    words = (ctypes.c_char_p * (len(command) + 1))(
        *(os.fsencode(each) for each in command), None)
    variables = (ctypes.c_char_p * (len(environment) + 1))(
        *(os.fsencode(f"{name}={value}")
          for name, value in environment.items()), None)
    return prepare("execve", os.fsencode(path), words, variables)


def close_on_exec() -> Call:
    """Return a call: the program inherits only its three standard files.

    Python closes descriptors as well.  But a build without close_range(2)
    lists /proc/self/fd, which the sandbox denies, or trusts the limit on the
    number of open files, which was lowered just before.
    """
    return prepare("syscall", _CLOSE_RANGE, 3, 0xFFFFFFFF, _CLOSE_ON_EXEC)


def keep_on_exec(descriptor: int) -> Call:
    """Return a call: the program inherits this descriptor as well.

    Make it after close_on_exec().
    """
    return prepare("fcntl", descriptor, _F_SETFD, 0)


def close_all() -> Call:
    """Return a call: the process closes all its files."""
    return prepare("syscall", _CLOSE_RANGE, 0, 0xFFFFFFFF, 0)


def no_new_privileges() -> Call:
    """Return a call: setuid bits and file capabilities have no effect."""
    return prepare("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def filter_calls(program: bytes, process: int) -> Call:
    """Return a call: seccomp filters every system call from then on.

    :param program: see seccomp.denying()
    :param process: the offset, from the program's end, of the process number
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack(
        "@HP", len(program) // 8, ctypes.addressof(code)))
    ask = prepare("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)

    def call() -> None:
        struct.pack_into("=I", code, len(program) + process, os.getpid())
        ask()

    return call


def drop_capabilities() -> Call:
    """Return a call: the process keeps only capabilities that open files.

    Only root has any.  After no_new_privileges() they cannot be regained.
    """
    header = struct.pack("=Ii", _CAPABILITIES_V3, 0)
    data = ctypes.create_string_buffer(24)
    prepare("capget", header, data)()
    _, low, _, _, _, _ = struct.unpack("=6I", data.raw)
    kept = low & _KEPT_CAPABILITIES
    return prepare("capset", header,
                   struct.pack("=6I", kept, kept, 0, 0, 0, 0))
