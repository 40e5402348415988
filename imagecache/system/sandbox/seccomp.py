# SPDX-License-Identifier: Apache-2.0
"""The system calls that a program in a sandbox may not make.

Landlock decides which files can be opened.  It does not rule sockets other
than TCP's (libvirt's is a socket file), nor the modes, owners, times and
attributes of files, nor new processes, nor, before version 6, signals.  The
filter makes these calls fail with EPERM.

A program may start threads, but no processes.  So its end is the end of all
that it started, and its limits of memory and CPU are those of all of it.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import sys
from typing import NamedTuple

# One instruction of the classic Berkeley packet filter: code, the numbers of
# instructions to skip if a comparison is true and if it is false, operand.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _RETURN, _SKIP = 0x20, 0x06, 0x05
_EQUAL, _AT_LEAST, _HAS_BIT = 0x15, 0x35, 0x45
# Offsets in struct seccomp_data; an argument's is that of its lower half.
_CALL, _MACHINE = 0, 4
_ARGUMENTS = 16 if sys.byteorder == "little" else 20

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_DENY = 0x00050000 | errno.EPERM
_ABSENT = 0x00050000 | errno.ENOSYS

_CLONE_THREAD = 0x10000
_PR_SET_PDEATHSIG = 1

# clone3 has its flags in memory, which a filter cannot read.  The C library
# takes "no such call" as the order to use clone.
_CLONE3 = 435


class Machine(NamedTuple):
    """The numbers of the system calls of one kind of processor."""

    audit: int              # the kernel's AUDIT_ARCH
    denied: tuple[int, ...]
    own: tuple[int, int]    # tgkill, to abort, and prlimit64, to ask
    clone: int
    flags: int              # which argument of clone has its flags
    prctl: int


# Calls that have one number on all machines: pidfd_send_signal;
# io_uring_setup, which opens sockets of its own; pidfd_getfd, quotactl_fd,
# memfd_secret, fchmodat2, setxattrat, removexattrat, file_setattr.
_COMMON = (424, 425, 438, 443, 447, 452, 463, 466, 469)
# The others, in this order:
#   socket, add_key, request_key, keyctl;
#   truncate, fchmod, fchmodat, fchown, fchownat, three of setxattr and of
#   removexattr, utimensat, quotactl;
#   kill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, setpriority, ioprio_set,
#   sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr;
#   ptrace, unshare, setns;
#   shmget, semget, msgget and mq_open, whose objects outlive a process;
#   memfd_create, which makes memory that no limit counts;
#   chmod, chown, lchown, utime, utimes, futimesat; socketcall; ipc; fork,
#   vfork, where they exist
_GENERIC = (198, 217, 218, 219,
            45, 52, 53, 55, 54, 5, 6, 7, 14, 15, 16, 88, 60,
            129, 130, 138, 240, 140, 30, 118, 119, 122, 274,
            117, 97, 268, 194, 190, 186, 180, 279)
_X86_64 = (41, 248, 249, 250,
           76, 91, 268, 93, 260, 188, 189, 190, 197, 198, 199, 280, 179,
           62, 200, 129, 297, 141, 251, 142, 144, 203, 314,
           101, 272, 308, 29, 64, 68, 240, 319,
           90, 92, 94, 132, 235, 261, 57, 58)
_PPC64 = (326, 269, 270, 271,
          92, 94, 297, 95, 289, 209, 210, 211, 218, 219, 220, 304, 131,
          37, 208, 177, 322, 97, 273, 154, 156, 222, 355,
          26, 282, 350, 395, 393, 399, 262, 360,
          15, 181, 16, 30, 251, 290, 102, 117, 2, 189)
_S390X = (359, 278, 279, 280,
          92, 94, 299, 207, 291, 224, 225, 226, 233, 234, 235, 315, 131,
          37, 237, 178, 330, 97, 282, 154, 156, 239, 345,
          26, 303, 339, 395, 393, 399, 271, 350,
          15, 212, 198, 30, 313, 292, 102, 117, 2, 190)

_MACHINES = {
    "x86_64": Machine(0xC000003E, _X86_64 + _COMMON, (234, 302), 56, 0, 157),
    "aarch64": Machine(0xC00000B7, _GENERIC + _COMMON, (131, 261),
                       220, 0, 167),
    "riscv64": Machine(0xC00000F3, _GENERIC + _COMMON, (131, 261),
                       220, 0, 167),
    "ppc64le": Machine(0xC0000015, _PPC64 + _COMMON, (250, 325), 120, 0, 171),
    "s390x": Machine(0x80000016, _S390X + _COMMON, (241, 334), 120, 1, 172),
}
# Calls from here on are those of another set of numbers, x32 on x86_64.
_OTHER_NUMBERS = 0x40000000

# Where a program has the number of its process, counted from its end.
PROCESS = -20


@functools.cache
def program(*, others: bool = True) -> bytes | None:
    """Return the filter for this machine; None if its calls are not known.

    :param others: the program can see other processes.  The filter then
        refuses the calls that name one, and the number of the program's own
        process must be put in at PROCESS
    """
    machine = os.uname().machine
    if machine not in _MACHINES or sys.maxsize < 1 << 32:
        return None
    return denying(_MACHINES[machine], others=others)


def denying(machine: Machine, *, others: bool = True) -> bytes:
    """Return a filter that denies calls, and kills another machine's."""
    code = [(_LOAD, 0, 0, _MACHINE),
            (_EQUAL, 1, 0, machine.audit),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, _CALL),
            (_AT_LEAST, 0, 1, _OTHER_NUMBERS),
            (_RETURN, 0, 0, _DENY)]
    last = len(machine.denied)
    code += [(_EQUAL, last - i, 0, call)
             for i, call in enumerate(machine.denied)]
    code += [(_SKIP, 0, 0, 1),
             (_RETURN, 0, 0, _DENY),
             (_EQUAL, 0, 1, _CLONE3),
             (_RETURN, 0, 0, _ABSENT),
             (_EQUAL, 0, 4, machine.clone),
             (_LOAD, 0, 0, _ARGUMENTS + 8 * machine.flags),
             (_HAS_BIT, 1, 0, _CLONE_THREAD),
             (_RETURN, 0, 0, _DENY),
             (_RETURN, 0, 0, _ALLOW),
             (_EQUAL, 0, 4, machine.prctl),
             (_LOAD, 0, 0, _ARGUMENTS),
             (_EQUAL, 0, 1, _PR_SET_PDEATHSIG),
             (_RETURN, 0, 0, _DENY),
             (_RETURN, 0, 0, _ALLOW)]
    code += _only_itself(machine) if others else [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(_INSTRUCTION.pack(*each) for each in code)


def _only_itself(machine: Machine) -> list[tuple[int, int, int, int]]:
    """Deny two calls unless they name the program's own process."""
    return [(_EQUAL, 2, 0, machine.own[0]),
            (_EQUAL, 1, 0, machine.own[1]),
            (_RETURN, 0, 0, _ALLOW),
            (_LOAD, 0, 0, _ARGUMENTS),
            (_EQUAL, 2, 0, 0),
            (_EQUAL, 1, 0, 0),      # the number of the process
            (_RETURN, 0, 0, _DENY),
            (_RETURN, 0, 0, _ALLOW)]
