# SPDX-License-Identifier: Apache-2.0
"""Bring a directory of images to every kind of host; say what came of them.

    corpus_run.py DIRECTORY

The names of the images are their ids; claims.json says what each is said to
be.  A process of its own, so that it can be watched with strace.
"""

from __future__ import annotations

import json
import logging
import pathlib
import sys

from imagecache import exception
from imagecache.tests.doors import HOSTS, Doors


def main(directory: pathlib.Path) -> None:
    logging.disable()
    claims = json.loads((directory / "claims.json").read_text())
    print(json.dumps({str(host): dict(run(host, directory, claims))
                      for host in HOSTS}))


def run(host, directory, claims):
    with Doors(host) as doors:
        for name, claim in claims.items():
            data = (directory / name).read_bytes()
            try:
                doors.enter("memory", data, claim)
                yield name, "accepted"
            except exception.ImageCacheError as e:
                yield name, type(e).__name__
            doors.clean()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
