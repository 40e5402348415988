# SPDX-License-Identifier: Apache-2.0
"""A small compute agent: guests from one image, from disk to clean-up.

    agent.py --config-file FILE --image REF [--count N] [--gib N]
        [--kernel FILE --initrd FILE] [--accel kvm] [--timeout SECONDS]

Each guest has a disk of its own and runs until it powers off.  What it says
on its serial port is printed.  At the end the disks are gone, and the base
is in the cache for the next ones.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator

from oslo_config import cfg

import imagecache
from imagecache import events, exception
from imagecache.backends import Disk
from imagecache.events import Event
from imagecache.model import GiB
from imagecache.sources import ImageStore

OPTS = (
    cfg.StrOpt("image", required=True, help="A Glance id, a path or a URL."),
    cfg.IntOpt("count", default=1, min=1, help="How many guests."),
    cfg.IntOpt("gib", default=1, min=0, help="GiB of each disk; 0: as image."),
    cfg.StrOpt("kernel", help="For an image without a boot loader."),
    cfg.StrOpt("initrd", help="The same."),
    cfg.StrOpt("accel", default="tcg", help="What runs a guest: kvm or tcg."),
    cfg.IntOpt("timeout", default=60, help="Seconds that a guest may run."),
)

# What to do with a request depends on the party that must act.
FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (exception.ImageError, "refused, no host will take this image"),
    (exception.SourceError, "try again later, the image store failed"),
    (exception.HostError, "try another host, this one could not"),
    (subprocess.SubprocessError, "the guest did not run to its end"),
)


class Agent:
    """Runs guests; one object for all threads.

    :param glance: the image store to ask in place of what [glance] says
    """

    def __init__(self, conf: cfg.ConfigOpts,
                 glance: ImageStore | None = None) -> None:
        self.conf = conf
        self.cache = imagecache.ImageCache(
            conf, glance=glance, observe=self.heard)

    def heard(self, event: Event) -> None:
        if event.name not in events.PROGRESS:
            print(f"{event.name:<10} {event.subject}", flush=True)

    def run(self, instance: dict[str, str]) -> bool:
        """Boot a new instance and clean up after it; say if that worked."""
        try:
            with self.disk(instance) as disk:
                print(self.boot(disk), flush=True)
        except tuple(kind for kind, _ in FAULTS) as e:
            fate = next(f for kind, f in FAULTS if isinstance(e, kind))
            print(f"{instance['uuid']}: {fate}: {e}", file=sys.stderr)
            return False
        return True

    @contextlib.contextmanager
    def disk(self, instance: dict[str, str]) -> Iterator[Disk]:
        disk = self.cache.create_disk(
            instance, self.conf.image, size=self.conf.gib * GiB)
        try:
            yield disk
        finally:
            disk.remove()

    def boot(self, disk: Disk) -> str:
        """Run a guest until it powers off; return what it said."""
        # The format is named, so that qemu never has to guess it.
        node = {"node-name": "root", "driver": disk.format,
                "file": {"driver": "file", "filename": str(disk.path)}}
        command = [
            "qemu-system-x86_64", "-accel", self.conf.accel, "-m", "256",
            "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-serial", "stdio",
            "-blockdev", json.dumps(node),
            "-device", "virtio-blk-pci,drive=root"]
        if self.conf.kernel:
            command += ["-kernel", self.conf.kernel, "-initrd",
                        self.conf.initrd, "-append", "console=ttyS0 quiet"]
        return subprocess.run(
            command, check=True, text=True, timeout=self.conf.timeout,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout.strip()


def main(arguments: list[str]) -> int:
    conf = cfg.ConfigOpts()
    conf.register_cli_opts(OPTS)
    conf(arguments, project="agent")
    agent = Agent(conf)
    instances = [{"uuid": str(uuid.uuid4())} for _ in range(conf.count)]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        return 0 if all(threads.map(agent.run, instances)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
