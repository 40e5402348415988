# SPDX-License-Identifier: Apache-2.0
"""What the answers of HTTP servers mean, for every store that speaks HTTP.

Errors of requests, urllib3 and keystoneauth end here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import re
import time
from collections.abc import Callable, Iterator, Mapping

import requests
import urllib3.exceptions

from imagecache import exception, text
from imagecache.model import Description, MiB
from imagecache.sources import Stream

Get = Callable[[Mapping[str, str]], requests.Response]

# Glance answers 400 where its store cannot start in the middle (rbd).
_PATIENCE = 0.5    # seconds to wait for a chunk to be full
_LONGEST_PHRASE = 100    # characters of what a server says
_LONGEST_REASON = 400
_RANGE_REFUSED = (400, 416)
_GONE = (404, 410)
_REFUSED = (401, 403)
_BUSY = (408, 425, 429)
_STALLED = (requests.exceptions.ReadTimeout,
            urllib3.exceptions.ReadTimeoutError)
# What http.client, requests and this library say of an improper answer.
_IMPROPER = (http.client.HTTPException,
             requests.exceptions.ContentDecodingError)
# ... among which are these, of a connection that broke.
_BROKEN = (http.client.IncompleteRead, http.client.RemoteDisconnected)


@dataclasses.dataclass(frozen=True)
class Asking:
    """Whom we ask for which image: the facts of every error."""

    source: str               # as a person knows it, without secrets
    image_id: str
    timeout: float            # seconds without a byte that are too many
    size: int | None = None   # bytes promised

    @contextlib.contextmanager
    def stream(self, get: Get, image: Description,
               offset: int) -> Iterator[Stream]:
        """The bytes from ``offset`` on, or from 0 if that cannot be had.

        :raises SourceError:
        :raises ImageError:
        """
        with contextlib.closing(get(_range(image, offset))) as answer:
            if not offset or answer.status_code not in _RANGE_REFUSED:
                yield self._stream(answer, image, offset)
                return
        with contextlib.closing(get({})) as answer:
            yield self._stream(answer, image, 0)

    def require_success(self, answer: requests.Response) -> None:
        """Raise what an answer other than success means here."""
        status = answer.status_code
        phrase = text.one_line(str(answer.reason or ""), _LONGEST_PHRASE)
        said = f"it answered {status} {phrase}".rstrip()
        if status in (200, 204, 206):
            return
        if status in _GONE:
            raise exception.ImageNotFound(image_id=self.image_id)
        if status in _REFUSED:
            raise exception.Forbidden(image_id=self.image_id, reason=said)
        if status in _BUSY or status >= 500:
            raise exception.SourceUnreachable(
                f"{self.source} cannot serve image {self.image_id} now:"
                f" {said}", **self._facts(), reason=said)
        raise self.misbehaved(said)

    def misbehaved(self, reason: str) -> exception.SourceMisbehaved:
        return exception.SourceMisbehaved(
            **self._facts(), reason=_shown(reason))

    def failure(self, error: BaseException,
                received: int = 0) -> exception.SourceError:
        """What the error of a library below means here."""
        causes = tuple(_causes(error))
        if any(isinstance(cause, _STALLED) for cause in causes):
            return exception.DownloadStalled(
                **self._facts(), timeout=self.timeout, received=received)
        last = causes[-1]
        if isinstance(last, _IMPROPER) \
                and not isinstance(last, _BROKEN):
            return self.misbehaved(str(last) or type(last).__name__)
        return exception.SourceUnreachable(
            **self._facts(), reason=_shown(
                getattr(last, "strerror", None) or str(last)
                or type(last).__name__))

    def _stream(self, answer: requests.Response, image: Description,
                offset: int) -> Stream:
        self.require_success(answer)
        self.require_plain(answer)
        if answer.status_code == 204:
            raise self.misbehaved("it answered 204 No Content")
        if answer.status_code == 200:
            offset = 0
        elif _content_range(answer) != offset:
            raise self.misbehaved(
                f"asked for the bytes from {offset} on, it sent"
                f" {answer.headers.get('Content-Range', 'no Content-Range')}")
        self._require_described(answer, image, offset)
        return Stream(offset, self._chunks(answer, offset))

    def require_plain(self, answer: requests.Response) -> None:
        """Raise if the bytes were encoded, as none was asked to do."""
        coding = answer.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise self.misbehaved(f"it sent the bytes encoded as {coding}")

    def content_length(self, answer: requests.Response) -> int | None:
        """How many bytes this answer has.  None: it does not say."""
        length = answer.headers.get("Content-Length")
        if length is None:
            return None
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise self.misbehaved(f"its Content-Length is {length!r:.40}")
        return int(length)

    def _require_described(self, answer: requests.Response,
                           image: Description, offset: int) -> None:
        length = self.content_length(answer)
        if length is not None and image.size not in (None, offset + length):
            raise exception.ImageSizeMismatch(
                image_id=self.image_id, expected=image.size,
                actual=offset + length)
        # A digest says it better, and the servers behind one name need not
        # agree on their ETags.
        if not image.digest and _differ(image.version, validator(answer)):
            raise exception.ImageUnacceptable(
                image_id=self.image_id, reason="it was changed in the store"
                " after it was described; try again")

    def _chunks(self, answer: requests.Response,
                received: int) -> Iterator[bytes]:
        # read1() hands over what has come.  read() and iter_content() wait
        # for the whole chunk, and lose what came if the connection breaks;
        # here it comes out first, so the next attempt goes on after it.  On a
        # slow line it comes out in time to be noticed as slow.
        pieces: list[bytes] = []
        missing, due = MiB, time.monotonic() + _PATIENCE
        try:
            while piece := answer.raw.read1(missing, decode_content=False):
                pieces.append(piece)
                received += len(piece)
                missing -= len(piece)
                if not missing or time.monotonic() > due:
                    yield b"".join(pieces)
                    pieces.clear()
                    missing, due = MiB, time.monotonic() + _PATIENCE
        except (urllib3.exceptions.HTTPError, OSError) as e:
            if pieces:
                yield b"".join(pieces)
            if any(isinstance(cause, http.client.IncompleteRead)
                   for cause in _causes(e)):
                raise self._truncated(received) from root(e)
            raise self.failure(e, received) from root(e)
        if pieces:
            yield b"".join(pieces)
        if self.size is not None and received < self.size:
            raise self._truncated(received)

    def _truncated(self, received: int) -> exception.DownloadTruncated:
        return exception.DownloadTruncated(
            **self._facts(), received=received, expected=self.size
            if self.size is not None else "an unknown number",
            reason="it closed the connection")

    def _facts(self) -> dict[str, str]:
        return {"source": self.source, "image_id": self.image_id}


def validator(answer: requests.Response) -> str | None:
    """What changes when the bytes do, as If-Range wants it."""
    tag: str = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _differ(described: str | None, now: str | None) -> bool:
    """Whether two validators of one kind, ETag or date, differ."""
    return (described is not None and now is not None and described != now
            and described.startswith('"') == now.startswith('"'))


def _range(image: Description, offset: int) -> dict[str, str]:
    if not offset:
        return {}
    asked = {"Range": f"bytes={offset}-"}
    return asked | ({"If-Range": image.version} if image.version else {})


def _content_range(answer: requests.Response) -> int | None:
    match = re.match(r"bytes ([0-9]{1,18})-",
                     answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _shown(reason: str) -> str:
    return text.one_line(text.mask_urls(reason), _LONGEST_REASON)


def root(error: BaseException) -> BaseException | None:
    """Return what lies lowest, unless it shows what is secret in a URL.

    What lies above it, which tracebacks show too, holds whole URLs.
    """
    *_, last = _causes(error)
    return last if text.mask_urls(str(last)) == str(last) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies below it, outermost first.

    Every library here wraps in its own way: in ``reason``, in ``args``, with
    ``from`` or just while handling.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        inner = (getattr(cause, "reason", None), *reversed(cause.args),
                 cause.__cause__, cause.__context__)
        cause = next((each for each in inner
                      if isinstance(each, BaseException)), None)
