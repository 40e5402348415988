# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks, and print their results as tables."""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import platform
import signal
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

from benchmarks import file_disk, harness, lvm, options, rbd
from benchmarks.harness import Result
from benchmarks.scratch import Scratch, command
from imagecache.model import GiB

BENCHMARKS: Mapping[str, Callable[[Scratch], Iterator[Result]]] = {
    "warm-disk": file_disk.warm,
    "cold-disk": file_disk.cold,
    "options": options.results,
    "rbd": rbd.results,
    "lvm": lvm.results,    # not run by default: it needs a whole disk
}
DEFAULT = [name for name in BENCHMARKS if name != "lvm"]


def main() -> None:
    arguments = _arguments()
    # Handle SIGTERM like Ctrl-C, so that all files and mounts are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[Result] = []
    with Scratch(arguments.directory) as scratch:
        machine = _machine(scratch.root)
        print(f"{harness.head(machine)}\n\n{harness.READING}", flush=True)
        for name in arguments.names:
            found = []
            for result in BENCHMARKS[name](scratch):
                print(f"\n{harness.table(result)}", flush=True)
                found.append(result)
            results += found
            if any(result.chart for result in found):
                harness.keep(arguments.measurements / f"{name}.json", machine,
                             found)
    print(f"\n{harness.verdicts(results)}")
    if arguments.json:
        harness.write(arguments.json, machine, results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure imagecache beside"
        " bare qemu-img and beside nova.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    option = parser.add_argument
    option("names", nargs="*", metavar="NAME", choices=[*BENCHMARKS, DEFAULT],
           default=DEFAULT, help=f"of {', '.join(BENCHMARKS)}")
    # The default is not /tmp, which may be in memory.
    option("--directory", type=pathlib.Path, default="/var/tmp",
           help="where to measure; needs 14 GiB for a while")
    option("--json", type=pathlib.Path, metavar="FILE",
           help="also write all results to this file")
    option("--measurements", type=pathlib.Path, metavar="DIR",
           default=harness.RECORDS,
           help="directory of the tables that the manual shows")
    return parser.parse_args()


def _machine(directory: pathlib.Path) -> dict[str, str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    processor = next((
        line.partition(":")[2].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")), platform.machine())
    kind = command("df", "--output=fstype", directory).split()[-1]
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(
            timespec="seconds"),
        "imagecache": metadata.version("imagecache"),
        "qemu-img": command("qemu-img", "--version").split()[2],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} of {processor}, load"
                      f" {os.getloadavg()[0]:.2f} before",
        "memory": f"{memory / GiB:.0f} GiB",
        "directory": f"{directory}, on {kind}",
    }


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Interrupted; all files were removed.") from None
