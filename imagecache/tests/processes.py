# SPDX-License-Identifier: Apache-2.0
"""Processes for tests: children of this one, and programs to watch."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 60


REFUSED = 3


class Child:
    """A process that acts as this one would, from here on.

    It ends with 0, with ``REFUSED`` if ``act`` raised one of ``foreseen``, and
    with 1 and a traceback for any other error.
    """

    def __init__(self, act: Callable[[], Any],
                 foreseen: type[Exception] | tuple[()] = ()) -> None:
        self.pid = os.fork()
        if not self.pid:
            try:
                act()
                os._exit(0)
            except foreseen:
                os._exit(REFUSED)
            finally:
                traceback.print_exc()
                os._exit(1)

    def wait(self) -> int:
        """Return its exit code, or the signal that killed it, negative."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def as_root(*command: object) -> None:
    """Run a program, by sudo(8) if need be."""
    subprocess.run([*(() if os.geteuid() == 0 else ("sudo", "-n")),
                    *map(str, command)], check=True)


def at_once(acts: list[Callable[[], Any]]) -> list[int]:
    """Start a process for each; return how they ended."""
    readable, writable = os.pipe()

    def begin(act: Callable[[], Any]) -> Callable[[], Any]:
        def wait_then_act() -> None:
            os.close(writable)
            os.read(readable, 1)     # until the last writer is gone
            act()
        return wait_then_act

    children = [Child(begin(act)) for act in acts]
    os.close(readable)
    os.close(writable)
    return [child.wait() for child in children]


def below(pid: int) -> Iterator[int]:
    """Yield the processes that descend from one."""
    with contextlib.suppress(OSError):
        for child in pathlib.Path(
                f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(child)
            yield from below(int(child))


def command(pid: int) -> list[str]:
    """Return the program a process runs, and its arguments."""
    try:
        name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [name, *words.decode(errors="replace").split("\0")[1:]]


def is_alive(pid: int) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_for(answer: Callable[[], Any]) -> Any:
    """Call ``answer`` until it returns something, and return that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := answer():
            return found
        time.sleep(0.001)
    raise AssertionError(f"it did not happen in {PATIENCE} seconds")


def stop_below(pid: int, *words: str) -> int:
    """Stop a descendant whose command begins so; return its id."""
    def find() -> int | None:
        for child in below(pid):
            if command(child)[:len(words)] == list(words):
                os.kill(child, signal.SIGSTOP)
                return child
        return None

    found: int = wait_for(find)
    return found
