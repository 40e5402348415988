# SPDX-License-Identifier: Apache-2.0
"""Download an image into a file, and verify it while it arrives.

Each byte is handled once: it is counted, digested, passed to an inspector,
and written, unless its block is all zeros.  A broken download continues where
it stopped; if the store cannot start in the middle, it starts again.  Memory
use does not depend on the image's size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable
from typing import BinaryIO

from imagecache import events, exception
from imagecache.inspection.inspector import CLAIMS, Found, Inspector
from imagecache.inspection.signatures import Indifferent, Verifier
from imagecache.model import Description, Digest, Format, whole_sectors
from imagecache.sources import Image
from imagecache.system import durable

# The digest on record of an image whose store gives none.
_OWN_DIGEST = "sha256"
_BLOCK = 64 * 1024      # holes are found in these units
_ZEROS = bytes(_BLOCK)
_WINDOW = 60.0          # seconds over which a rate is an average
_FIRST_PAUSE = 0.5      # seconds before the first retry; doubled each time


# Raises if no disk can have so many bytes, or not the one that is wanted.
RequireFit = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Received:
    """A complete download: the size and digest are the whole image's."""

    size: int
    digest: Digest
    found: Found


class Receiver:
    """A file that is being downloaded, and the checks of its content.

    :param admission: says whether an image of this size is wanted
    :param new_inspector: called each time the download starts again
    :param new_verifier: the same, for the verifier of the signature
    """

    def __init__(self, file: BinaryIO, algorithm: str, admission: Admission,
                 new_inspector: Callable[[], Inspector],
                 new_verifier: Callable[[], Verifier] = Indifferent) -> None:
        self._file = file
        self._admission = admission
        self._algorithm = algorithm
        self._new_inspector = new_inspector
        self._new_verifier = new_verifier
        self.restarts = -1
        self.start_again()

    def start_again(self) -> None:
        self.size = 0
        self.restarts += 1
        self._hash = hashlib.new(self._algorithm, usedforsecurity=False)
        self._verifier = self._new_verifier()
        self._inspector = self._new_inspector()
        self._file.truncate(0)

    def take(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._verifier.update(chunk)
        if self._inspector.needs_more:
            self._inspector.feed(chunk)
        self._admission.check(self._inspector, self.size + len(chunk))
        for start in range(0, len(chunk), _BLOCK):
            block = chunk[start:start + _BLOCK]
            if block != _ZEROS[:len(block)]:
                self._write(block, self.size + start)
        self.size += len(chunk)

    def _write(self, block: bytes, offset: int) -> None:
        self._file.seek(offset)
        rest = memoryview(block)
        while rest:    # a short write has no error; the next one has it
            rest = rest[self._file.write(rest):]

    def finish(self, wanted: Description,
               path: pathlib.Path) -> Received:
        """Complete the file, verify it, and inspect it as a whole.

        :raises ImageUnacceptable: its digest, its signature or its content
            is not what it should be
        """
        self._file.truncate(self.size)
        digest = Digest(self._algorithm, self._hash.hexdigest())
        if wanted.digest and wanted.digest != digest:
            raise exception.ImageDigestMismatch(
                image_id=wanted.ref, algorithm=wanted.digest.algorithm,
                expected=wanted.digest.value, actual=digest.value)
        self._verifier.verify()
        return Received(self.size, digest, self._inspector.finish(path))


class Admission:
    """Refuses an image as soon as its size is known, and not at its end.

    A raw image has the size that its store describes; that of others is in
    the first cluster.  An image that fits no disk is refused before a lack of
    space is reported: no other host could take it either.
    """

    def __init__(self, wanted: Description, directory: pathlib.Path,
                 require_fit: RequireFit) -> None:
        self._wanted = wanted
        self._directory = directory
        self._require_fit = require_fit
        self._has_space = False

    def expect(self) -> None:
        """Check what the store's description tells.

        :raises FlavorDiskTooSmall, ImageTooLarge: a raw image does not fit
        :raises NoSpace: there is no space for it
        """
        claim = self._wanted.disk_format
        if claim and CLAIMS.get(claim) is Format.RAW:
            self._require_fit(whole_sectors(self._wanted.size or 0))
            self._require_space()

    def check(self, inspector: Inspector, received: int) -> None:
        """Check what the first bytes told an inspector.

        :raises FlavorDiskTooSmall, ImageTooLarge: the image does not fit
        :raises NoSpace: there is no space for it
        """
        if inspector.format is None:
            return
        self._require_fit(inspector.least_size(
            max(received, self._wanted.size or 0)))
        if not self._has_space:
            self._require_space()

    def _require_space(self) -> None:
        durable.require_space(self._directory, self._wanted.size or 0,
                              "downloading an image")
        self._has_space = True


class RateLimit:
    """Ends a download that is so slow that it would take too long."""

    def __init__(self, image: Description, min_rate: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._image = image
        self._min_rate = min_rate
        self._clock = clock
        self._since, self._received = clock(), 0

    def count(self, size: int) -> None:
        """Count bytes that arrived.

        :raises DownloadTooSlow: too few arrived in the last minute
        """
        self._received += size
        elapsed = self._clock() - self._since
        if elapsed < _WINDOW:
            return
        rate = self._received / elapsed
        if rate < self._min_rate:
            raise exception.DownloadTooSlow(
                source="The image store", image_id=self._image.ref,
                rate=round(rate), min_rate=self._min_rate,
                received=self._received)
        self._since, self._received = self._clock(), 0


@dataclasses.dataclass(frozen=True)
class DownloadLimits:
    """How large a download may be, how often it may break, how slow it is."""

    size: int | None = None     # bytes
    # How often in a row a broken download continues without a new byte.
    retries: int = 3
    min_rate: int = 0           # bytes a second, on average over a minute


def download(image: Image, path: pathlib.Path, limits: DownloadLimits,
             new_inspector: Callable[[], Inspector], observe: events.Observer,
             pause: Callable[[float], None] = time.sleep,
             require_fit: RequireFit = lambda size: None) -> Received:
    """Read a whole image into a new file.

    :param require_fit: called with the bytes a guest will see, or will see
        at least, as soon as they are known
    :param new_inspector: called each time the download begins again
    :raises ImageUnacceptable: the inspector refuses it
    :raises ImageTooLarge: it has more bytes than the limits allow
    :raises FlavorDiskTooSmall: ``require_fit`` refuses its size
    :raises ImageSizeMismatch, ImageDigestMismatch: its bytes are not
        those that its store describes
    :raises ImageSignatureInvalid: they are not those that were signed
    :raises SourceError: the store failed more often than the limits allow
    :raises NoSpace, StorageFailed: this host could not write it
    """
    wanted = image.description
    _require_size(wanted, wanted.size, limits.size)
    admission = Admission(wanted, path.parent, require_fit)
    admission.expect()
    with durable.translated("writing a download", path), \
            path.open("xb", buffering=0) as file:
        receiver = Receiver(
            file, _algorithm(wanted), admission, new_inspector,
            image.signer.verifier if image.signer else Indifferent)
        _persist(image, receiver, limits, observe, pause)
        received = receiver.finish(wanted, path)
    observe(events.Event(events.Name.VERIFIED, wanted.ref, {
        "size": received.size, "digest": str(received.digest)}))
    return received


def _persist(image: Image, receiver: Receiver, limits: DownloadLimits,
             observe: events.Observer,
             pause: Callable[[float], None]) -> None:
    """Read to the end; continue after a break."""
    furthest = failures = restarts = 0
    # One for all attempts: a store that breaks off after each byte is slow.
    rate = RateLimit(image.description, limits.min_rate)
    while True:
        try:
            return _receive(image, receiver, limits.size, rate, observe)
        except exception.DownloadTooSlow:
            raise
        except exception.SourceError as e:
            # Only a resumed download gets further at the cost of new bytes.
            progress = receiver.size > furthest \
                and receiver.restarts == restarts
            failures = 1 if progress else failures + 1
            furthest = max(furthest, receiver.size)
            restarts = receiver.restarts
            if failures > limits.retries:
                raise
            observe(events.Event(events.Name.RETRY, image.name, {
                "reason": str(e), "offset": receiver.size}))
            pause(_FIRST_PAUSE * 2 ** (failures - 1))


def _algorithm(wanted: Description) -> str:
    return wanted.digest.algorithm if wanted.digest else _OWN_DIGEST


def _receive(image: Image, receiver: Receiver, limit: int | None,
             rate: RateLimit, observe: events.Observer) -> None:
    """Read what the receiver does not have yet."""
    wanted = image.description
    with image.store.read(wanted, receiver.size) as stream:
        if stream.offset not in (0, receiver.size):
            raise exception.SourceMisbehaved(
                source="The image store", image_id=wanted.ref,
                reason=f"asked to continue at {receiver.size}, it continued at"
                f" {stream.offset}")
        if stream.offset != receiver.size:
            receiver.start_again()
        for chunk in stream.chunks:
            receiver.take(chunk)
            rate.count(len(chunk))
            _require_size(wanted, receiver.size, limit)
            if wanted.size is not None and receiver.size > wanted.size:
                raise exception.ImageSizeMismatch(
                    image_id=wanted.ref, expected=wanted.size,
                    actual=f"more than {wanted.size}")
            observe(events.Event(events.Name.DOWNLOAD, wanted.ref, {
                "done": receiver.size, "total": wanted.size}))
    if wanted.size is not None and receiver.size < wanted.size:
        raise exception.DownloadTruncated(
            source="The image store", image_id=wanted.ref,
            received=receiver.size, expected=wanted.size,
            reason="it ended the download without an error")


def _require_size(wanted: Description, size: int | None,
                  limit: int | None) -> None:
    if size is not None and limit is not None and size > limit:
        raise exception.ImageTooLarge(
            image_id=wanted.ref, size=size, what="to download",
            option="[image_cache] max_image_size", limit=limit)
