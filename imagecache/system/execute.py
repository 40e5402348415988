# SPDX-License-Identifier: Apache-2.0
"""The one door to other programs."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

# Through its module: a caller's tests may patch processutils.execute.
from oslo_concurrency import processutils

from imagecache import exception
from imagecache.model import KiB, Limits, MiB
from imagecache.system import sandbox
from imagecache.system.sandbox import kernel

LOG = logging.getLogger(__name__)


class Running(NamedTuple):
    """A program that runs."""

    process: subprocess.Popen[bytes]
    ending: signal.Signals

    def end(self) -> None:
        """Have it end, if it has not, and what came of it with it."""
        self.process.send_signal(self.ending)


Started = Callable[[Running], object]

_UNLIMITED = Limits()

_GENUINE = processutils.execute

# Programs speak English to us, and read no configuration of whoever runs us.
# Where there is no table of mounts, as in some sandboxes, nothing is mounted.
# What a tenant calls a file system is no entry for this host's table of them,
# which dumpe2fs would make for root.
_VARIABLES = {"LC_ALL": "C", "LANG": "C", "LANGUAGE": "C",
              "EXT2FS_NO_MTAB_OK": "1", "BLKID_FILE": "/dev/null"}
# What a confined program keeps of the agent's environment, besides PATH.
_KEPT = ("LD_LIBRARY_PATH",)
# What the C library says of ENOSPC and EDQUOT, in English.
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
# What a tenant wrote can make a program say gigabytes: of each stream as many
# bytes are kept, and of those as many characters are told.
_MOST_HEARD, _MOST_TOLD = MiB, 4 * KiB
# mkfs and e2fsck are not on the PATH of an ordinary user.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def run(*command: str, limits: Limits = _UNLIMITED,
        reads: Iterable[pathlib.Path] = (),
        writes: Iterable[pathlib.Path] = (),
        exit_codes: Collection[int] = (0,), stdin: int | None = None,
        secret: bytes | None = None, started: Started | None = None,
        root_helper: str = "") -> str:
    """Run a program without a shell, and return what it printed.

    :param reads: the files it finds in its sandbox, if its limits have one
    :param writes: those it may change as well
    :param exit_codes: those that mean success
    :param stdin: the descriptor that is its standard input
    :param secret: what it reads there instead, or from /dev/stdin; nobody
        else sees it.  At most 4096 bytes.
    :param started: called with the running process, to watch it
    :param root_helper: what makes us root; not in a sandbox, where nobody is
    :raises CommandFailed: its subclass says if it was slow, or not there; or
        it has limits, and printed more than 1 MiB
    :raises NoSpace: it failed because a file system is full
    :raises InvalidConfiguration: it needs a sandbox, and there is none
    """
    environment = _environment(confined=limits.sandbox is not None)
    if os.geteuid() != 0:
        command = (*shlex.split(root_helper), *command)
    with sandbox.around(
            command, limits, reads=reads, writes=writes,
            environment=environment, secret=bool(secret)) as launch, \
            _translated(command, limits), _told(secret, stdin) as stdin, \
            _ended() as children:
        def on_execute(process: subprocess.Popen[bytes]) -> None:
            children.append(Running(process, launch.ending))
            if started:
                started(children[-1])

        if launch.restrict is None and processutils.execute is _GENUINE:
            return _without_fork(launch.command, exit_codes, environment,
                                 stdin, on_execute)
        return _forked(launch, exit_codes, environment, stdin, on_execute,
                       limits.wall_clock)


def _forked(launch: sandbox.Launch, exit_codes: Collection[int],
            environment: dict[str, str], stdin: int | None,
            on_execute: Callable[[subprocess.Popen[bytes]], None],
            timeout: int | None) -> str:
    def listen(process: subprocess.Popen[bytes]) -> None:
        if launch.restrict:
            # processutils calls this, and itself it would keep everything.
            vars(process)["communicate"] = functools.partial(_hear, process)
        on_execute(process)

    stdout, _ = processutils.execute(
        *launch.command, check_exit_code=list(exit_codes),
        env_variables=environment, on_execute=listen,
        preexec_fn=_fed(stdin, launch.restrict), timeout=timeout)
    if launch.restrict and len(os.fsencode(stdout)) >= _MOST_HEARD:
        raise processutils.ProcessExecutionError(
            stderr=f"it printed more than {_MOST_HEARD} bytes", exit_code=0)
    return stdout


def _hear(process: subprocess.Popen[bytes], _input: None,
          timeout: float | None) -> tuple[bytes, bytes]:
    """Do what communicate() does, and forget what is too much."""
    deadline = None if timeout is None else time.monotonic() + timeout
    if process.stdin:
        process.stdin.close()
    streams = [each for each in (process.stdout, process.stderr) if each]
    heard = {each.fileno(): bytearray() for each in streams}
    with selectors.DefaultSelector() as selector:
        for each in streams:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(_left(deadline)):
                said = os.read(key.fd, 64 * KiB)
                if not said:
                    selector.unregister(key.fileobj)
                kept = heard[key.fd]
                kept += said[:_MOST_HEARD - len(kept)]
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, timeout or 0)
    process.wait(_left(deadline))
    stdout, stderr = heard.values()
    return bytes(stdout), bytes(stderr)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0, deadline - time.monotonic())


def _without_fork(command: tuple[str, ...], exit_codes: Collection[int],
                  environment: dict[str, str], stdin: int | None,
                  on_execute: Callable[[subprocess.Popen[bytes]], None]
                  ) -> str:
    """Do what processutils.execute() does, for what needs nothing set up.

    It runs Python in the new process, so it must fork; in an agent of 150 MiB
    that takes longer than qemu-img takes to make an overlay.  Without, the
    process is started by vfork(2), whatever the size of its parent.
    """
    LOG.debug("Running cmd: %s", " ".join(command))
    process = subprocess.Popen(    # noqa: S603  (there is no shell)
        command, env=environment,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    on_execute(process)
    stdout, stderr = process.communicate()
    if process.returncode not in exit_codes:
        raise processutils.ProcessExecutionError(
            os.fsdecode(stdout), os.fsdecode(stderr), process.returncode,
            " ".join(command))
    return os.fsdecode(stdout)


@contextlib.contextmanager
def _told(secret: bytes | None, stdin: int | None) -> Iterator[int | None]:
    """Yield the standard input of a program that is told a secret."""
    if secret is None:
        yield stdin
        return
    reader, writer = os.pipe()
    try:
        with open(writer, "wb") as f:
            f.write(secret)     # a pipe takes as much at once
        yield reader
    finally:
        os.close(reader)


def _fed(stdin: int | None, restrict: Callable[[], None] | None
         ) -> Callable[[], None] | None:
    """Return what gives a new process its standard input, then restricts it.

    processutils would give it a pipe.
    """
    if stdin is None:
        return restrict
    feed = kernel.prepare("dup2", stdin, 0)

    def prepare() -> None:
        feed()
        if restrict:
            restrict()

    return prepare


@contextlib.contextmanager
def _ended() -> Iterator[list[Running]]:
    """Yield a list of programs that live no longer than the block."""
    children: list[Running] = []
    try:
        yield children
    finally:
        # communicate() may have been left early, by a time-out or a signal.
        for each in children:
            with each.process:    # closes its pipes, and waits
                each.end()


@contextlib.contextmanager
def _translated(command: tuple[str, ...], limits: Limits) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired as e:
        raise exception.CommandTimedOut(
            f"{' '.join(command)} was stopped:"
            f" {sandbox.reached(limits, 'wall_clock')}",
            command=" ".join(command), timeout=limits.wall_clock) from e
    except subprocess.SubprocessError as e:
        raise exception.CommandFailed(
            command=" ".join(command), exit_code=None,
            stderr="it was not started: its limits could not be set") from e
    except OSError as e:
        raise _not_started(command, e) from e
    except processutils.ProcessExecutionError as e:
        raise _failure(command, limits, e) from e


def _environment(*, confined: bool) -> dict[str, str]:
    """Return what a program is started with.

    A program that reads a tenant's bytes gets none of the agent's secrets:
    only where programs and their libraries are.
    """
    found = {name: value for name, value in os.environ.items()
             if not confined or name in _KEPT}
    path = os.environ.get("PATH", os.defpath)
    return found | _VARIABLES | {"PATH": f"{path}:{_SBIN}"}


def _not_started(command: tuple[str, ...],
                 error: OSError) -> exception.CommandFailed:
    if isinstance(error, FileNotFoundError):
        return exception.CommandNotFound(command=command[0])
    return exception.CommandFailed(
        command=" ".join(command), exit_code=None,
        stderr=f"it could not be started: {error.strerror}")


def _failure(command: tuple[str, ...], limits: Limits,
             error: processutils.ProcessExecutionError
             ) -> exception.HostError:
    stderr = (error.stderr or "").strip()
    if len(stderr) > _MOST_TOLD:
        stderr = f"{stderr[:_MOST_TOLD]} ... and more"
    stderr = _legible(stderr)
    if any(words in stderr for words in _NO_SPACE):
        return exception.NoSpace(
            f"{' '.join(command)} found no more space: {stderr}",
            path=command[-1], what=command[0], needed="more", available=0)
    limit = sandbox.explain(limits, int(error.exit_code or 0), stderr)
    reasons = [reason for reason in (stderr, limit) if reason]
    return exception.CommandFailed(
        command=" ".join(command), exit_code=error.exit_code, limit=limit,
        stderr="; ".join(reasons) or "it said nothing")


def _legible(said: str) -> str:
    """Say in plain text what may hold a tenant's words, as of a label.

    Others could move a terminal's cursor, or fit into no database.
    """
    return "".join(
        each if each.isprintable() or each in "\n\t"
        else each.encode("unicode_escape").decode() for each in said)
