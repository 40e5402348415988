# SPDX-License-Identifier: Apache-2.0
"""Which processes this one starts, as the interpreter itself reports them.

Whoever starts one in Python raises an audit event, so no way of doing it is
forgotten and nothing is patched.  What those processes start in turn is not
seen.  Runs inside nova's virtualenv too: standard library only.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from typing import Any

_STARTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
           "os.startfile", "os.system", "subprocess.Popen"}

_listening: list[list[str]] = []
_hooked: list[bool] = []


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Yield a list that the command line of each new process joins."""
    if not _hooked:
        sys.addaudithook(_hear)    # there is no way to take one out again
        _hooked.append(True)
    started: list[str] = []
    _listening.append(started)
    try:
        yield started
    finally:
        _listening.remove(started)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS and _listening:
        command = _command(event, arguments)
        for started in _listening:
            started.append(command)


def _command(event: str, arguments: tuple[Any, ...]) -> str:
    if event != "subprocess.Popen":
        return " ".join([event, *map(str, arguments[:1])])
    words = arguments[1]
    return words if isinstance(words, str) else shlex.join(map(str, words))
