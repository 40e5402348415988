# SPDX-License-Identifier: Apache-2.0
"""Bad and odd images, which tests build for themselves.

    with Canary(directory) as canary:
        for sample in corpus.refused():
            upload(sample.build(canary.sentinel), disk_format=sample.claim)
            assert it was refused
        assert not canary.complaints()

Each sample has an id, the format it is uploaded as, and a way to build it
that takes milliseconds.  Most are a sound image with one lie in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from hostile_images import (
    claims,
    contents,
    disks,
    fields,
    formats,
    odd,
    qemus,
    references,
    tables,
    vmdks,
)
from hostile_images.canary import NOWHERE, Canary, Sentinel
from hostile_images.sample import Accepted, Odd, Refused

__all__ = ["NOWHERE", "Accepted", "Canary", "Odd", "Refused", "Sentinel",
           "accepted", "allowed", "odds", "of_each_rule", "refused"]


def refused() -> Iterator[Refused]:
    """Yield the images that must be refused."""
    yield from references.samples()
    yield from fields.samples()
    yield from claims.samples()
    yield from formats.samples()
    yield from vmdks.samples()
    yield from tables.samples()
    yield from contents.samples()


def of_each_rule() -> Iterator[Refused]:
    """Yield one of the refused images for each rule, and all without a rule.

    A format that can be allowed has rules of its own, each of which counts.
    """
    found: dict[tuple[str, str], Refused] = {}
    for sample in refused():
        found.setdefault((sample.rule or sample.id, sample.listed), sample)
    yield from found.values()


def accepted() -> Iterator[Accepted]:
    """Yield the images that must be accepted."""
    yield from disks.samples()
    yield from qemus.samples()


def allowed() -> Iterator[Accepted]:
    """Yield images that must get in where their formats are allowed."""
    yield from formats.listed()


def odds() -> Iterator[Odd]:
    """Yield the images that may be refused or accepted."""
    yield from odd.samples()
