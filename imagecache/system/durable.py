# SPDX-License-Identifier: Apache-2.0
"""Files that are complete or absent, also after a crash or a power failure.

A new file is staged in the same directory, under a name that no other attempt
uses, and renamed in one step.  Flush the data before the rename: otherwise a
power failure can leave an empty file.  Flush the directory after the rename:
otherwise a power failure can undo it.  Both were seen on ext4 and xfs.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator

from imagecache import exception
from imagecache.system import leases

_PRIVATE = 0o600    # of a file that is not finished


@contextlib.contextmanager
def staged(directory: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Yield a path for a new file; remove the file when the block ends.

    The name has the number of this process.  So clear_staged() can tell the
    file of a killed process from one that is being written.
    """
    path = directory / f".{name}.{os.getpid()}.{secrets.token_hex(6)}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def clear_staged(directory: pathlib.Path, name: str, *,
                 but_alive: bool = False) -> None:
    """Remove the staged files of earlier attempts at ``name``.

    :param but_alive: keep the files of processes that run on this host
    """
    for left in directory.iterdir():
        stem, *attempt = left.name.rsplit(".", 2)
        if stem == f".{name}" and not (
                but_alive and pathlib.Path("/proc", attempt[0]).exists()):
            left.unlink(missing_ok=True)


def fsync_directory(directory: pathlib.Path) -> None:
    """Flush a directory, so that renames in it survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: pathlib.Path, content: bytes,
               mode: int = 0o644) -> None:
    """Replace the file at ``path`` in one step, and flush it."""
    with translated("writing", path), staged(path.parent, path.name) as new:
        clear_staged(path.parent, path.name, but_alive=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as f:
            os.fchmod(f.fileno(), mode)   # the umask has no effect
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.rename(new, path)


def make_directory(path: pathlib.Path, mode: int = 0o755) -> None:
    """Create a directory and its missing parents.

    An existing directory keeps its mode.  The umask has no effect.
    """
    with translated("creating a directory", path):
        if path.is_dir():
            return
        if not path.parent.exists():
            make_directory(path.parent, mode)
        path.mkdir(exist_ok=True)
        path.chmod(mode)


@contextlib.contextmanager
def directory_for(path: pathlib.Path) -> Iterator[None]:
    """Create the directory ``path``; remove it again if the block fails.

    A directory that existed before, or that is not empty, stays.
    """
    new = not path.exists()
    make_directory(path)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):   # it is not empty
                path.rmdir()
        raise


@contextlib.contextmanager
def translated(what: str, path: pathlib.Path) -> Iterator[None]:
    """Translate an OSError of the block into an exception of this library.

    :raises NoSpace: the file system, or a quota on it, is exhausted
    :raises StorageFailed: anything else
    """
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise exception.NoSpace(
                path=path, what=what, needed="more",
                available=available(path)) from e
        raise exception.StorageFailed(
            what=what, path=path, reason=e.strerror or str(e)) from e


def available(path: pathlib.Path) -> int:
    """Return the free bytes of the file system of ``path``.

    The path itself need not exist.
    """
    while not path.exists():
        path = path.parent
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def require_space(directory: pathlib.Path, needed: int, what: str) -> None:
    """Check the free space before a long operation.

    :param needed: bytes
    :raises NoSpace: ``directory`` has fewer bytes free
    """
    free = available(directory)
    if needed > free:
        raise exception.NoSpace(path=directory, what=what, needed=needed,
                                available=free)


def create_file(path: pathlib.Path, mode: int, size: int = 0) -> None:
    """Create a file of zeros, whose mode does not depend on the umask.

    :raises StorageFailed: the name is taken
    """
    with translated("creating a file", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as f:
            os.fchmod(descriptor, mode)
            f.truncate(size)


@contextlib.contextmanager
def flushed(path: pathlib.Path) -> Iterator[int]:
    """Flush an existing file after the programs of the block wrote to it.

    Yield a descriptor of the file.  It is opened before the programs start:
    the kernel reports an error to each descriptor once.  qemu-img 7.2 reports
    success when its last flush failed, and a descriptor that is opened after
    that sees no error.

    :raises StorageFailed: not all that was written is in the file
    """
    with translated("writing", path), path.open("rb") as f:
        yield f.fileno()
        os.fsync(f.fileno())


@contextlib.contextmanager
def written(path: pathlib.Path) -> Iterator[None]:
    """Flush a file like flushed(), and check that no process can change it.

    :raises StorageFailed: another process still has it open for writing
    """
    with flushed(path) as descriptor:
        yield
        leases.require_no_writer(descriptor, path)


@contextlib.contextmanager
def filling(path: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    """Create a file of zeros for the block to fill; then flush it.

    :raises StorageFailed: not all that was written is in the file, its size
        is another, or another process still has it open for writing
    """
    create_file(path, _PRIVATE, size)
    with written(path):
        yield path
    found = path.stat().st_size
    if found != size:
        raise exception.StorageFailed(
            what="writing", path=path,
            reason=f"the file has {found} bytes instead of {size}")


def fsync_file(path: pathlib.Path) -> None:
    """Flush a file that this process wrote, and that no program changed.

    After an error, remove the file: a second flush would report success.
    """
    with translated("flushing", path), path.open("rb") as f:
        os.fsync(f.fileno())


def now() -> str:
    """Return the time for a record: UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
