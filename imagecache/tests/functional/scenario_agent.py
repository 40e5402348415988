# SPDX-License-Identifier: Apache-2.0
"""An agent that makes one disk, for strace(1) to follow.

    scenario_agent.py CONFIG API INSTANCE IMAGE SIZE

What it prints is JSON: the error if there was one, the events, and the locks
it still holds, as the kernel has them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import sys
import traceback

from oslo_config import cfg

from imagecache import events, exception, imagebackend, opts
from imagecache.image_cache import ImageCache
from imagecache.sources.registry import ImageStores

BEGIN = "/the-scenario-begins"    # a name to look for in the trace


def main(config: str, api: str, instance: str, image: str,
         size: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    conf = cfg.ConfigOpts()
    opts.register_opts(conf)
    conf([], project="x", default_config_files=[config])
    heard: list[events.Event] = []
    error = None
    with contextlib.suppress(FileNotFoundError):
        os.unlink(BEGIN)
    try:
        APIS[api](conf, instance, image, int(size), heard.append)
    except exception.ImageCacheError as e:
        traceback.print_exc()
        error = [type(e).__name__, str(e)]
    print(json.dumps({
        "error": error, "locks": locks(),
        "events": [(each.name, each.facts.get("reason")) for each in heard
                   if each.name not in events.PROGRESS]}))


def new_code(conf, instance, image, size, observe):
    ImageCache(conf, observe=observe).create_disk(instance, image, size=size)


def novas_driver(conf, instance, image, size, observe):
    """Make a root disk with the calls of nova's driver."""
    stores = ImageStores(conf, None)

    def fetch_image(context, target, image_id, trusted_certs=None):
        source = stores.image(image_id)
        with source.store.read(source.description) as stream, \
                pathlib.Path(target).open("wb") as f:
            f.writelines(stream.chunks)

    imagebackend.Backend(conf.use_cow_images, conf=conf).by_name(
        {"uuid": instance}, "disk").cache(
            fetch_func=fetch_image, context=None, image_id=image, size=size,
            filename=hashlib.sha1(image.encode()).hexdigest(),
            trusted_certs=None)


def locks() -> list[str]:
    return [line for line in pathlib.Path("/proc/locks").read_text()
            .splitlines() if f" {os.getpid()} " in line]


APIS = {"ImageCache": new_code, "imagebackend": novas_driver}

if __name__ == "__main__":
    main(*sys.argv[1:])
