# SPDX-License-Identifier: Apache-2.0
"""qemu-img(1): one function for each subcommand this library needs.

No function guesses a format: guessing is how a guest that writes an image
header to its disk reaches the files of its host.  Whatever reads bytes that
a tenant chose runs under limits.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

from imagecache import execute
from imagecache.model import Format, Limits, whole_sectors

Progress = Callable[[int], None]   # bytes read so far


def info(path: pathlib.Path, format: Format, *,
         limits: Limits) -> dict[str, Any]:
    """Return what qemu-img says of an image, without its backing chain."""
    found: dict[str, Any] = json.loads(execute.run(
        "qemu-img", "info", "--force-share", "--output=json",
        "-f", format, str(path), limits=limits))
    return found


def measure(size: int, out_format: Format) -> int:
    """Return the bytes a full image of ``size`` takes, with its metadata."""
    found = json.loads(execute.run(
        "qemu-img", "measure", "--output=json", "-O", out_format,
        "--size", str(size)))
    return int(found["fully-allocated"])


def required(path: pathlib.Path, format: Format, out_format: Format, *,
             limits: Limits) -> int:
    """Return the bytes a conversion of this image will write."""
    found = json.loads(execute.run(
        "qemu-img", "measure", "--force-share", "--output=json",
        "-f", format, "-O", out_format, str(path), limits=limits))
    return int(found["required"])


def convert(source: pathlib.Path, source_format: Format,
            output: pathlib.Path, output_format: str, *,
            limits: Limits, into_zeros: bool = False, compress: bool = False,
            progress: Progress | None = None) -> None:
    """Copy an image into another format.

    qemu-img 7.2 reports success although the final flush of a raw output
    failed; the caller must fsync a descriptor of its own, opened before.

    :param into_zeros: the output exists, has its size, and reads as zeros
    """
    flags = ["-n", "--target-is-zero"] if into_zeros else []
    if compress:
        flags.append("-c")
    else:
        flags.append("-W")      # clusters may be written in any order
    with _watching(progress) as started:
        execute.run("qemu-img", "convert", "-q", *flags, "-t", "writeback",
                    "-f", source_format, "-O", output_format,
                    str(source), str(output), limits=limits, started=started)


def create(path: pathlib.Path, format: Format, size: int) -> None:
    execute.run("qemu-img", "create", "-q", "-f", format, str(path),
                str(size))


def create_overlay(path: pathlib.Path, backing: pathlib.Path,
                   backing_format: Format, size: int,
                   cluster_size: int | None = None) -> None:
    """Create a qcow2 overlay, without opening what it is based on."""
    options = [] if cluster_size is None else [
        "-o", f"cluster_size={cluster_size}"]
    execute.run("qemu-img", "create", "-q", "-f", Format.QCOW2, "-u",
                "-b", str(backing), "-F", backing_format, *options,
                str(path), str(size))


def resize(path: pathlib.Path, format: Format, size: int, *,
           limits: Limits) -> None:
    """Resize to ``size``, rounded up to sectors: it refuses other sizes."""
    execute.run("qemu-img", "resize", "-q", "-f", format, str(path),
                str(whole_sectors(size)), limits=limits)


def rebase(path: pathlib.Path, backing: pathlib.Path | None,
           backing_format: Format, *, limits: Limits) -> None:
    """Give a qcow2 image another backing file, or none.

    What would read differently is copied into the image first.
    """
    new = ["-b", ""] if backing is None else [
        "-b", str(backing), "-F", backing_format]
    execute.run("qemu-img", "rebase", "-q", "-f", Format.QCOW2, *new,
                str(path), limits=limits)


@contextlib.contextmanager
def _watching(progress: Progress | None
              ) -> Iterator[execute.Started | None]:
    """Report, four times a second, how many bytes a process has read.

    A listener that raises ends the process, and its error the block.
    """
    if progress is None:
        yield None
        return
    done = threading.Event()
    watchers: list[futures.Future[None]] = []
    with futures.ThreadPoolExecutor(1) as pool:
        try:
            yield lambda process: watchers.append(
                pool.submit(_watch, process, progress, done))
        finally:
            done.set()
            for watcher in watchers:
                watcher.result()


def _watch(process: Any, progress: Progress,
           done: threading.Event) -> None:
    counters = pathlib.Path(f"/proc/{process.pid}/io")
    while not done.wait(0.25):
        try:
            fields = counters.read_text().split()   # rchar: N
        except OSError:
            continue    # it has just ended
        try:
            progress(int(fields[1]))
        except BaseException:
            process.kill()
            raise
