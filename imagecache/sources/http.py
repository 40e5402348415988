# SPDX-License-Identifier: Apache-2.0
"""Images behind http:// and https:// URLs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Literal

import requests
import urllib3.exceptions

from imagecache import exception, text
from imagecache.model import Description
from imagecache.sources import Stream, resolve, transport, wire

Redirects = Literal["same-origin", "none", "any"]
Login = tuple[bytes, bytes]

MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
# Some servers lack HEAD, and a presigned URL can be signed for GET alone.
_HEAD_REFUSED = (403, 405, 501)


@dataclasses.dataclass(frozen=True)
class WebImage(Description):
    """A description with the secrets of its reference.

    They are kept apart from ``ref``, which is in messages and records.
    """

    identity: str = dataclasses.field(repr=False)
    # What to ask for: ``ref`` has no query.
    url: str = dataclasses.field(default="", repr=False)
    login: Login | None = dataclasses.field(default=None, repr=False)


class HttpStore:
    """Images on web servers.

    The identity of an image is its URL and digest; without a digest, its
    URL, ETag, Last-Modified and Content-Length.  If a server sends neither
    ETag nor Last-Modified, a changed image of the same size is not noticed:
    give a digest, ``#sha256=...``.

    :param connect_timeout: seconds to connect, and for the TLS handshake
    :param read_timeout: seconds for the head of an answer, and for each read
        of its body
    :param redirects: the redirects that are followed
    :param ca_file: trust the authorities in this file and no others
    :param insecure: do not check certificates
    """

    def __init__(self, connect_timeout: float = 10.0,
                 read_timeout: float = 60.0,
                 redirects: Redirects = "same-origin",
                 ca_file: pathlib.Path | None = None,
                 insecure: bool = False) -> None:
        self._timeout = (connect_timeout, read_timeout)
        self._redirects = redirects
        self._verify = False if insecure else str(ca_file or "") or True

    def describe(self, ref: str) -> Description:
        """Return the metadata that the server sends of an image.

        ``ref`` becomes the URL without login and digest, and with a digest
        in place of its query.

        :raises InvalidImageRef: ``ref`` is no http or https URL
        """
        url, login, digest = _parse(ref)
        exchange = self._exchange(url)
        with (transport.Session() as session,
              contextlib.closing(self._headers(session, exchange, url, login)
                                 ) as answer):
            exchange.require_success(answer)
            exchange.require_plain(answer)
            size = exchange.content_length(answer)
            version = "".join(
                f" {name}={answer.headers.get(name, '')}"
                for name in ("ETag", "Last-Modified", "Content-Length"))
            return WebImage(
                ref=exchange.image_id,
                identity=f"{url}#{digest or version}",
                size=size,
                disk_format=resolve.claimed_format(
                    urllib.parse.urlsplit(url).path),
                digest=digest,
                version=wire.validator(answer),
                url=url,
                login=login)

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        """Open the bytes of an image that describe() returned."""
        url, login = image.ref, None
        if isinstance(image, WebImage):
            url, login = image.url, image.login
        exchange = self._exchange(url, image.size)
        with transport.Session() as session:
            get = functools.partial(self._ask, session, exchange, url, login,
                                    "GET")
            with exchange.stream(get, image, offset) as stream:
                yield stream

    def _exchange(self, url: str, size: int | None = None) -> wire.Exchange:
        return wire.Exchange(_origin(url), text.mask_url(url),
                           self._timeout[1], size)

    def _headers(self, session: requests.Session, exchange: wire.Exchange,
                 url: str, login: Login | None) -> requests.Response:
        answer = self._ask(session, exchange, url, login, "HEAD", {})
        if answer.status_code not in _HEAD_REFUSED:
            return answer
        answer.close()
        return self._ask(session, exchange, url, login, "GET", {})

    def _ask(self, session: requests.Session, exchange: wire.Exchange,
             url: str, login: Login | None, method: str,
             headers: Mapping[str, str]) -> requests.Response:
        """Send a request, and follow redirects within limits."""
        first = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            same = _origin(url) == first
            answer = self._send(session, exchange, method, url, headers,
                                login if same else None)
            location = answer.headers.get("Location")
            if location is None or answer.status_code not in _REDIRECTS:
                return answer
            answer.close()
            url = self._next(exchange, url, location)
        raise exchange.misbehaved(
            f"it redirects more than {MAX_REDIRECTS} times")

    def _send(self, session: requests.Session, exchange: wire.Exchange,
              method: str, url: str, headers: Mapping[str, str],
              login: Login | None) -> requests.Response:
        try:
            # Proxies come from the environment.  With an ``auth``, even one
            # that does nothing, requests does not read .netrc.
            return session.request(
                method, url, timeout=self._timeout, verify=self._verify,
                allow_redirects=False, stream=True,
                auth=requests.auth.HTTPBasicAuth(*login) if login
                else _no_login,
                headers={"Accept-Encoding": "identity",
                         "User-Agent": "imagecache", **headers})
        except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
            raise exchange.failure(e) from wire.root(e)
        except OSError as e:   # requests raises it for the file alone
            raise exception.InvalidConfiguration(
                option="[image_cache] http_ca_file", value=self._verify,
                reason=str(e)) from e

    def _next(self, exchange: wire.Exchange, url: str, location: str) -> str:
        """Return the URL of a redirect.  A login in it is not used.

        :raises SourceMisbehaved: redirects to it are not followed
        """
        try:
            target, _, _ = _parse(urllib.parse.urljoin(
                url, urllib.parse.urldefrag(location).url))
        except (exception.InvalidImageRef, ValueError):
            raise exchange.misbehaved("it redirects to something that is no"
                                    " web address") from None
        here, there = _origin(url), _origin(target)
        if here.startswith("https:") and there.startswith("http:"):
            raise exchange.misbehaved(
                f"it redirects from https to {there}, where a third party on"
                " the way could change the image")
        if self._redirects == "none" or (
                self._redirects == "same-origin" and here != there):
            raise exchange.misbehaved(
                f"it redirects to {there}; use a URL there, or see the"
                " option [image_cache] http_redirects (it is"
                f" {self._redirects})")
        return target


def _parse(ref: str) -> tuple[str, Login | None, resolve.MaybeDigest]:
    """Split a reference into URL, login and digest."""
    address, digest = resolve.split_digest(ref)
    try:
        parts = urllib.parse.urlsplit(address)
        _ = parts.port     # raises ValueError if it is no number
        address.encode()   # or if it has a surrogate
    except ValueError:
        parts = urllib.parse.SplitResult("", "", "", "", "")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise exception.InvalidImageRef(
            image_ref=text.mask_url(ref),
            reason="it is not a valid http or https URL")
    user, at, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    login = (urllib.parse.unquote_to_bytes(name),
             urllib.parse.unquote_to_bytes(password)) if at else None
    return parts._replace(netloc=host).geturl(), login, digest


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (
        "" if port == _PORTS[parts.scheme] else f":{port}")


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
