# SPDX-License-Identifier: Apache-2.0
"""Images that are files on this host."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import NoReturn

from imagecache import exception
from imagecache.model import Description, MiB
from imagecache.sources import Stream, resolve

# File systems whose files the kernel generates.  Such a file counts as
# regular, but its size is wrong, and reading it can have effects.
_PSEUDO = frozenset({
    "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs",
    "devpts", "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore",
    "securityfs", "selinuxfs", "sysfs", "tracefs"})
_MOUNTS = pathlib.Path("/proc/self/mountinfo")
_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe",
          stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a block device",
          stat.S_IFCHR: "a character device"}


class FileStore:
    """Regular files, by path or file:// URL.

    Without a digest, the identity of an image is its path, inode, size and
    modification time: a file that is replaced or written to is a new image.
    """

    def describe(self, ref: str) -> Description:
        """Return the metadata of a file.  Its ``ref`` is the real path.

        :raises InvalidImageRef: it is no regular, stored file on this host
        :raises ImageNotFound: there is no such file
        :raises Forbidden: this process may not read it
        :raises StorageFailed: it cannot be opened
        """
        path, digest = resolve.file_path(ref)
        with _opened(path) as fd:
            status = os.fstat(fd)
        version = _version(status)
        return Description(
            ref=str(path),
            identity=f"{path.as_uri()}#{digest or version}",
            size=status.st_size,
            disk_format=resolve.claimed_format(path.name),
            digest=digest,
            version=version)

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        """Open the bytes of a file that describe() returned.

        Raises the errors of describe(), and here or while the chunks are
        read:

        :raises ImageSizeMismatch: the file grew or shrank
        :raises ImageUnacceptable: it was written to, or is another file
        """
        with _opened(pathlib.Path(image.ref)) as fd:
            _require_unchanged(fd, image)
            os.lseek(fd, offset, os.SEEK_SET)
            yield Stream(offset, _chunks(fd, image))


def _chunks(fd: int, image: Description) -> Iterator[bytes]:
    while chunk := _read(fd, image):
        yield chunk
    _require_unchanged(fd, image)


def _read(fd: int, image: Description) -> bytes:
    try:
        return os.read(fd, MiB)
    except OSError as e:
        _refuse(e, image.ref)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[int]:
    """Yield the descriptor of a regular file."""
    try:
        # Checked before opening, because opening some devices has effects,
        # and again afterwards, because the file can be replaced in between.
        _require_regular(path.stat(), path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as e:
        _refuse(e, str(path))
    try:
        status = os.fstat(fd)
        _require_regular(status, path)
        _require_stored(status, path)
        yield fd
    finally:
        os.close(fd)


def _require_regular(status: os.stat_result, path: pathlib.Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise exception.InvalidImageRef(
            image_ref=str(path),
            reason=f"it is {kind}, and only a regular file can be an image")


def _require_stored(status: os.stat_result, path: pathlib.Path) -> None:
    """Refuse a file that the kernel generates; it has no blocks."""
    if status.st_blocks == 0 and _file_system(status.st_dev) in _PSEUDO:
        raise exception.InvalidImageRef(
            image_ref=str(path), reason="it is a file that the kernel"
            " generates, and only a stored file can be an image")


def _file_system(device: int) -> str | None:
    """Return the kind of a mounted file system; None if that is unknown."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:   # without /proc
        return None
    for mount in mounts:
        fields, _, kind = mount.partition(" - ")
        if fields.split()[2] == number:
            return kind.partition(" ")[0]
    return None


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _require_unchanged(fd: int, image: Description) -> None:
    status = os.fstat(fd)
    if _version(status) == image.version:
        return
    if status.st_size != image.size:
        raise exception.ImageSizeMismatch(
            f"The file {image.ref} had {image.size} bytes when it was"
            f" described and has {status.st_size} now",
            image_id=image.ref, expected=image.size, actual=status.st_size)
    raise exception.ImageUnacceptable(
        image_id=image.ref, reason="the file was changed or replaced while"
        " it was in use; try again when no program writes to it")


def _refuse(error: OSError, path: str) -> NoReturn:
    reason = os.strerror(error.errno or 0)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            raise exception.ImageNotFound(image_id=path) from error
        case errno.EACCES | errno.EPERM:
            raise exception.Forbidden(
                image_id=path, reason=f"the user with id {os.geteuid()} may"
                " not read the file") from error
        case errno.ELOOP | errno.ENAMETOOLONG | errno.ENXIO:
            raise exception.InvalidImageRef(
                image_ref=path, reason=reason) from error
    raise exception.StorageFailed(
        what="reading an image", path=path, reason=reason) from error
