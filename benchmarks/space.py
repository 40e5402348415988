# SPDX-License-Identifier: Apache-2.0
"""The space that a cache takes, and disks made from it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator

from benchmarks import site as sites
from benchmarks.report import Chart, Result, Row
from benchmarks.site import Options, Site
from benchmarks.volume import Volume
from imagecache.model import GiB, MiB


@dataclasses.dataclass(frozen=True)
class Layout:
    """A way to keep disks."""

    name: str
    meaning: str
    options: Options
    image: str = "compressed"
    file_system: str = "ext4"
    sparse: bool = True


_PREALLOCATED = dataclasses.replace(sites.COPY, preallocate=True)

LAYOUTS = (
    Layout("overlay, raw base", "the default", sites.OVERLAY),
    Layout("overlay, plain base", "force_raw no, the image is plain qcow2",
           sites.OVERLAY_KEPT, "plain"),
    Layout("overlay, compressed base",
           "force_raw no, the image is compressed qcow2", sites.OVERLAY_KEPT),
    Layout("overlay, resized base", "resized_bases yes",
           dataclasses.replace(sites.OVERLAY, resized_bases=True)),
    Layout("overlay, preallocated", "preallocate_images = space",
           dataclasses.replace(sites.OVERLAY, preallocate=True)),
    Layout("copy of compressed", "use_cow no, force_raw no",
           sites.COPY_KEPT),
    Layout("raw copy", "use_cow no: holes stay holes", sites.COPY),
    Layout("raw copy, no holes", "the same if cp(1) wrote out the holes",
           sites.COPY, sparse=False),
    Layout("raw copy, preallocated", "use_cow no, preallocate_images = space",
           _PREALLOCATED),
    Layout("XFS: raw copy", "use_cow no", sites.COPY, file_system="xfs"),
    Layout("XFS: preallocated", "use_cow no, preallocate_images = space",
           _PREALLOCATED, file_system="xfs"),
    Layout("XFS: resized base", "use_cow yes, resized_bases yes",
           dataclasses.replace(sites.OVERLAY, resized_bases=True),
           file_system="xfs"),
    Layout("btrfs: raw copy", "use_cow no", sites.COPY, file_system="btrfs"),
)


def measure(site: Site) -> Iterator[Result]:
    count, size = site.scale.instances, site.scale.disk
    rows = []
    for kind in ("ext4", *site.shares_blocks):
        with site.volume(kind) as volume:
            rows += [_row(site, volume, layout) for layout in LAYOUTS
                     if layout.file_system == kind]
    yield Result(
        f"Space taken by the cache and {count} new disks of"
        f" {size / GiB:g} GiB", rows, notes=[
            "By the file system's own count of free blocks, with its tables."
            "  No guest has written anything yet: overlays, sparse and shared"
            " copies take more as guests write, at most the disk's size each,"
            " and an overlay its tables.", site.image.describe()],
        chart=Chart("space", "MiB taken", {
            "cache MiB": "the cache", "disks MiB": f"{count} disks"},
            stacked=True))


def _row(site: Site, volume: Volume, layout: Layout) -> Row:
    volume.clear()
    start = volume.used()
    cache = sites.cache(volume.path, layout.options)
    image, size = str(site.image.of(layout.image)), site.scale.disk
    base = cache.fetch(image).path
    for number in range(site.scale.instances):
        disk = volume.path / f"instance-{number}" / "disk"
        if layout.sparse:
            cache.create_disk(disk.parent.name, image, size=size)
        else:
            disk.parent.mkdir()
            subprocess.run(["cp", "--sparse=never", "--reflink=never", base,
                            disk], check=True)
            os.truncate(disk, size)
    everything = volume.used() - start
    for each in volume.path.glob("instance-*"):
        shutil.rmtree(each)
    bases = volume.used() - start
    return Row(layout.name, layout.meaning, {
        "cache MiB": bases / MiB, "disks MiB": (everything - bases) / MiB,
        "each MiB": (everything - bases) / MiB / site.scale.instances,
        "all MiB": everything / MiB})
