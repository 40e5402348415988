# SPDX-License-Identifier: Apache-2.0
"""Disks encrypted with LUKS, by qemu-img(1).

qemu-img reads a passphrase from its standard input, which is a pipe.  The
passphrase is on no command line, in no log and in no file.  Each call names
the format of an image, as in tools.qemu_img.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct

from imagecache import exception
from imagecache.encryption import Encryption
from imagecache.formats import qcow2
from imagecache.model import Format, Limits, whole_sectors
from imagecache.system import durable, execute
from imagecache.tools.qemu_img import Progress, most, watching

MAGIC = b"LUKS\xba\xbe"
_HEADER = struct.Struct(">6sH32s32s32sII")
_SECTOR = 512

_SECRET = ("--object", "secret,id=key,file=/dev/stdin")
# The message of qemu if a passphrase opens none of the key slots.
_WRONG_KEY = "Invalid password"
# The message of qemu if the kernel reports 0 for the CPU time of a hash of
# 10 ms, by which qemu measures the host.  It fails early, and rarely twice.
_WITHOUT_A_CLOCK = "Unable to get accurate CPU usage"
_ATTEMPTS = 20


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of an encrypted raw disk."""

    offset: int          # bytes before the encrypted content
    virtual_size: int    # bytes


def read_header(path: pathlib.Path) -> Header:
    """Read the header of a LUKS file or device; no key is needed.

    :raises StorageFailed: the file is missing or cannot be read
    :raises UnsafeDisk: it has no LUKS header of version 1
    """
    with durable.translated("reading a disk", path), path.open("rb") as f:
        start = f.read(_HEADER.size)
        size = f.seek(0, os.SEEK_END)
    if len(start) == _HEADER.size:
        magic, version, _, _, _, sectors, _ = _HEADER.unpack(start)
        offset = sectors * _SECTOR
        if magic == MAGIC and version == 1 and 0 < offset <= size:
            return Header(offset, size - offset)
    raise exception.UnsafeDisk(
        path=path, reason="it is on record as LUKS, but has no LUKS header of"
        " version 1 (rule encryption)", rule="encryption")


def create(path: pathlib.Path, size: int, encryption: Encryption) -> None:
    """Create an encrypted file; until it is written, it reads as noise."""
    _format(path, encryption, "create", "-q", "-f", "luks", *_SECRET,
            "-o", _options("", encryption), _name(path),
            str(whole_sectors(size)))


def create_overlay(path: pathlib.Path, backing: pathlib.Path,
                   backing_format: Format, size: int,
                   cluster_size: int | None, encryption: Encryption) -> None:
    """Create an encrypted qcow2 overlay, without opening its base."""
    options = "encrypt.format=luks," + _options("encrypt.", encryption)
    if cluster_size is not None:
        options += f",cluster_size={cluster_size}"
    _format(path, encryption, "create", "-q", "-f", Format.QCOW2, "-u",
            *_SECRET, "-b", _name(backing), "-F", backing_format,
            "-o", options, _name(path), str(whole_sectors(size)))


def fill(path: pathlib.Path, source: pathlib.Path, source_format: Format,
         encryption: Encryption, *, limits: Limits,
         progress: Progress | None = None) -> None:
    """Write the content of an image into a file made by create().

    Call it within durable.written(); see qemu_img.convert().
    """
    _qemu_img(path, encryption, "convert", "-q", "-n", "-W", "-t", "writeback",
              *_SECRET, "-f", source_format, "--target-image-opts",
              _name(source), _opened(path, Format.RAW),
              limits=limits.writing(path.stat().st_size), reads=[source],
              writes=[path], progress=progress)


def extract(path: pathlib.Path, format: Format, output: pathlib.Path,
            output_format: str, encryption: Encryption, *, limits: Limits,
            backing: pathlib.Path | None = None, compress: bool = False,
            progress: Progress | None = None) -> None:
    """Copy the content of an encrypted disk into an unencrypted file.

    Call it within durable.written(); see qemu_img.convert().
    """
    output.touch()    # the sandbox cannot create files
    # The guest writes to a volume below the host's page cache.
    caching = "none" if path.is_block_device() else "writeback"
    _qemu_img(path, encryption, "convert", "-q", "-c" if compress else "-W",
              "-T", caching, "-t", "writeback", *_SECRET, "--image-opts",
              "-O", output_format, _opened(path, format), _name(output),
              limits=limits, reads=_existing(path, backing), writes=[output],
              progress=progress)


def resize(path: pathlib.Path, size: int, encryption: Encryption, *,
           limits: Limits, backing: pathlib.Path | None) -> None:
    """Resize an encrypted qcow2 image."""
    _qemu_img(path, encryption, "resize", "-q", *_SECRET, "--image-opts",
              _opened(path, Format.QCOW2), str(whole_sectors(size)),
              limits=limits.writing(path.stat().st_size + most(size)),
              reads=_existing(backing), writes=[path])


def rebase(path: pathlib.Path, old: pathlib.Path | None,
           new: pathlib.Path | None, new_format: Format,
           encryption: Encryption, *, limits: Limits) -> None:
    """Give an encrypted qcow2 image another backing file, or none.

    qemu-img first copies the clusters that would read differently.

    :param old: the backing file until now, if there is one
    """
    to = ["-b", ""] if new is None else ["-b", _name(new), "-F", new_format]
    size = qcow2.read_header(path).virtual_size
    _qemu_img(path, encryption, "rebase", "-q", *_SECRET, "--image-opts", *to,
              _opened(path, Format.QCOW2), reads=_existing(old, new),
              writes=[path],
              limits=limits.writing(path.stat().st_size + most(size)))


def _format(path: pathlib.Path, encryption: Encryption,
            *words: str) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            _qemu_img(path, encryption, *words)
            return
        except exception.CommandFailed as e:
            if not left or _WITHOUT_A_CLOCK not in e.message:
                raise


def _qemu_img(path: pathlib.Path, encryption: Encryption, *words: str,
              limits: Limits | None = None,
              reads: list[pathlib.Path] | None = None,
              writes: list[pathlib.Path] | None = None,
              progress: Progress | None = None) -> None:
    """:raises WrongKey: the passphrase opens none of the key slots"""
    try:
        with watching(progress) as started:
            execute.run("qemu-img", *words, limits=limits or Limits(),
                        reads=reads or (), writes=writes or (),
                        secret=encryption.passphrase, started=started)
    except exception.CommandFailed as e:
        if _WRONG_KEY in e.message:
            raise exception.WrongKey(location=path) from e
        raise


def _options(prefix: str, encryption: Encryption) -> str:
    return ",".join(prefix + option for option in (
        "key-secret=key", f"cipher-alg=aes-{encryption.key_size // 2}",
        "cipher-mode=xts", "ivgen-alg=plain64", "hash-alg=sha256",
        f"iter-time={encryption.iter_time}"))


def _opened(path: pathlib.Path, format: Format) -> str:
    """Return the options with which qemu opens an encrypted file."""
    how = "driver=luks,key-secret=key" if format is Format.RAW \
        else f"driver={format},encrypt.format=luks,encrypt.key-secret=key"
    name = _name(path).replace(",", ",,")
    what = "host_device" if path.is_block_device() else "file"
    return f"{how},file.driver={what},file.filename={name}"


def _name(path: pathlib.Path) -> str:
    return str(path.absolute())


def _existing(*paths: pathlib.Path | None) -> list[pathlib.Path]:
    return [path for path in paths if path is not None]
