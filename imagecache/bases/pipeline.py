# SPDX-License-Identifier: Apache-2.0
"""The steps that turn a source into a base, or into the content of a disk.

    fill ▸ check ▸ shape ▸ commit

``plan`` and ``adoption`` are the only places that know which steps a source
takes.  A plan is data, so it can be printed and tested without being run.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import stat
from collections.abc import Callable
from typing import NamedTuple

from imagecache import events, exception, sources
from imagecache.bases import convert, download, resize
from imagecache.bases.admission import require_fit
from imagecache.bases.store import Staging
from imagecache.events import Event, Name
from imagecache.formats import qcow2, raw
from imagecache.inspection import inspector, verify
from imagecache.model import (
    NATIVE,
    Base,
    Description,
    Entry,
    Format,
    MiB,
    Record,
    Validated,
    whole_sectors,
)
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import file_copy


@dataclasses.dataclass(frozen=True)
class Work:
    """The arguments that all steps of one attempt share."""

    name: str                  # of the source, for messages
    download: pathlib.Path     # the first step writes it, the next checks it
    policy: Policy
    observe: events.Observer = events.silent
    size: int | None = None    # bytes of the disk that is wanted; None: any


@dataclasses.dataclass(frozen=True)
class Filled:
    """Facts from the first step, for the record of the base."""

    digest: str | None = None
    signature: str | None = None
    source: str | None = None           # None: the name of the work
    source_format: str | None = None
    found: inspector.Found | None = None


Fill = Callable[[Work], Filled]
Check = Callable[[Work, Filled], Validated]
Shape = Callable[[Work, Staging, Validated], Validated]


class Plan(NamedTuple):
    source: sources.Source
    fill: Fill
    check: Check
    shape: Shape
    # False: the content comes from another base, with most of its record.
    new: bool = True


def plan(source: sources.Source, *, force_raw: bool,
         original: Entry | None = None) -> Plan:
    """Return the steps that turn a source into a base.

    :param force_raw: the base must be raw; False: it may be qcow2
    :param original: the base of the source's image, if the source is Resized
    :raises BaseNotFound: the source is Resized, and ``original`` is None or
        has no record
    """
    shape = to_raw if force_raw else to_native
    match source:
        case sources.Image():
            return Plan(source, functools.partial(receive, source), inspect,
                        shape)
        case sources.Template(trusted=True):
            return Plan(source, functools.partial(delegate, source), trust,
                        to_raw)
        case sources.DelegatedImage() | sources.Template():
            return Plan(source, functools.partial(delegate, source), inspect,
                        shape)
        case sources.Resized():
            if original is None or original.record is None:
                raise exception.BaseNotFound(key=source.original.key,
                                             store="the store")
            base = original.as_base()
            return Plan(
                source, functools.partial(copy, base, original.record),
                functools.partial(inherit, base),
                functools.partial(enlarge, base, source), new=False)


def adoption(source: sources.Source, entry: Entry) -> Plan:
    """Return the steps for a base without a record of the present rules."""
    # The base may be the converted form of the image, so the image's claim of
    # a format does not apply to it.  A base on record as raw may begin with
    # any bytes, because no program detects its format.
    recorded = entry.record.format if entry.record else None
    own = isinstance(source, sources.Template) and source.trusted
    check = functools.partial(take_as_raw, entry.size) \
        if own or recorded is Format.RAW \
        else functools.partial(inspect_base, recorded)
    fill = functools.partial(recall, entry.record)
    if entry.record is None and source.requires.certificate is not None:
        fill = functools.partial(verify_again, source)
    return Plan(source, fill, check, keep, new=False)


def run(plan: Plan, work: Work, staging: Staging) -> Base:
    """Take all steps, and commit the base."""
    filled, validated = _prepare(plan, work)
    if plan.new:
        work.observe(Event(Name.VALIDATED, work.name, {
            "format": validated.format,
            "virtual_size": validated.virtual_size}))
        filled = dataclasses.replace(filled, source_format=validated.format)
    require_fit(plan.source, validated.virtual_size, work.size, work.policy)
    made = plan.shape(work, staging, validated)
    bytes_used = made.path.stat().st_size if staging.keeps_files \
        else made.virtual_size
    return staging.commit(made, _record(work, filled, made, bytes_used))


def adopt(plan: Plan, entry: Entry, policy: Policy,
          observe: events.Observer) -> Record:
    """Take the steps of an adoption, and return the base's record.

    :raises ImageSignatureInvalid: the base was converted, or is damaged
    """
    work = Work(plan.source.name, entry.path, policy, observe)
    filled, validated = _prepare(plan, work)
    return _record(work, filled, validated, entry.size)


def generate(template: sources.Template, path: pathlib.Path,
             policy: Policy) -> Validated:
    """Let a template write a new file, for a disk that has no base.

    :raises NothingWritten: the template wrote no file
    :raises ImageUnacceptable: the template is not trusted, and its file is
        not a valid image
    """
    _, validated = _prepare(plan(template, force_raw=True),
                            Work(template.name, path, policy))
    return validated


def _prepare(plan: Plan, work: Work) -> tuple[Filled, Validated]:
    filled = plan.fill(work)
    return filled, plan.check(work, filled)


def _record(work: Work, filled: Filled, made: Validated,
            size: int) -> Record:
    """Return the record of a base of ``size`` bytes."""
    cluster_size = qcow2.read_header(made.path).cluster_size \
        if made.format is Format.QCOW2 else None
    return Record(
        format=made.format, virtual_size=made.virtual_size, size=size,
        rules=verify.RULES, source=filled.source or work.name,
        source_format=filled.source_format, digest=filled.digest,
        cluster_size=cluster_size, committed=durable.now(),
        signature=filled.signature)


# The first step: fill the download.

def receive(image: sources.Image, work: Work) -> Filled:
    _require_digest(image.description, work.policy)
    claim = image.description.disk_format
    limits = download.DownloadLimits(
        work.policy.max_image_size, work.policy.retries, work.policy.min_rate)
    received = download.download(
        image, work.download, limits,
        lambda: verify.new_inspector(image.name, claim, work.policy),
        work.observe, require_fit=functools.partial(
            require_fit, image, size=work.size, policy=work.policy))
    signature = image.signer.certificate if image.signer else None
    if signature:
        work.observe(Event(Name.SIGNATURE_VERIFIED, image.name,
                           {"certificate": signature}))
    return Filled(str(received.digest), signature, found=received.found)


def _require_digest(image: Description, policy: Policy) -> None:
    """Refuse an image whose only digest is md5, unless it is allowed."""
    if image.digest and image.digest.algorithm == "md5" \
            and not policy.allow_md5:
        raise exception.ImageUnacceptable(
            image_id=image.ref, reason="its store has only an md5 checksum of"
            " it, and md5 is broken: give the image another digest, or set"
            " [image_cache] allow_md5 (rule md5)", rule="md5")


def delegate(source: sources.DelegatedImage | sources.Template,
             work: Work) -> Filled:
    """Call the source's function, and check that it wrote a file.

    :raises NothingWritten: the function wrote no file
    :raises ImageUnacceptable: it wrote something else than a regular file
    """
    source.write(work.download)
    try:
        mode = work.download.lstat().st_mode
    except FileNotFoundError as e:
        raise exception.NothingWritten(image_id=source.name) from e
    if not stat.S_ISREG(mode):
        raise exception.ImageUnacceptable(
            image_id=source.name, reason="the function that fetches it wrote"
            " something else than a regular file")
    return Filled()


def copy(original: Base, record: Record, work: Work) -> Filled:
    """Copy a base; the copy shares its blocks if the file system can."""
    with durable.translated("copying a base", work.download):
        work.download.touch()
    file_copy.copy(original.path, work.download)
    return recall(record, work, record.source)


def recall(record: Record | None, work: Work,
           source: str | None = None) -> Filled:
    """Return the facts on record; the content is in place already."""
    if record is None:
        return Filled()
    return Filled(record.digest, record.signature, source,
                  record.source_format)


def verify_again(source: sources.Source, work: Work) -> Filled:
    """Verify the signature of a base that is the image as it arrived.

    :raises ImageSignatureInvalid: it is not: the base was converted or
        resized, or is no file
    """
    signer = source.signer if isinstance(source, sources.Image) else None
    if signer is None or not work.download.is_file():
        raise exception.ImageSignatureInvalid(
            image_id=work.name, reason="its base is not the file that was"
            " signed")
    verifier = signer.verifier()
    with durable.translated("reading a base", work.download), \
            work.download.open("rb") as f:
        while chunk := f.read(MiB):
            verifier.update(chunk)
    verifier.verify()
    work.observe(Event(Name.SIGNATURE_VERIFIED, work.name,
                       {"certificate": signer.certificate}))
    return Filled(signature=signer.certificate)


# The second step: find out the content.

def inspect(work: Work, filled: Filled) -> Validated:
    if filled.found is None:
        return verify.validate(work.download, work.name, None, work.policy)
    return verify.confirm(work.download, filled.found, work.name,
                          work.policy)


def inspect_base(recorded: Format | None, work: Work,
                 filled: Filled) -> Validated:
    """Validate a file that becomes a base unchanged: raw or qcow2."""
    found = inspector.inspect(work.download, work.name, recorded,
                              work.policy.accepted & set(NATIVE))
    validated = verify.confirm(work.download, found, work.name, work.policy)
    verify.require_intact(validated, work.name, work.policy)
    return validated


def trust(work: Work, filled: Filled) -> Validated:
    """Accept a file that this host wrote, as raw."""
    return take_as_raw(work.download.stat().st_size, work, filled)


def take_as_raw(size: int, work: Work, filled: Filled) -> Validated:
    return Validated(work.download, Format.RAW, whole_sectors(size))


def inherit(original: Base, work: Work, filled: Filled) -> Validated:
    """Return the facts of the original base, for its copy."""
    return dataclasses.replace(original.content, path=work.download)


# The third step: make it a base.

def keep(work: Work, staging: Staging, validated: Validated) -> Validated:
    """Keep the file as it is, and flush it."""
    durable.fsync_file(validated.path)
    return validated


def to_native(work: Work, staging: Staging,
              validated: Validated) -> Validated:
    """Convert to raw, unless the file can be a base as it is."""
    if validated.format in NATIVE and staging.keeps_files:
        verify.require_intact(validated, work.name, work.policy)
        return keep(work, staging, validated)
    return to_raw(work, staging, validated)


def to_raw(work: Work, staging: Staging, validated: Validated) -> Validated:
    """Convert to a sparse raw output; on an error there is no base."""
    if validated.format is Format.RAW and staging.keeps_files:
        return keep(work, staging, validated)
    needed = convert.data_size(validated, work.name, work.policy)
    convert.to_raw(
        validated, staging.writing(validated.virtual_size, needed),
        work.policy, work.name, work.observe)
    verify.refuse_nested(staging.head(raw.NEEDED), work.name)
    validated.path.unlink()
    return dataclasses.replace(validated, path=staging.output,
                               format=Format.RAW)


def enlarge(original: Base, source: sources.Resized, work: Work,
            staging: Staging, validated: Validated) -> Validated:
    """Give a copy of a base another size; in a raw copy, grow a file system.

    :raises ImageUnacceptable: qemu-img failed, because the original is
        damaged
    """
    with durable.written(validated.path), \
            verify.blaming(original.content, work.name, work.policy):
        reason = resize.enlarge(validated.path, validated.format,
                                source.size, work.policy)
    if reason:
        work.observe(Event(Name.FILESYSTEM_NOT_RESIZED, source.key,
                           {"reason": reason}))
    return dataclasses.replace(validated, virtual_size=source.size)
