# SPDX-License-Identifier: Apache-2.0
"""Nova's own imagebackend, told what to do by lines of JSON; see nova.py.

Runs inside nova's virtualenv, as ``python -m benchmarks.nova_peer DIR
[GROUP.OPTION=VALUE...]``.  It is nova's code as released, in this process and
warm: no database, messaging, libvirt or privileged helper is started, and its
start is not timed.  The image service is a file, copied in 64 KiB pieces and
flushed, as nova writes what it downloads; it checks no digest, which a real
one would.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from typing import Any

from benchmarks import harness

_CHUNK = 64 * 1024


class Instance(dict[str, str]):
    """As much of nova's instance as the image backends look at."""

    __getattr__ = dict.__getitem__


class ImageService:
    """One image, in the place of Glance."""

    def __init__(self, path: str, disk_format: str) -> None:
        self._path = path
        self._disk_format = disk_format

    def get(self, context: object, image_id: str, **_: Any) -> dict[str, str]:
        return {"id": image_id, "disk_format": self._disk_format}

    def download(self, context: object, image_id: str, dest_path: str = "",
                 **_: Any) -> None:
        with open(self._path, "rb") as reader, open(dest_path, "wb") as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())


def start(instances: str, settings: list[str]) -> tuple[Any, Any]:
    """Configure nova for a directory; return its modules for images."""
    load = importlib.import_module    # mypy has no nova to look at
    conf = load("nova.conf").CONF
    conf([], project="nova", default_config_files=[], default_config_dirs=[])
    conf.set_override("instances_path", instances)
    load("nova.objects").register_all()
    load("nova.privsep").sys_admin_pctxt.set_client_mode(False)
    images = load("nova.virt.images")
    for setting in settings:
        name, _, value = setting.partition("=")
        group, _, option = name.partition(".")
        conf.set_override(option, value, group)
    imagebackend = load("nova.virt.libvirt.imagebackend")
    conf.set_override("lock_path", os.path.join(instances, "locks"),
                      "oslo_concurrency")
    return images, imagebackend


def make_disk(images: Any, imagebackend: Any, instances: str,
              order: dict[str, Any]) -> dict[str, Any]:
    """Make one disk, by the clock; its instance's directory is not timed."""
    images.IMAGE_API = imagebackend.IMAGE_API = ImageService(
        order["image"], order["disk_format"])
    instance = Instance(uuid=order["instance"], name=order["instance"])
    os.makedirs(os.path.join(instances, order["instance"]))
    backend = imagebackend.Backend(order["type"] == "qcow2")

    def fetch(target: str, context: object, image_id: str) -> None:
        images.fetch_to_raw(context, image_id, target)

    def make() -> None:
        backend.by_name(instance, "disk", order["type"]).cache(
            fetch, order["base"], size=order["size"], context=None,
            image_id="image")

    return dataclasses.asdict(harness.measure(make))


def main() -> None:
    instances, *settings = sys.argv[1:]
    # What nova or its libraries may print is not an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    images, imagebackend = start(instances, settings)
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        answer = make_disk(images, imagebackend, instances, json.loads(line))
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
