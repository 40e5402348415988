# SPDX-License-Identifier: Apache-2.0
"""The one door to other programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection

# Through its module: a caller's tests may patch processutils.execute.
from oslo_concurrency import processutils

from imagecache import exception
from imagecache.model import Limits

Started = Callable[["subprocess.Popen[bytes]"], object]

_UNLIMITED = Limits()

# Programs speak English to us, and read no configuration of whoever runs us.
_LOCALE = {"LC_ALL": "C", "LANG": "C", "LANGUAGE": "C"}
# What the C library says of ENOSPC and EDQUOT, in English.
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
# mkfs and e2fsck are not on the PATH of an ordinary user.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def run(*command: str, limits: Limits = _UNLIMITED,
        exit_codes: Collection[int] = (0,),
        started: Started | None = None) -> str:
    """Run a program without a shell, and return what it printed.

    :param limits: enforced by prlimit(1), which turns into the program.
        processutils' own way starts a second Python: 20 ms more a call.
    :param exit_codes: those that mean success
    :param started: called with the running process, to watch it
    :raises CommandFailed: its subclass says if it was too slow or not there
    :raises NoSpace: it failed because a file system is full
    """
    child: list[subprocess.Popen[bytes]] = []

    def on_execute(process: subprocess.Popen[bytes]) -> None:
        child.append(process)
        if started:
            started(process)

    try:
        stdout, _ = processutils.execute(
            *_limited(limits), *command, check_exit_code=list(exit_codes),
            env_variables=_environment(), on_execute=on_execute,
            timeout=limits.wall_clock)
    except subprocess.TimeoutExpired as e:
        raise exception.CommandTimedOut(
            command=" ".join(command), timeout=limits.wall_clock) from e
    except OSError as e:
        raise _not_started(command, e) from e
    except processutils.ProcessExecutionError as e:
        raise _failure(command, e) from e
    finally:
        # communicate() may have been left early, by a time-out or a signal.
        for process in child:
            with process:    # closes its pipes, and waits
                process.kill()
    return stdout


def _environment() -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath)
    return os.environ | _LOCALE | {"PATH": f"{path}:{_SBIN}"}


def _limited(limits: Limits) -> list[str]:
    """Return the words that come before a command to limit it."""
    words = {"--as": limits.address_space, "--cpu": limits.cpu_time,
             "--fsize": limits.file_size}
    flags = [f"{k}={v}" for k, v in words.items() if v is not None]
    # If this process is killed, an orphan must not write on for hours.
    return ["setpriv", "--pdeathsig", "KILL",
            "prlimit", *flags, "--"] if flags else []


def _not_started(command: tuple[str, ...],
                 error: OSError) -> exception.CommandFailed:
    if isinstance(error, FileNotFoundError):
        return exception.CommandNotFound(command=command[0])
    return exception.CommandFailed(
        command=" ".join(command), exit_code=None,
        stderr=f"it could not be started: {error.strerror}")


def _failure(command: tuple[str, ...],
             error: processutils.ProcessExecutionError
             ) -> exception.HostError:
    stderr = (error.stderr or "").strip()
    if any(words in stderr for words in _NO_SPACE):
        return exception.NoSpace(
            f"{' '.join(command)} found no more space: {stderr}",
            path=command[-1], what=command[0], needed="more", available=0)
    if error.exit_code == 127 and command[0] in stderr:
        return exception.CommandNotFound(command=command[0])
    return exception.CommandFailed(
        command=" ".join(command), exit_code=error.exit_code,
        stderr=stderr or "it said nothing")
