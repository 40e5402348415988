# SPDX-License-Identifier: Apache-2.0
"""Measure, and say what was found."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

from benchmarks import (
    cold_disk,
    fetch_memory,
    lvm,
    measurements,
    options,
    rbd,
    report,
    timing,
    warm_disk,
)
from benchmarks.report import Result
from benchmarks.scratch import Scratch
from imagecache.model import GiB

BENCHMARKS: Mapping[str, Callable[[Scratch], Iterator[Result]]] = {
    "warm-disk": warm_disk.results,
    "cold-disk": cold_disk.results,
    "fetch-memory": fetch_memory.results,
    "options": options.results,
    "rbd": rbd.results,
    "lvm": lvm.results,
}
# What is not run unless it is asked for: it takes a whole disk.
BY_NAME = {"lvm"}


def main() -> None:
    arguments = _arguments()
    # As Ctrl-C does, so that everything is cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[Result] = []
    with Scratch(arguments.directory) as scratch:
        machine = _machine(scratch)
        for name, value in machine.items():
            print(f"{name:12}{value}")
        print(f"\n{timing.READING}", flush=True)
        for name in arguments.names:
            found = []
            for result in BENCHMARKS[name](scratch):
                print(f"\n{report.table(result)}", flush=True)
                found.append(result)
            results += found
            if any(result.chart for result in found):
                measurements.keep(arguments.measurements, name, machine,
                                  found)
    print(f"\n{report.verdicts(results)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "machine": machine,
            "results": [each.as_json() for each in results]}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure imagecache beside"
        " bare qemu-img and beside nova.")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        type=_name,
                        default=[each for each in BENCHMARKS
                                 if each not in BY_NAME],
                        help=f"what to measure: {', '.join(BENCHMARKS)}"
                        f" (default: all but {', '.join(BY_NAME)})")
    # Not the directory for temporary files: that may be in memory.
    parser.add_argument("--directory", type=pathlib.Path,
                        default=pathlib.Path("/var/tmp"),
                        help="where to measure; needs 14 GiB for a while"
                        " (default: %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE",
                        help="also write everything to this file")
    parser.add_argument("--measurements", type=pathlib.Path, metavar="DIR",
                        default=measurements.DIRECTORY,
                        help="where what the manual shows is kept: tables and"
                        " drawings (default: %(default)s)")
    return parser.parse_args()


def _name(word: str) -> str:
    if word not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"there is no benchmark {word!r}")
    return word


def _machine(scratch: Scratch) -> dict[str, str]:
    qemu = subprocess.run(["qemu-img", "--version"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(
            timespec="seconds"),
        "imagecache": metadata.version("imagecache"),
        "qemu-img": qemu.split()[2],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} of {_processor()}, load"
                      f" {os.getloadavg()[0]:.2f} before",
        "memory": f"{memory / GiB:.0f} GiB",
        "directory": f"{scratch.root}, on {scratch.file_system}",
    }


def _processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Interrupted; nothing is left behind.") from None
