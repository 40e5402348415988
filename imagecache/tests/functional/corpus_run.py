# SPDX-License-Identifier: Apache-2.0
"""Make disks of images, on each kind of host; print how each attempt ended.

    corpus_run.py DIRECTORY

The names of the images are their ids; claims.json has the format that each is
uploaded as, and says which images all hosts get: the other images go to the
first host only.  This is a process of its own, so that strace can watch it.
"""

from __future__ import annotations

import json
import logging
import pathlib
import sys

from imagecache import exception
from imagecache.tests.entry_points import HOSTS, EntryPoints


def main(directory: pathlib.Path) -> None:
    logging.disable()
    claims = json.loads((directory / "claims.json").read_text())
    for_all = {name: facts for name, facts in claims.items()
               if facts["everywhere"]}
    first, *others = HOSTS
    print(json.dumps({
        str(first): dict(run(first, directory, claims)),
        **{str(host): dict(run(host, directory, for_all))
           for host in others}}))


def run(host, directory, claims):
    with EntryPoints(host) as entry_points:
        for name, facts in claims.items():
            data = (directory / name).read_bytes()
            try:
                entry_points.create_disk("memory", data, facts["claim"])
                yield name, "accepted"
            except exception.ImageCacheError as e:
                yield name, type(e).__name__
            entry_points.clean()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
