# SPDX-License-Identifier: Apache-2.0
"""Fetch one image in a process of its own, and print what memory it took.

    python -m benchmarks.fetch_once INSTANCES_PATH IMAGE

Prints a JSON object, in bytes: ``before``, what the process held before it
began; ``peak``, the most it held, by the kernel's own count (VmHWM);
``child``, the most that a program it started held, looked at every 10 ms.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import threading
import time
from collections.abc import Iterator

import imagecache
from benchmarks.scratch import configuration

_PROC = pathlib.Path("/proc")


def main() -> None:
    instances, image = sys.argv[1:]
    cache = imagecache.ImageCache(configuration(pathlib.Path(instances)))
    before = held("self", "VmRSS")
    start = time.perf_counter()
    with watched_children() as seen:
        cache.fetch(image)
    print(json.dumps({
        "before": before, "peak": held("self", "VmHWM"),
        "child": max(seen), "seconds": time.perf_counter() - start}))


def held(process: str, kind: str) -> int:
    """Return the bytes of memory a process holds; 0 if it has ended.

    :param kind: VmRSS for now, VmHWM for the most since it began
    """
    with contextlib.suppress(OSError):
        for line in (_PROC / process / "status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def watched_children() -> Iterator[list[int]]:
    """Yield a list whose one number is the most that a child held."""
    most = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for child in _children():
                most[0] = max(most[0], held(child, "VmHWM"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def _children() -> Iterator[str]:
    for task in (_PROC / "self" / "task").iterdir():
        with contextlib.suppress(OSError):    # the thread has ended
            yield from (task / "children").read_text().split()


if __name__ == "__main__":
    main()
