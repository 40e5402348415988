# SPDX-License-Identifier: Apache-2.0
"""The memory that fetching an image takes, small or large.

``python -m benchmarks.fetch_memory INSTANCES_PATH IMAGE`` fetches one image in
a process of its own and prints, in bytes: ``before``, the memory of the
process before it began; ``peak``, its most; ``child``, the most of a program
that it started, read every 10 ms.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator

import imagecache
from benchmarks.harness import Bar, Result, Row
from benchmarks.scratch import Scratch, command, configuration
from imagecache.model import GiB, MiB

SIZES = (64 * MiB, 4 * GiB)


def results(scratch: Scratch) -> Iterator[Result]:
    rows = []
    with served(scratch.root) as address:
        for disk_format, place, meaning in (
                ("raw", address, "from a web server: downloaded, written"),
                ("qcow2", scratch.root, "a file: copied, converted")):
            for size in SIZES:
                image = _full(scratch.new("full"), disk_format, size)
                rows.append(_row(f"{disk_format}, {size // MiB} MiB", meaning,
                                 size, scratch, f"{place}/{image}"))
    growth = [row.values["growth MiB"] for row in rows]
    both = [row.values["growth MiB"] + row.values["child MiB"] for row in rows]
    yield Result("Memory of a cold fetch", rows, [
        Bar("cold fetch: MiB that its process grows by", max(growth), 64),
        Bar("cold fetch: MiB with those of qemu-img", max(both), 64),
    ], ["growth: the most the process held, less its memory before it began"
        " to fetch.  child: the most that a program it started held: qemu-img,"
        " if there is something to convert."])


def _row(name: str, meaning: str, size: int, scratch: Scratch,
         image: str) -> Row:
    """Fetch an image in a new process; return its memory."""
    instances = scratch.directory("fetch")
    found = json.loads(command(sys.executable, "-m", "benchmarks.fetch_memory",
                               instances, image))
    shutil.rmtree(instances)
    return Row(name, meaning, {
        "before MiB": found["before"] / MiB,
        "peak MiB": found["peak"] / MiB,
        "growth MiB": (found["peak"] - found["before"]) / MiB,
        "child MiB": found["child"] / MiB,
        "took s": found["seconds"],
        "MiB/s ": size / MiB / found["seconds"],
    }, [found["seconds"]])


def _full(image: pathlib.Path, disk_format: str, size: int) -> str:
    """Make an image full of data, none of it zero; return its name."""
    writes = [word for start in range(0, size, GiB) for word in
              ("-c", f"write -q -P 85 {start} {min(GiB, size - start)}")]
    command("qemu-img", "create", "-q", "-f", disk_format, image, str(size))
    command("qemu-io", "-f", disk_format, *writes, image)
    return image.name


class _Quiet(http.server.SimpleHTTPRequestHandler):

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def served(directory: pathlib.Path) -> Iterator[str]:
    """Yield the address of a web server with the files of a directory."""
    with http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(
                _Quiet, directory=directory)) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def main() -> None:
    instances, image = sys.argv[1:]
    cache = imagecache.ImageCache(configuration(pathlib.Path(instances)))
    before, start = held("self", "VmRSS"), time.perf_counter()
    with watched_children() as most:
        cache.fetch(image)
    print(json.dumps({
        "before": before, "peak": held("self", "VmHWM"), "child": most[0],
        "seconds": time.perf_counter() - start}))


def held(process: str, kind: str) -> int:
    """Return the bytes of memory a process holds; 0 if it has ended.

    :param kind: VmRSS for now, VmHWM for the most since it began
    """
    with contextlib.suppress(OSError):
        for line in pathlib.Path(
                f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def watched_children() -> Iterator[list[int]]:
    """Yield a list of one number: the most memory that a child held."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for task in pathlib.Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):    # the thread has ended
                    for child in (task / "children").read_text().split():
                        most[0] = max(most[0], held(child, "VmHWM"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    main()
