# SPDX-License-Identifier: Apache-2.0
"""What the answers of HTTP servers mean, for every store that speaks HTTP.

Errors of requests, urllib3 and keystoneauth are translated here.
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

_PATIENCE = 0.5    # seconds to wait for a chunk to be full
_LONGEST_PHRASE = 100    # characters of what a server says
_LONGEST_REASON = 400
# Glance answers 400 if its store cannot start at an offset (rbd).
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
class Exchange:
    """A server, an image and the limits: the facts of every error."""

    source: str               # the server, for people; without secrets
    image_id: str
    timeout: float            # the read time-out, in seconds
    size: int | None = None   # bytes that the image has

    @contextlib.contextmanager
    def stream(self, get: Get, image: Description,
               offset: int) -> Iterator[Stream]:
        """Yield the bytes from ``offset`` on.

        They start at 0 if the server cannot start at an offset.

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
        """Raise this library's error for an answer that is no success."""
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
        """Return this library's error for an error of another library."""
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
        """Refuse a body that is encoded: the request did not allow it."""
        coding = answer.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise self.misbehaved(f"it sent the bytes encoded as {coding}")

    def content_length(self, answer: requests.Response) -> int | None:
        """Return the bytes in the body; None if the server does not say."""
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
        # A digest is a better check, and the servers behind one name can
        # have different ETags.
        if not image.digest and _differ(image.version, validator(answer)):
            raise exception.ImageUnacceptable(
                image_id=self.image_id, reason="it was changed in the store"
                " after it was described; try again")

    def _chunks(self, answer: requests.Response,
                received: int) -> Iterator[bytes]:
        # read1() returns the bytes that have arrived.  read() and
        # iter_content() wait for a whole chunk, and lose it if the connection
        # breaks.  Here the bytes before the break are yielded first, so the
        # next attempt resumes after them, and the bytes of a slow connection
        # are yielded in time for its rate to be measured.
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
    """Return what If-Range takes: it changes when the bytes do."""
    tag: str = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _differ(described: str | None, now: str | None) -> bool:
    """Return whether two validators of one kind, ETag or date, differ."""
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
    """Return the innermost cause; None if its text shows a secret of a URL.

    The outer errors hold whole URLs, and a traceback shows their text.
    """
    *_, last = _causes(error)
    return last if text.mask_urls(str(last)) == str(last) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, outermost first.

    Each library keeps the cause in its own way: in ``reason``, in ``args``,
    with ``from`` or as the context.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        inner = (getattr(cause, "reason", None), *reversed(cause.args),
                 cause.__cause__, cause.__context__)
        cause = next((each for each in inner
                      if isinstance(each, BaseException)), None)
