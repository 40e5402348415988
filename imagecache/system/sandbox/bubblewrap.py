# SPDX-License-Identifier: Apache-2.0
"""bubblewrap: a program that runs another one in namespaces of its own.

It is used on kernels without Landlock.  root can make namespaces; another user
can where the kernel allows user namespaces.
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagecache.system.sandbox import guard
from imagecache.system.sandbox.allowance import Allowance

# No network, no other processes, no terminal.
_ALONE = ("bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc",
          "--unshare-uts", "--unshare-cgroup-try", "--new-session",
          "--cap-drop", "ALL")
# Another user gets a user namespace.  root does not: in one, root could open
# only its own files.
_ROOT = ("--cap-add", "CAP_DAC_OVERRIDE")

_PATIENCE = 30    # seconds, for a trial that takes some milliseconds


@functools.cache
def works(search: str) -> bool:
    """Tell whether bubblewrap is installed and may make namespaces.

    :param search: the directories of programs, as in PATH
    """
    program = shutil.which(_ALONE[0], path=search)
    if program is None:
        return False
    try:
        process = subprocess.Popen(    # noqa: S603  (there is no shell)
            [program, *_alone()[1:], "--die-with-parent",
             "--ro-bind", "/", "/", "--", "true"],
            env={"PATH": search}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=guard.guarded(os.getpid()))
    except (OSError, subprocess.SubprocessError):
        return False
    with process:
        try:
            return process.wait(_PATIENCE) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(guard.ENDING)
            return False


def wrapped(command: Sequence[str], allowance: Allowance,
            secret: bool, filter: int | None) -> tuple[str, ...]:
    """Return the command that runs another one within its allowance.

    A guard must start and end it: see sandbox.guard.

    :param secret: the command opens its standard input as /dev/stdin;
        bubblewrap makes a file of that name, in memory
    :param filter: the descriptor that bubblewrap reads a seccomp filter from
    """
    binds = [*_binds("--ro-bind", allowance.runs),
             "--ro-bind", str(allowance.runs[0]), str(allowance.program),
             *_binds("--ro-bind", allowance.reads),
             *_binds("--bind", allowance.writes),
             *(("--ro-bind-data", "0", "/dev/stdin") if secret else ()),
             *(() if filter is None else ("--seccomp", str(filter)))]
    # If the guard is killed, the program usually ends, but not always.
    return (*_alone(), "--die-with-parent", *binds, "--remount-ro", "/",
            "--chdir", "/", "--", str(allowance.program), *command[1:])


def _alone() -> tuple[str, ...]:
    return _ALONE + (() if os.geteuid() else _ROOT)


def _binds(how: str, paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        # A missing file needs no mount.  The namespace has no /proc.
        if path.exists() and Path("/proc") not in path.parents:
            device = not stat.S_ISREG(path.stat().st_mode) \
                and not path.is_dir()
            yield from ("--dev-bind" if device else how, str(path), str(path))
