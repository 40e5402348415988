# SPDX-License-Identifier: Apache-2.0
"""System calls that no program in a sandbox has any use for.

Landlock rules which files are opened.  It has no say in sockets other than
TCP's, a connection to the socket file of libvirt among them; nor in the
modes, owners, times and attributes of files; nor, before version 6, in
signals.  These calls fail, as if they were not permitted.
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
# Offsets in struct seccomp_data; the last is of the lower half.
_CALL, _MACHINE, _ARGUMENT = 0, 4, 16 if sys.byteorder == "little" else 20

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_DENY = 0x00050000 | errno.EPERM

# Calls that have one number on all machines: pidfd_send_signal;
# io_uring_setup, which opens sockets of its own; quotactl_fd, fchmodat2,
# setxattrat, removexattrat, file_setattr.
_COMMON = (424, 425, 443, 452, 463, 466, 469)
# The others, in this order:
#   socket, add_key, request_key, keyctl;
#   truncate, fchmod, fchmodat, fchown, fchownat, three of setxattr and of
#   removexattr, utimensat, quotactl;
#   kill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, setpriority, ioprio_set,
#   sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr;
#   chmod, chown, lchown, utime, utimes, futimesat; socketcall
_GENERIC = (198, 217, 218, 219,
            45, 52, 53, 55, 54, 5, 6, 7, 14, 15, 16, 88, 60,
            129, 130, 138, 240, 140, 30, 118, 119, 122, 274)
_X86_64 = (41, 248, 249, 250,
           76, 91, 268, 93, 260, 188, 189, 190, 197, 198, 199, 280, 179,
           62, 200, 129, 297, 141, 251, 142, 144, 203, 314,
           90, 92, 94, 132, 235, 261)
_PPC64 = (326, 269, 270, 271,
          92, 94, 297, 95, 289, 209, 210, 211, 218, 219, 220, 304, 131,
          37, 208, 177, 322, 97, 273, 154, 156, 222, 355,
          15, 181, 16, 30, 251, 290, 102)
_S390X = (359, 278, 279, 280,
          92, 94, 299, 207, 291, 224, 225, 226, 233, 234, 235, 315, 131,
          37, 237, 178, 330, 97, 282, 154, 156, 239, 345,
          15, 212, 198, 30, 313, 292, 102)

# What the kernel calls a machine in AUDIT_ARCH, its calls, and two that a
# program may make of itself: tgkill, to abort, and prlimit64, to ask.
_MACHINES = {
    "x86_64": (0xC000003E, _X86_64 + _COMMON, (234, 302)),
    "aarch64": (0xC00000B7, _GENERIC + _COMMON, (131, 261)),
    "riscv64": (0xC00000F3, _GENERIC + _COMMON, (131, 261)),
    "ppc64le": (0xC0000015, _PPC64 + _COMMON, (250, 325)),
    "s390x": (0x80000016, _S390X + _COMMON, (241, 334)),
}
# Calls from here on are those of another set of numbers, x32 on x86_64.
_OTHER_NUMBERS = 0x40000000

# Where a program has the number of its process, counted from its end.
PROCESS = -20


@functools.cache
def program() -> bytes | None:
    """Return the filter for this machine; None if its calls are not known.

    The number of the process is yet to be put in, at PROCESS.
    """
    machine = os.uname().machine
    if machine not in _MACHINES or sys.maxsize < 1 << 32:
        return None
    return denying(*_MACHINES[machine])


def denying(machine: int, calls: tuple[int, ...],
            own: tuple[int, int]) -> bytes:
    """Return a filter that denies some calls, and kills another machine's.

    :param own: calls that are denied unless the process means itself
    """
    code = [(_LOAD, 0, 0, _MACHINE),
            (_EQUAL, 1, 0, machine),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, _CALL),
            (_AT_LEAST, len(calls) + 6, 0, _OTHER_NUMBERS)]
    code += [(_EQUAL, len(calls) - i + 5, 0, call)
             for i, call in enumerate(calls)]
    code += [(_EQUAL, 2, 0, own[0]),
             (_EQUAL, 1, 0, own[1]),
             (_RETURN, 0, 0, _ALLOW),
             (_LOAD, 0, 0, _ARGUMENT),
             (_EQUAL, 2, 0, 0),
             (_EQUAL, 1, 0, 0),      # the number of the process
             (_RETURN, 0, 0, _DENY),
             (_RETURN, 0, 0, _ALLOW)]
    return b"".join(_INSTRUCTION.pack(*each) for each in code)
