# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, also after a crash or a power failure.

What is to appear under a name is staged beside it, under a name no other
attempt ever uses, and moved there in one step.  A rename without an fsync of
the data can publish an empty file, and one without an fsync of the directory
may not have happened: both were seen on ext4 and xfs.
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
    """Yield a path in ``directory`` that is gone when the block ends.

    The name says which attempt it is of, so that what a killed process left
    can be told from what is being written now.
    """
    path = directory / f".{name}.{os.getpid()}.{secrets.token_hex(6)}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def clear_staged(directory: pathlib.Path, name: str, *,
                 but_alive: bool = False) -> None:
    """Remove what attempts at ``name`` left.

    :param but_alive: keep those of processes that run on this host
    """
    for left in directory.iterdir():
        stem, *attempt = left.name.rsplit(".", 2)
        if stem == f".{name}" and not (
                but_alive and pathlib.Path("/proc", attempt[0]).exists()):
            left.unlink(missing_ok=True)


def fsync_directory(directory: pathlib.Path) -> None:
    """Make the names in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: pathlib.Path, content: bytes,
               mode: int = 0o644) -> None:
    """Replace the file at ``path``, in one step."""
    with translated("writing", path), staged(path.parent, path.name) as new:
        clear_staged(path.parent, path.name, but_alive=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as f:
            os.fchmod(f.fileno(), mode)   # whatever the umask
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.rename(new, path)


def make_directory(path: pathlib.Path, mode: int = 0o755) -> None:
    """Create ``path`` and what is missing above it, whatever the umask."""
    with translated("creating a directory", path):
        if path.is_dir():
            return
        if not path.parent.exists():
            make_directory(path.parent, mode)
        path.mkdir(exist_ok=True)
        path.chmod(mode)


@contextlib.contextmanager
def directory_for(path: pathlib.Path) -> Iterator[None]:
    """Have the directory ``path``; take a new one back if the block fails."""
    new = not path.exists()
    make_directory(path)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):   # another put something in
                path.rmdir()
        raise


@contextlib.contextmanager
def translated(what: str, path: pathlib.Path) -> Iterator[None]:
    """Turn an OSError of the block into an error that says who must act.

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
    """Bytes that may still be written to the file system of ``path``."""
    while not path.exists():
        path = path.parent
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def require_space(directory: pathlib.Path, needed: int, what: str) -> None:
    """Refuse at once what could not be finished.

    :raises NoSpace: ``directory`` cannot take ``needed`` bytes more
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
    """Flush what the programs of the block wrote to an existing file.

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
    """Flush a file like flushed(); then no process can change it any more.

    :raises StorageFailed: another process still has it open for writing
    """
    with flushed(path) as descriptor:
        yield
        leases.require_no_writer(descriptor, path)


@contextlib.contextmanager
def filling(path: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    """Yield a new file of zeros, which the block fills; then flush it.

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
    """Make a file's data survive a power failure.

    The kernel reports an error once: after one, remove the file.
    """
    with translated("flushing", path), path.open("rb") as f:
        os.fsync(f.fileno())


def now() -> str:
    """The time for a record: UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
