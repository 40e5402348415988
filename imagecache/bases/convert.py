# SPDX-License-Identifier: Apache-2.0
"""Convert images to raw: for bases, and for the disks that are copies."""

from __future__ import annotations

import contextlib

from imagecache import events
from imagecache.events import Event, Name
from imagecache.inspection import verify
from imagecache.model import Format, Output, Validated
from imagecache.policy import Policy
from imagecache.tools import qemu_img


def data_size(content: Validated, name: str, policy: Policy) -> int:
    """Return about how many bytes of an image are not holes.

    :param name: of the image, for people
    :raises ImageUnacceptable: the image is damaged
    """
    if content.format is Format.RAW:
        return content.path.stat().st_blocks * 512
    # As qcow2 it takes about what it takes as raw, with holes.
    with verify.blaming(content, name, policy):
        return qemu_img.required(
            content.path, content.format, Format.QCOW2,
            limits=policy.for_image(content.format, policy.inspection))


def to_raw(
        validated: Validated,
        writing: contextlib.AbstractContextManager[Output],
        policy: Policy, name: str, observe: events.Observer,
        into_zeros: bool = True) -> None:
    """Write the raw form of an image to where ``writing`` says.

    :param writing: yields an output, and flushes it
    :param into_zeros: which reads as zeros
    :raises ImageUnacceptable: its tables or its data are damaged
    """
    total = validated.path.stat().st_size
    limits = policy.for_image(validated.format, policy.conversion).writing(
        validated.virtual_size)

    def progress(read: int) -> None:
        observe(Event(Name.CONVERT, name, {
            "done": min(read, total), "total": total}))

    with writing as output, verify.blaming(validated, name, policy):
        qemu_img.convert(validated.path, validated.format, output, Format.RAW,
                         limits=limits, into_zeros=into_zeros,
                         progress=progress)
    progress(total)
