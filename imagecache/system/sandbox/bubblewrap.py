# SPDX-License-Identifier: Apache-2.0
"""bubblewrap: a program that runs another where nothing else exists.

For kernels without Landlock.  It needs namespaces: root has them, others
where the kernel lets them.
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

# No network, no processes of others, no terminal.
_ALONE = ("bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc",
          "--unshare-uts", "--unshare-cgroup-try", "--new-session",
          "--cap-drop", "ALL")
# Others get a user namespace.  In one of its own, root could open no file
# but root's.
_ROOT = ("--cap-add", "CAP_DAC_OVERRIDE")

_PATIENCE = 30    # seconds, for a trial that takes some milliseconds


@functools.cache
def works(search: str) -> bool:
    """Say whether bubblewrap is installed, and may make namespaces.

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
    """Return the command that runs a command within its allowance.

    It must be started, and ended, by a guard: see sandbox.guard.

    :param secret: it is to open its standard input, as /dev/stdin; there
        will be a file of that name, in memory
    :param filter: the descriptor that bubblewrap reads a seccomp filter from
    """
    binds = [*_binds("--ro-bind", allowance.runs),
             "--ro-bind", str(allowance.runs[0]), str(allowance.program),
             *_binds("--ro-bind", allowance.reads),
             *_binds("--bind", allowance.writes),
             *(("--ro-bind-data", "0", "/dev/stdin") if secret else ()),
             *(() if filter is None else ("--seccomp", str(filter)))]
    # If even its guard was killed, most of the time so is what it runs.
    return (*_alone(), "--die-with-parent", *binds, "--remount-ro", "/",
            "--chdir", "/", "--", str(allowance.program), *command[1:])


def _alone() -> tuple[str, ...]:
    return _ALONE + (() if os.geteuid() else _ROOT)


def _binds(how: str, paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        # What is not there needs no place, nor do processes that are not.
        if path.exists() and Path("/proc") not in path.parents:
            device = not stat.S_ISREG(path.stat().st_mode) \
                and not path.is_dir()
            yield from ("--dev-bind" if device else how, str(path), str(path))
