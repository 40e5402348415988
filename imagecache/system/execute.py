# SPDX-License-Identifier: Apache-2.0
"""Start programs.  No other module of this library does."""

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

# Called through its module: tests of a caller may patch processutils.execute.
from oslo_concurrency import processutils

from imagecache import exception
from imagecache.model import KiB, Limits, MiB
from imagecache.system import sandbox
from imagecache.system.sandbox import kernel

LOG = logging.getLogger(__name__)


class Running(NamedTuple):
    """A program that is running."""

    process: subprocess.Popen[bytes]
    ending: signal.Signals

    def end(self) -> None:
        """End the program, and all processes that it started."""
        self.process.send_signal(self.ending)


Started = Callable[[Running], object]

_UNLIMITED = Limits()

_GENUINE = processutils.execute

# Messages are parsed, so they must be in English.  A missing table of mounts,
# as in some sandboxes, means that nothing is mounted.  libblkid must not cache
# the label of a tenant's file system in the host's table, as dumpe2fs would do
# for root.
_VARIABLES = {"LC_ALL": "C", "LANG": "C", "LANGUAGE": "C",
              "EXT2FS_NO_MTAB_OK": "1", "BLKID_FILE": "/dev/null"}
# The variables of the agent that a confined program gets, besides PATH.
_KEPT = ("LD_LIBRARY_PATH",)
# The messages of the C library for ENOSPC and EDQUOT.
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
# A tenant's image can make a program print gigabytes.  These are the bytes of
# each stream that are kept, and the characters of them that an error has.
_MOST_KEPT, _MOST_REPORTED = MiB, 4 * KiB
# mkfs and e2fsck are not on the PATH of an ordinary user.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def run(*command: str, limits: Limits = _UNLIMITED,
        reads: Iterable[pathlib.Path] = (),
        writes: Iterable[pathlib.Path] = (),
        exit_codes: Collection[int] = (0,), stdin: int | None = None,
        secret: bytes | None = None, started: Started | None = None,
        root_helper: str = "") -> str:
    """Run a program without a shell, and return its standard output.

    :param reads: the files that it can read, if its limits have a sandbox
    :param writes: the files that it can also change there
    :param exit_codes: the exit codes that mean success
    :param stdin: the descriptor that becomes its standard input
    :param secret: at most 4096 bytes for its standard input or /dev/stdin;
        they are in no log and on no command line
    :param started: called with the running program
    :param root_helper: runs the command as root if this process is not root;
        not in a sandbox
    :raises CommandFailed: also CommandTimedOut and CommandNotFound, its
        subclasses; or a program with limits printed more than 1 MiB
    :raises NoSpace: a file system is full
    :raises InvalidConfiguration: a sandbox is required, and there is none
    """
    environment = _environment(confined=limits.sandbox is not None)
    if os.geteuid() != 0:
        command = (*shlex.split(root_helper), *command)
    with sandbox.around(
            command, limits, reads=reads, writes=writes,
            environment=environment, secret=bool(secret)) as launch, \
            _translated(command, limits), \
            _secret_input(secret, stdin) as stdin, _ended() as children:
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
            # processutils calls communicate(), which would keep all output.
            vars(process)["communicate"] = functools.partial(
                _communicate, process)
        on_execute(process)

    stdout, _ = processutils.execute(
        *launch.command, check_exit_code=list(exit_codes),
        env_variables=environment, on_execute=listen,
        preexec_fn=_with_stdin(stdin, launch.restrict), timeout=timeout)
    if launch.restrict and len(os.fsencode(stdout)) >= _MOST_KEPT:
        raise processutils.ProcessExecutionError(
            stderr=f"the program printed more than {_MOST_KEPT} bytes",
            exit_code=0)
    return stdout


def _communicate(process: subprocess.Popen[bytes], _input: None,
                 timeout: float | None) -> tuple[bytes, bytes]:
    """Do what Popen.communicate() does, but keep only the first output."""
    deadline = None if timeout is None else time.monotonic() + timeout
    if process.stdin:
        process.stdin.close()
    streams = [each for each in (process.stdout, process.stderr) if each]
    output = {each.fileno(): bytearray() for each in streams}
    with selectors.DefaultSelector() as selector:
        for each in streams:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(_left(deadline)):
                data = os.read(key.fd, 64 * KiB)
                if not data:
                    selector.unregister(key.fileobj)
                kept = output[key.fd]
                kept += data[:_MOST_KEPT - len(kept)]
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, timeout or 0)
    process.wait(_left(deadline))
    stdout, stderr = output.values()
    return bytes(stdout), bytes(stderr)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0, deadline - time.monotonic())


def _without_fork(command: tuple[str, ...], exit_codes: Collection[int],
                  environment: dict[str, str], stdin: int | None,
                  on_execute: Callable[[subprocess.Popen[bytes]], None]
                  ) -> str:
    """Do what processutils.execute() does, for a program without limits.

    processutils runs Python in the new process, so it must fork; in an agent
    of 150 MiB a fork takes longer than qemu-img needs for an overlay.  Here
    vfork(2) starts the process, which does not depend on the agent's size.
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
def _secret_input(secret: bytes | None,
                  stdin: int | None) -> Iterator[int | None]:
    """Yield a descriptor from which a program can read a secret."""
    if secret is None:
        yield stdin
        return
    reader, writer = os.pipe()
    try:
        with open(writer, "wb") as f:
            f.write(secret)     # it fits into the buffer of a pipe
        yield reader
    finally:
        os.close(reader)


def _with_stdin(stdin: int | None, restrict: Callable[[], None] | None
                ) -> Callable[[], None] | None:
    """Return a call that sets the standard input of a new process.

    The call then restricts the process.  processutils itself would make a
    pipe the standard input.
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
    """Yield a list of programs; end them all when the block ends."""
    children: list[Running] = []
    try:
        yield children
    finally:
        # A time-out or a signal may have interrupted communicate().
        for each in children:
            with each.process:    # closes its pipes and waits for it
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
    """Return the environment of a program.

    A program that reads a tenant's data gets none of the agent's secrets,
    only the paths of programs and libraries.
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
    if len(stderr) > _MOST_REPORTED:
        stderr = f"{stderr[:_MOST_REPORTED]} ... and more"
    stderr = _printable(stderr)
    if any(words in stderr for words in _NO_SPACE):
        return exception.NoSpace(
            f"{' '.join(command)} failed: no space is left: {stderr}",
            path=command[-1], what=command[0], needed="more", available=0)
    limit = sandbox.explain(limits, int(error.exit_code or 0), stderr)
    reasons = [reason for reason in (stderr, limit) if reason]
    return exception.CommandFailed(
        command=" ".join(command), exit_code=error.exit_code, limit=limit,
        stderr="; ".join(reasons) or "it printed no message")


def _printable(message: str) -> str:
    """Escape unprintable characters of a message.

    A tenant may have written parts of it, such as a label.  Some characters
    would move a terminal's cursor, or could not be stored in a database.
    """
    return "".join(
        each if each.isprintable() or each in "\n\t"
        else each.encode("unicode_escape").decode() for each in message)
