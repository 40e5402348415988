# SPDX-License-Identifier: Apache-2.0
"""qemu-img(1): one function for each subcommand this library needs.

Each call names the format of an image.  If qemu-img probed the format, a guest
could write an image header to its raw disk and read files of the host.  A
function that reads a tenant's data takes limits.  If these have a sandbox,
qemu-img can open the files of its arguments, and no file that an image names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

from imagecache import exception
from imagecache.formats import qcow2
from imagecache.model import (
    Format,
    Limits,
    MiB,
    NbdExport,
    Output,
    whole_sectors,
)
from imagecache.system import execute

Progress = Callable[[int], None]   # bytes read so far


def info(path: pathlib.Path, format: Format, *,
         limits: Limits) -> dict[str, Any]:
    """Return the facts that qemu-img reports of an image alone."""
    found: dict[str, Any] = json.loads(execute.run(
        "qemu-img", "info", "--force-share", "--output=json",
        "-f", format, _name(path), limits=limits.writing(0), reads=[path]))
    return found


def measure(size: int, out_format: Format,
            cluster_size: int | None = None) -> int:
    """Return the bytes of a fully allocated image, with its metadata.

    :param size: bytes a guest would see
    """
    options = [] if cluster_size is None else [
        "-o", f"cluster_size={cluster_size}"]
    found = json.loads(execute.run(
        "qemu-img", "measure", "--output=json", "-O", out_format, *options,
        "--size", str(size)))
    return int(found["fully-allocated"])


def required(path: pathlib.Path, format: Format, out_format: Format, *,
             limits: Limits) -> int:
    """Return the bytes that a copy of an image in another format needs.

    For raw output, this is the virtual size; holes are not subtracted.
    """
    found = json.loads(execute.run(
        "qemu-img", "measure", "--force-share", "--output=json",
        "-f", format, "-O", out_format, _name(path),
        limits=limits.writing(0), reads=[path]))
    return int(found["required"])


def most(size: int) -> int:
    """Return an upper bound of the bytes of an image with its tables.

    :param size: bytes a guest would see
    """
    # With the smallest clusters, the tables have 1/32 of the size of the data.
    return size + size // 16 + 64 * MiB


def convert(source: pathlib.Path, source_format: Format,
            output: Output, output_format: str, *,
            limits: Limits, backing: pathlib.Path | None = None,
            into_zeros: bool = False, compress: bool = False,
            progress: Progress | None = None) -> None:
    """Copy an image into another format.

    qemu-img 7.2 reports success although its last flush failed.  Call it
    within durable.filling() or durable.written(), which detect that.

    :param backing: the source's backing file, if it has one
    :param into_zeros: the output exists, has its size, and reads as zeros
    """
    if isinstance(output, NbdExport):
        _convert_over(output, source, source_format, limits, progress)
        return
    output.touch()    # the sandbox cannot create files
    flags = ["-n", "--target-is-zero"] if into_zeros else []
    if output.is_block_device() and not into_zeros:
        flags.append("-n")
    if compress:
        flags.append("-c")
    else:
        flags.append("-W")      # write clusters in any order
    with watching(progress) as started:
        execute.run("qemu-img", "convert", "-q", *flags,
                    "-T", _caching(source), "-t", _caching(output),
                    "-f", source_format, "-O", output_format,
                    _name(source), _name(output), limits=limits,
                    reads=_existing(source, backing), writes=[output],
                    started=started)


def convert_remote(source: Mapping[str, str], output: pathlib.Path,
                   output_format: str, *, limits: Limits,
                   compress: bool = False) -> None:
    """Copy a raw device that a network driver of qemu reads.

    There is no sandbox: qemu-img does not parse raw data, and the driver needs
    the network and the agent's environment.

    :param source: the driver and its options, without secrets
    """
    name = {"driver": "raw", "file": source}
    execute.run("qemu-img", "convert", "-q", "-c" if compress else "-W",
                "-t", "writeback", "-f", Format.RAW, "-O", output_format,
                f"json:{json.dumps(name)}", _name(output),
                limits=dataclasses.replace(limits, sandbox=None))


def _convert_over(output: NbdExport, source: pathlib.Path,
                  source_format: Format, limits: Limits,
                  progress: Progress | None) -> None:
    """Write an image as raw to an NBD export that reads as zeros."""
    with watching(progress) as started:
        execute.run("qemu-img", "convert", "-q", "-n", "--target-is-zero",
                    "-W", "-t", "writeback", "-f", source_format,
                    "-O", Format.RAW, _name(source), output.name,
                    limits=limits, reads=[source],
                    stdin=output.client.fileno(), started=started)


def is_sound(path: pathlib.Path, format: Format, size: int, *,
             limits: Limits, check: bool = True, read: bool = True) -> bool:
    """Tell whether an image's tables are valid and all its data readable.

    :param size: bytes a guest would see
    :param check: check the tables
    :param read: read all data
    :raises CommandFailed: qemu-img was killed, or reached a limit
    """
    nothing = f"driver=null-co,size={whole_sectors(size)}"
    limits = limits.writing(0)
    try:
        if check:
            # 3: clusters are lost; 63: it cannot check this format.
            execute.run("qemu-img", "check", "-q", "--force-share",
                        "-f", format, _name(path), limits=limits,
                        reads=[path], exit_codes=(0, 3, 63))
        if read:
            execute.run("qemu-img", "convert", "-q", "--force-share", "-n",
                        "--target-image-opts", "-f", format, _name(path),
                        nothing, limits=limits, reads=[path])
    except exception.CommandFailed as e:
        if not gave_up(e):
            raise
        return False
    return True


def first_bytes(path: pathlib.Path, format: Format, size: int,
                output: pathlib.Path, *, limits: Limits) -> bytes:
    """Return how the content of an image begins.

    :param size: bytes, in whole sectors
    :param output: a file for them, which the caller removes
    """
    start = {"driver": "raw", "size": size, "file": {
        "driver": format, "file": {
            "driver": "file", "filename": _name(path)}}}
    output.touch()    # the sandbox cannot create files
    execute.run("qemu-img", "convert", "-q", "--force-share",
                "-f", Format.RAW, "-O", Format.RAW,
                f"json:{json.dumps(start)}", _name(output),
                limits=limits.writing(size), reads=[path], writes=[output])
    return output.read_bytes()


def gave_up(error: exception.CommandFailed) -> bool:
    """Tell whether qemu-img itself reported the failure.

    Otherwise it was killed, was too slow, or reached a limit.
    """
    return error.facts.get("exit_code") in (1, 2) \
        and not error.facts.get("limit")


def create(path: pathlib.Path, format: Format, size: int) -> None:
    execute.run("qemu-img", "create", "-q", "-f", format, _name(path),
                str(size))


def create_overlay(path: pathlib.Path, backing: pathlib.Path,
                   backing_format: Format, size: int,
                   cluster_size: int | None = None) -> None:
    """Create a qcow2 overlay, without opening its base."""
    options = [] if cluster_size is None else [
        "-o", f"cluster_size={cluster_size}"]
    execute.run("qemu-img", "create", "-q", "-f", Format.QCOW2, "-u",
                "-b", _name(backing), "-F", backing_format, *options,
                _name(path), str(size))


def resize(path: pathlib.Path, format: Format, size: int, *,
           limits: Limits, backing: pathlib.Path | None = None) -> None:
    """Resize an image to ``size`` bytes, rounded up to whole sectors.

    :param backing: the image's backing file, if it has one
    """
    execute.run("qemu-img", "resize", "-q", "-f", format, _name(path),
                str(whole_sectors(size)), reads=_existing(backing),
                writes=[path],
                limits=limits.writing(path.stat().st_size + most(size)))


def rebase(path: pathlib.Path, old: pathlib.Path | None,
           new: pathlib.Path | None, new_format: Format, *,
           limits: Limits) -> None:
    """Give a qcow2 image another backing file, or none.

    qemu-img first copies the clusters that would read differently.

    :param old: the backing file until now, if there is one
    """
    to = ["-b", ""] if new is None else ["-b", _name(new), "-F", new_format]
    size = qcow2.read_header(path).virtual_size
    execute.run("qemu-img", "rebase", "-q", "-f", Format.QCOW2, *to,
                _name(path), reads=_existing(old, new), writes=[path],
                limits=limits.writing(path.stat().st_size + most(size)))


def _caching(path: pathlib.Path) -> str:
    # Each byte of a device is copied once.  In the page cache it would only
    # replace data that other programs use.
    return "none" if path.is_block_device() else "writeback"


def _name(path: pathlib.Path) -> str:
    # qemu takes a relative name with a colon for a protocol.
    return str(path.absolute())


def _existing(*paths: pathlib.Path | None) -> list[pathlib.Path]:
    return [path for path in paths if path is not None]


@contextlib.contextmanager
def watching(progress: Progress | None
              ) -> Iterator[execute.Started | None]:
    """Report, four times a second, how many bytes a program has read.

    If ``progress`` raises an error, the program is ended, and the error leaves
    the block.
    """
    if progress is None:
        yield None
        return
    done = threading.Event()
    watchers: list[futures.Future[None]] = []
    with futures.ThreadPoolExecutor(1) as pool:
        try:
            yield lambda running: watchers.append(
                pool.submit(_watch, running, progress, done))
        finally:
            done.set()
            for watcher in watchers:
                watcher.result()


def _watch(running: execute.Running, progress: Progress,
           done: threading.Event) -> None:
    while not done.wait(0.25):
        try:
            read = _read_by(running.process.pid)
        except OSError:
            continue    # the process has just ended
        try:
            progress(read)
        except BaseException:
            running.end()
            raise


def _read_by(pid: int) -> int:
    """Return the bytes that a process and its children have read."""
    process = pathlib.Path(f"/proc/{pid}")
    fields = (process / "io").read_text().split()    # rchar: N ...
    children = (process / f"task/{pid}/children").read_text().split()
    return int(fields[1]) + sum(_read_by(int(each)) for each in children)
