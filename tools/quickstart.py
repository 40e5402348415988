# SPDX-License-Identifier: Apache-2.0
"""Make two instances' disks of one image, boot one; say what each step took.

Times are of the wall clock.  Space is what the file system has allocated.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time
import uuid

from oslo_config import cfg

import imagecache
from imagecache import exception, opts
from imagecache.backends import Disk
from imagecache.events import Event
from imagecache.model import GiB, KiB, MiB

TOP = pathlib.Path(__file__).resolve().parents[1]
TOOLS = TOP / "tools"
WORK = TOP / ".quickstart"
GUEST = WORK / "guest"
INSTANCES = WORK / "instances"

# As heavy as a common cloud image.  Beside the 3 MB that this guest needs to
# boot, no cache could show what it is good for.
IMAGE_SIZE, PAYLOAD = 2 * GiB, GiB
DISK_SIZE = 20 * GiB

# What each event says is done.
DONE = {
    "verified": "copy the image, and take its digest",
    "validated": "validate its content",
    "convert": "convert it to raw",
    "committed": "commit it to the cache",
    "hit": "find the image in the cache",
    "created": "make the disk: an overlay on the cached image",
}


class Clock:
    """An observer that prints each step, and what it took."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.started = self._last = time.perf_counter()
        self._converted: float | None = None

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if event.name == "convert":
            self._converted = now    # told often, and ended by what follows
        elif event.name in DONE:
            if self._converted is not None:
                self._tell("convert", self._converted)
                self._converted = None
            self._tell(event.name, now)

    def _tell(self, step: str, now: float) -> None:
        line(DONE[step], now - self._last)
        self._last = now


def main() -> int:
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__)
    parser.add_argument("--image", metavar="REF",
                        help="a path or a URL; by default one is made")
    given: str | None = parser.parse_args().image
    shutil.rmtree(INSTANCES, ignore_errors=True)
    try:
        return run(given)
    except exception.ImageCacheError as e:
        print(f"\n{e.format_message()}", file=sys.stderr)
    except subprocess.CalledProcessError as e:
        print(f"\n{e}", file=sys.stderr)
    return 1


def run(given: str | None) -> int:
    image = given or make_image()
    clock = Clock()
    cache = imagecache.ImageCache(configuration(), observe=clock)
    _, first_time, first_space = make_disk("first", cache, image, clock)
    disk, time_taken, space = make_disk("second", cache, image, clock)
    booted = boot(disk, own=given is None)
    print(f"\nThe second disk took 1/{first_time / time_taken:.0f} of the time"
          f" of the first, and 1/{first_space / space:.0f} of its space.")
    show("disk", "list", "-c", "instance", "-c", "format", "-c", "size",
         "-c", "allocated")
    return 0 if booted else 1


def make_image() -> str:
    print("\nAn image that boots")
    started = time.perf_counter()
    subprocess.run([TOOLS / "make-boot-image", GUEST, str(IMAGE_SIZE),
                    "quickstart", str(PAYLOAD)], check=True)
    os.sync()    # or the disks would pay for writing it
    path = GUEST / "boot.qcow2"
    line("make it", time.perf_counter() - started, path.stat().st_size)
    return str(path)


def configuration() -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    opts.register_opts(conf)
    conf([], default_config_files=[])
    conf.set_override("instances_path", str(INSTANCES))
    return conf


def make_disk(which: str, cache: imagecache.ImageCache, image: str,
              clock: Clock) -> tuple[Disk, float, int]:
    """Return a new instance's disk, the seconds and the bytes it took."""
    instance = {"uuid": str(uuid.uuid4())}
    print(f"\nThe {which} instance's disk")
    before = allocated(INSTANCES)
    clock.restart()
    disk = cache.create_disk(instance, image, size=DISK_SIZE)
    seconds = time.perf_counter() - clock.started
    space = allocated(INSTANCES) - before
    line("together", seconds, space)
    return disk, seconds, space


def boot(disk: Disk, own: bool) -> bool:
    """Start a machine from a disk; return True if it got so far."""
    print(f"\nA machine from it: {disk.path.relative_to(TOP)}")
    command = [TOOLS / "boot-disk", disk.path, disk.format]
    environment = dict(os.environ)
    if own:
        command += ["-kernel", GUEST / "vmlinuz", "-initrd", GUEST / "initrd",
                    "-append", "console=ttyS0 quiet panic=-1"]
    else:
        # Any other image has a boot loader, and greets on the console.
        command += ["-m", "1024"]
        environment |= {"MARKER": "Welcome to|login", "TIMEOUT": "150"}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, text=True, check=False,
                          stdout=subprocess.PIPE)
    said = done.stdout.splitlines() or ["(nothing, on its serial port)"]
    print(f"  {said[-1].strip()}")
    line("boot" if done.returncode == 0 else "no sign that it booted",
         time.perf_counter() - started)
    return done.returncode == 0


def show(*arguments: str) -> None:
    """Run the command imagecache as a person would."""
    command = [".venv/bin/imagecache", "--instances-path",
               str(INSTANCES.relative_to(TOP)), *arguments]
    print(f"\n$ {' '.join(command)}", flush=True)
    subprocess.run(command, cwd=TOP, check=True)


def line(what: str, seconds: float, size: int | None = None) -> None:
    space = "" if size is None else human(size)
    print(f"  {what:<48}{seconds:>9.3f} s{space:>12}".rstrip(), flush=True)


def allocated(directory: pathlib.Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def human(size: int) -> str:
    for unit, name in ((GiB, "GiB"), (MiB, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / KiB:.0f} KiB"


if __name__ == "__main__":
    sys.exit(main())
