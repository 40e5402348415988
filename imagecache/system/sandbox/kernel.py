# SPDX-License-Identifier: Apache-2.0
"""System calls that Python has no functions for.

``prepare`` returns calls that are ready to be made: looking a name up,
building arguments and loading libraries have happened by then.  So they may
be made between fork and exec, where nothing else is safe: another thread may
have held any lock at the moment of the fork.
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
# Capabilities that only open files; what may be opened is decided elsewhere.
_KEPT_CAPABILITIES = 1 << 1 | 1 << 2    # DAC_OVERRIDE, DAC_READ_SEARCH


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """Make a system call by its number.

    :raises OSError: what the kernel said
    """
    words = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    result: int = _libc().syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def prepare(name: str, *arguments: object) -> Call:
    """Return a call of the C library's that raises OSError if it fails."""
    function: Any = getattr(_libc(), name)
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a
             for a in arguments]

    def call() -> None:
        if function(*words) < 0:
            raise OSError(ctypes.get_errno(), name)

    return call


def die_with(parent: int, signal: int) -> Call:
    """The program is sent ``signal`` when its parent dies."""
    ask = prepare("prctl", _PR_SET_PDEATHSIG, signal)

    def call() -> None:
        ask()
        if os.getppid() != parent:   # it died before we could ask
            raise ProcessLookupError

    return call


def adopt_orphans() -> Call:
    """Descendants whose parent dies become children of this process."""
    return prepare("prctl", _PR_SET_CHILD_SUBREAPER, 1)


def become(path: str, command: Sequence[str],
           environment: Mapping[str, str]) -> Call:
    """The process runs another program from here on."""
    words = (ctypes.c_char_p * (len(command) + 1))(
        *(os.fsencode(each) for each in command), None)
    variables = (ctypes.c_char_p * (len(environment) + 1))(
        *(os.fsencode(f"{name}={value}")
          for name, value in environment.items()), None)
    return prepare("execve", os.fsencode(path), words, variables)


def close_on_exec() -> Call:
    """The program gets no open file but its standard three.

    Python closes them, too.  But one that was built without close_range(2)
    looks for them in /proc/self/fd, or believes the limit on their number:
    by then, neither will do.
    """
    return prepare("syscall", _CLOSE_RANGE, 3, 0xFFFFFFFF, _CLOSE_ON_EXEC)


def keep_on_exec(descriptor: int) -> Call:
    """The program gets this descriptor as well; see close_on_exec."""
    return prepare("fcntl", descriptor, _F_SETFD, 0)


def close_all() -> Call:
    """The process itself has no open file any more."""
    return prepare("syscall", _CLOSE_RANGE, 0, 0xFFFFFFFF, 0)


def no_new_privileges() -> Call:
    """The program gains nothing by setuid bits or file capabilities."""
    return prepare("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def filter_calls(program: bytes, process: int) -> Call:
    """Have seccomp judge every system call; see seccomp.denying.

    :param process: where the program has the number of its process
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
    """Give up what root may do beyond opening files; others have nothing.

    It is for good if the program cannot gain privileges, see
    no_new_privileges.
    """
    header = struct.pack("=Ii", _CAPABILITIES_V3, 0)
    data = ctypes.create_string_buffer(24)
    prepare("capget", header, data)()
    _, low, _, _, _, _ = struct.unpack("=6I", data.raw)
    kept = low & _KEPT_CAPABILITIES
    return prepare("capset", header,
                   struct.pack("=6I", kept, kept, 0, 0, 0, 0))
