# SPDX-License-Identifier: Apache-2.0
"""The files that a program in a sandbox can open; there are no others."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from imagecache import exception

# What the loader and qemu-img do not start without, or may be told to read.
_READS = ("/etc/ld.so.cache", "/etc/ld.so.preload", "/dev/urandom")
_WRITES = ("/dev/null",)


@dataclasses.dataclass(frozen=True)
class Allowance:
    program: Path               # as it is called
    runs: tuple[Path, ...]      # and reads: itself, and libraries
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]    # and reads, and changes the length of


def allow(command: str, search: str, reads: Iterable[Path],
          writes: Iterable[Path]) -> Allowance:
    """Return what a command can open that is to work on these files.

    :param search: the directories of programs, as in PATH
    :raises CommandNotFound: it is in none of them
    """
    found = shutil.which(command, path=search)
    if found is None:
        raise exception.CommandNotFound(command=command)
    program = Path(found).absolute()
    return Allowance(program, (program.resolve(), *_libraries(program)),
                     (*map(Path, _READS), *(p.absolute() for p in reads)),
                     (*map(Path, _WRITES), *(p.absolute() for p in writes)))


def _libraries(program: pathlib.Path) -> list[pathlib.Path]:
    """Those of the system, and those beside a program that is not of it."""
    prefixes = {Path("/usr"), Path("/"), program.resolve().parent.parent}
    return [prefix / name for prefix in sorted(prefixes)
            for name in ("lib", "lib64")]
