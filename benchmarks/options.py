# SPDX-License-Identifier: Apache-2.0
"""What the options cost: the numbers behind the page "Choosing options"."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from benchmarks import (
    boot_io,
    cloud_image,
    guest_crowd,
    guest_reads,
    guest_writes,
    preprocessing,
    space,
    volume,
)
from benchmarks.report import Result
from benchmarks.scratch import Scratch
from benchmarks.site import Scale, Site


def results(scratch: Scratch) -> Iterator[Result]:
    scale = Scale()
    image = cloud_image.make(scratch.directory("image"), scale.image,
                             scale.data)
    directory = scratch.directory("volumes")
    yield from measure(Site(image, scale,
                            functools.partial(volume.opened, directory)))


def measure(site: Site) -> Iterator[Result]:
    """Yield all that is measured; a site of a test is small."""
    for part in (boot_io, space, guest_reads, guest_crowd, guest_writes,
                 preprocessing):
        yield from part.measure(site)
