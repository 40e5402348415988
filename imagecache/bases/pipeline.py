# SPDX-License-Identifier: Apache-2.0
"""What happens to an image between its source and the base cache.

    fill ▸ check ▸ transform ... ▸ commit

``plan`` is the only place that knows which steps a source takes; a plan is
data, so it can be printed and tested without being run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import stat
from collections.abc import Callable
from typing import NamedTuple

from imagecache import events, exception, sources
from imagecache.bases import download
from imagecache.bases.store import Staging
from imagecache.events import Event, Name
from imagecache.formats import qcow2, raw
from imagecache.inspection import inspector, verify
from imagecache.model import (
    NATIVE,
    Description,
    Format,
    Output,
    Record,
    Validated,
)
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import qemu_img


@dataclasses.dataclass(frozen=True)
class Work:
    """What every step of one attempt may know."""

    source: sources.Source
    staging: Staging
    policy: Policy
    size: int | None      # bytes of the disk that is wanted; None: any
    observe: events.Observer


@dataclasses.dataclass(frozen=True)
class Filled:
    """What is known of a staged file by those who wrote it."""

    digest: str | None = None
    signature: str | None = None
    found: inspector.Found | None = None


Fill = Callable[[Work], Filled]
Check = Callable[[Work, Filled], Validated]
Transform = Callable[[Work, Validated], Validated]


class Plan(NamedTuple):
    fill: Fill
    check: Check
    transforms: tuple[Transform, ...]


def plan(source: sources.Source, policy: Policy) -> Plan:
    """Return the steps that turn this source into a base."""
    shape = to_raw if policy.force_raw else to_native
    match source:
        case sources.Image():
            return Plan(functools.partial(receive, source), inspect,
                        (shape, settle))
        case sources.Template(trusted=True):
            return Plan(functools.partial(delegate, source), trust,
                        (to_raw, settle))
        case sources.DelegatedImage() | sources.Template():
            return Plan(functools.partial(delegate, source), inspect,
                        (shape, settle))


def run(work: Work) -> tuple[Validated, Record]:
    """Take all steps but the commit."""
    steps = plan(work.source, work.policy)
    filled = steps.fill(work)
    validated = steps.check(work, filled)
    work.observe(Event(Name.VALIDATED, work.source.name, {
        "format": validated.format, "virtual_size": validated.virtual_size}))
    require_fit(work.source, validated.virtual_size, work.size, work.policy)
    made = validated
    for transform in steps.transforms:
        made = transform(work, made)
    size = made.path.stat().st_size if work.staging.keeps_files \
        else made.virtual_size
    return made, describe(made, size, work.source.name, validated.format,
                          filled.digest, filled.signature)


def describe(validated: Validated, size: int, source: str,
             source_format: str | None, digest: str | None,
             signature: str | None) -> Record:
    """Return what is to be remembered of a base of ``size`` bytes."""
    cluster_size = qcow2.read_header(validated.path).cluster_size \
        if validated.format is Format.QCOW2 else None
    return Record(
        format=validated.format, virtual_size=validated.virtual_size,
        size=size, rules=verify.RULES, source=source,
        source_format=source_format, digest=digest,
        cluster_size=cluster_size, committed=durable.now(),
        signature=signature)


def require_fit(source: sources.Source, virtual_size: int,
                size: int | None, policy: Policy) -> None:
    """Refuse an image before anything is made of it.

    :raises FlavorDiskSmallerThanImage: the wanted disk cannot hold it
    :raises ImageTooLarge: no disk of this site may be as large
    """
    if size and size < virtual_size:
        raise exception.FlavorDiskSmallerThanImage(
            flavor_size=size, image_size=virtual_size)
    limit = policy.max_virtual_size
    if limit is not None and virtual_size > limit:
        raise exception.ImageTooLarge(
            image_id=source.name, size=virtual_size, what="virtual size",
            option="[image_cache] max_virtual_size", limit=limit)


def receive(image: sources.Image, work: Work) -> Filled:
    _require_digest(image.description, work.policy)
    claim = image.description.disk_format
    terms = download.Terms(work.policy.max_image_size, work.policy.retries,
                           work.policy.min_rate)
    received = download.download(
        image, work.staging.download, terms,
        lambda: verify.new_inspector(image.name, claim, work.policy),
        work.observe)
    signature = image.signer.certificate if image.signer else None
    if signature:
        work.observe(Event(Name.SIGNATURE_VERIFIED, image.name,
                           {"certificate": signature}))
    return Filled(str(received.digest), signature, received.found)


def _require_digest(image: Description, policy: Policy) -> None:
    """Refuse an image that only a broken digest vouches for."""
    if image.digest and image.digest.algorithm == "md5" \
            and not policy.allow_md5:
        raise exception.ImageUnacceptable(
            image_id=image.ref, reason="its store knows no digest of it but"
            " an md5 checksum, which is no proof; [image_cache] allow_md5"
            " would accept it (rule md5)", rule="md5")


def delegate(source: sources.DelegatedImage | sources.Template,
             work: Work) -> Filled:
    write(source, work.staging.download)
    return Filled()


def write(source: sources.DelegatedImage | sources.Template,
          path: pathlib.Path) -> None:
    """Call the source's function, and check that it wrote a file.

    :raises NothingWritten: there is nothing at ``path``
    :raises ImageUnacceptable: what is there is not a regular file
    """
    source.write(path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as e:
        raise exception.NothingWritten(image_id=source.name) from e
    if not stat.S_ISREG(mode):
        raise exception.ImageUnacceptable(
            image_id=source.name, reason="what should have made it left"
            " something else than a file")


def inspect(work: Work, filled: Filled) -> Validated:
    path, name = work.staging.download, work.source.name
    if filled.found is None:
        return verify.validate(path, name, None, work.policy)
    return verify.confirm(path, filled.found, name, work.policy)


def trust(work: Work, filled: Filled) -> Validated:
    return verify.trust(work.staging.download)


def to_native(work: Work, validated: Validated) -> Validated:
    """Convert what cannot be a base as it is."""
    if validated.format in NATIVE and work.staging.keeps_files:
        return validated
    return to_raw(work, validated)


def to_raw(work: Work, validated: Validated) -> Validated:
    """Convert to a sparse raw output, which is all there or an error."""
    staging = work.staging
    if validated.format is Format.RAW and staging.keeps_files:
        return validated
    convert_to_raw(
        validated,
        staging.writing(validated.virtual_size, _data(work, validated)),
        work.policy, work.source.name, work.observe)
    verify.refuse_nested(staging.head(raw.NEEDED), work.source.name)
    validated.path.unlink()
    return dataclasses.replace(validated, path=staging.output,
                               format=Format.RAW)


def _data(work: Work, validated: Validated) -> int:
    """Return about how many bytes of an image are not holes."""
    if validated.format is Format.RAW:
        return validated.path.stat().st_blocks * 512
    # As qcow2 it takes about what it takes as raw, with holes.
    with verify.blaming(validated, work.source.name, work.policy):
        return qemu_img.required(
            validated.path, validated.format, Format.QCOW2,
            limits=work.policy.for_image(validated.format,
                                         work.policy.inspection))


def convert_to_raw(
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


def settle(work: Work, validated: Validated) -> Validated:
    """Make the data survive a power failure."""
    if validated.path != work.staging.output:   # which is settled already
        durable.fsync_file(validated.path)
    return validated
