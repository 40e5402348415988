# SPDX-License-Identifier: Apache-2.0
"""System calls that no program in a sandbox has any use for.

Landlock rules which files are opened.  It has no say in sockets other than
TCP's, a connection to the socket file of libvirt among them, nor in the
modes, owners, times and attributes of files.  These calls fail, as if they
were not permitted.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import sys

# One instruction of the classic Berkeley packet filter.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_CALL, _MACHINE = 0, 4      # offsets in struct seccomp_data

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_DENY = 0x00050000 | errno.EPERM

# Numbers that are the same on all machines: io_uring_setup, which opens
# sockets of its own; fchmodat2; setxattrat; removexattrat; file_setattr.
_COMMON = (425, 452, 463, 466, 469)
# socket; add_key, request_key, keyctl; truncate; fchmod, fchmodat; fchown,
# fchownat; three of setxattr and of removexattr; utimensat; quotactl
_GENERIC = (198, 217, 218, 219, 45, 52, 53, 55, 54, 5, 6, 7, 14, 15, 16, 88,
            60)
# The same, and then chmod, chown, lchown, utime, utimes, futimesat.
_X86_64 = (41, 248, 249, 250, 76, 91, 268, 93, 260, 188, 189, 190, 197, 198,
           199, 280, 179, 90, 92, 94, 132, 235, 261)

# What the kernel calls a machine in AUDIT_ARCH, and its calls.
_MACHINES = {
    "x86_64": (0xC000003E, _X86_64 + _COMMON),
    "aarch64": (0xC00000B7, _GENERIC + _COMMON),
    "riscv64": (0xC00000F3, _GENERIC + _COMMON),
}
# Calls from here on are those of another set of numbers, x32 on x86_64.
_OTHER_NUMBERS = 0x40000000


@functools.cache
def program() -> bytes | None:
    """Return the filter for this machine; None if its calls are not known."""
    machine = os.uname().machine
    if machine not in _MACHINES or sys.maxsize < 1 << 32:
        return None
    name, calls = _MACHINES[machine]
    return denying(name, calls)


def denying(machine: int, calls: tuple[int, ...]) -> bytes:
    """Return a filter that denies some calls, and kills another machine's."""
    code = [(_LOAD, 0, 0, _MACHINE),
            (_EQUAL, 1, 0, machine),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, _CALL),
            (_AT_LEAST, len(calls) + 1, 0, _OTHER_NUMBERS)]
    code += [(_EQUAL, len(calls) - i, 0, call)
             for i, call in enumerate(calls)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    return b"".join(_INSTRUCTION.pack(*each) for each in code)
