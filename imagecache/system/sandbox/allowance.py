# SPDX-License-Identifier: Apache-2.0
"""The list of files that a program in a sandbox can open."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from imagecache import exception

# The dynamic loader and qemu-img need these, or a host may configure them.
_READS = ("/etc/ld.so.cache", "/etc/ld.so.preload", "/dev/urandom")
_WRITES = ("/dev/null",)


@dataclasses.dataclass(frozen=True)
class Allowance:
    program: Path               # as the command names it
    runs: tuple[Path, ...]      # to read and execute: itself, its libraries
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]    # to read, write and truncate


def allow(command: str, search: str, reads: Iterable[Path],
          writes: Iterable[Path]) -> Allowance:
    """Return the files that a command can open to work on the given ones.

    :param search: the directories of programs, as in PATH
    :raises CommandNotFound: the program is in none of them
    """
    found = shutil.which(command, path=search)
    if found is None:
        raise exception.CommandNotFound(command=command)
    program = Path(found).absolute()
    return Allowance(program, (program.resolve(), *_libraries(program)),
                     (*map(Path, _READS), *(p.absolute() for p in reads)),
                     (*map(Path, _WRITES), *(p.absolute() for p in writes)))


def _libraries(program: pathlib.Path) -> list[pathlib.Path]:
    """Return the directories of libraries: the system's, the program's."""
    prefixes = {Path("/usr"), Path("/"), program.resolve().parent.parent}
    return [prefix / name for prefix in sorted(prefixes)
            for name in ("lib", "lib64")]
