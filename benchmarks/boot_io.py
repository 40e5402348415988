# SPDX-License-Identifier: Apache-2.0
"""What is written until a guest can boot: its host's first, and the next."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

from benchmarks import site as sites
from benchmarks import timing
from benchmarks.cloud_image import KINDS
from benchmarks.report import Chart, Result
from benchmarks.site import Options, Site
from benchmarks.timing import Run, Subject
from benchmarks.volume import Volume
from imagecache.model import MiB

_BARS = {"first MiB": "first disk of an image on a host",
         "next MiB": "each further disk"}


def measure(site: Site) -> Iterator[Result]:
    with site.volume("ext4") as volume:
        yield _by_options(site, volume)
    if site.shares_blocks:
        yield _by_file_system(site)


def _by_options(site: Site, volume: Volume) -> Result:
    subjects = [
        Subject(f"{kind}: {options.name}",
                f"the image is {_WORDS[kind]}; {_flags(options)}",
                functools.partial(_boots, site, volume, kind, options))
        for kind in KINDS for options in sites.COMBINATIONS]
    runs = timing.race(subjects, site.scale.rounds, practice=0)
    return Result(
        f"Written for a disk ({volume.kind}, {site.scale.rounds} rounds)",
        [timing.summary(*each) for each in zip(subjects, runs, strict=True)],
        notes=["MiB: " + volume.counter + ".  Until the disk is there and all"
               " of it is on the storage; what the guest then writes comes on"
               " top.  first: the cache is empty; the image is brought"
               " ('image MiB'), verified, validated, converted if it must be,"
               " and the disk made.  next: one more disk.  A disk has the"
               " image's size here.  s: until the call returns.  The least of"
               " the rounds.",
               site.image.describe()],
        chart=Chart("boot-io", "MiB written to the storage", _BARS))


def _by_file_system(site: Site) -> Result:
    rows = []
    for kind in ("ext4", *site.shares_blocks):
        with site.volume(kind) as volume:
            subjects = [Subject(
                f"{kind}: {options.name}", f"on {kind}; {_flags(options)}",
                functools.partial(_boots, site, volume, "compressed",
                                  options))
                for options in (sites.OVERLAY, sites.COPY)]
            runs = timing.race(subjects, site.scale.rounds, practice=0)
            rows += [timing.summary(*each)
                     for each in zip(subjects, runs, strict=True)]
    return Result(
        f"The same by file system ({site.scale.rounds} rounds)", rows,
        notes=["Of the compressed image.  XFS and btrfs let two files share"
               " their blocks, which is how a raw copy is then made."],
        chart=Chart("boot-io-reflink", "MiB written to the storage", _BARS))


def _boots(site: Site, volume: Volume, kind: str, options: Options) -> Run:
    volume.clear()
    image = site.image.of(kind)
    cache = sites.cache(volume.path, options)
    run = sites.two_disks(volume, cache, str(image))
    return dataclasses.replace(run, measured={
        "image MiB": image.stat().st_size / MiB, **run.measured})


_WORDS = {"compressed": "compressed qcow2", "plain": "plain qcow2",
          "raw": "raw"}


def _flags(options: Options) -> str:
    return (f"use_cow {'yes' if options.use_cow else 'no'},"
            f" force_raw {'yes' if options.force_raw else 'no'}")
