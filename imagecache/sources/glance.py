# SPDX-License-Identifier: Apache-2.0
"""Images in Glance, OpenStack's image service.

The record of an image is read through python-glanceclient, and its data
through keystoneauth, because glanceclient cannot start at an offset.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import keystoneauth1.exceptions as keystone
import requests
import urllib3.exceptions
from glanceclient.v2 import images, schemas  # type: ignore[import-untyped]
from keystoneauth1 import adapter as ks_adapter
from keystoneauth1 import session as ks_session
from keystoneauth1 import token_endpoint
from oslo_config import cfg

from imagecache import exception, text
from imagecache.model import Description
from imagecache.opts import glance as glance_opts
from imagecache.sources import (
    Copy,
    Stream,
    glance_records,
    resolve,
    transport,
    wire,
)

_GONE = ("deleted", "pending_delete", "killed")
_NO_SUCH_API = (404, 405)   # of an older Glance


class GlanceStore:
    """The images that the credentials of an adapter may see.

    An image's data never changes, so its id is all of its identity.

    :param connect_timeout: seconds to connect, and for the TLS handshake
    :param read_timeout: seconds for a record, for the head of an answer, and
        for each read of data
    :param servers: URLs to use in turn instead of the adapter's endpoint
    """

    def __init__(self, adapter: ks_adapter.Adapter, *,
                 connect_timeout: float = 10.0, read_timeout: float = 60.0,
                 servers: Sequence[str] = ()) -> None:
        self._adapter: ks_adapter.Adapter = _with_deadlines(
            adapter, (connect_timeout, read_timeout))
        self._timeout = (connect_timeout, read_timeout)
        self._servers = itertools.cycle(servers) if servers else None

    @classmethod
    def from_session(cls, session: ks_session.Session, *,
                     connect_timeout: float = 10.0,
                     read_timeout: float = 60.0, **options: Any) -> Self:
        """Return a store that uses a session, with options of an Adapter."""
        options = {"service_type": "image"} | options
        return cls(ks_adapter.Adapter(session, **options),
                   connect_timeout=connect_timeout, read_timeout=read_timeout)

    @classmethod
    def from_token(cls, endpoint: str, token: str, *,
                   verify: bool | str = True, connect_timeout: float = 10.0,
                   read_timeout: float = 60.0) -> Self:
        """Return a store that uses an endpoint and a token.

        :param verify: whether to check certificates, or the file with those
            of the authorities to trust
        """
        session = ks_session.Session(
            auth=token_endpoint.Token(endpoint, token), verify=verify)
        return cls.from_session(session, connect_timeout=connect_timeout,
                                read_timeout=read_timeout)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Self:
        """Return the store that [glance] configures.

        The credentials are those of [keystone_authtoken] if [glance] has
        none.

        :raises InvalidConfiguration: neither group has credentials
        """
        servers = glance_opts.servers(conf)
        return cls(glance_opts.adapter(conf),
                   connect_timeout=conf.image_cache.connect_timeout,
                   read_timeout=conf.image_cache.read_timeout,
                   # In random order, so that hosts begin with different ones.
                   servers=random.sample(servers, len(servers)))

    def describe(self, ref: str) -> Description:
        """Return the record of an image.

        :raises InvalidImageRef: ``ref`` is no UUID
        """
        client = self._client(ref)
        with _parsing(client.exchange):
            return glance_records.description(_record(client, ref))

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        """Open the bytes of an image that describe() returned."""
        client = self._client(image.ref, image.size)

        def get(headers: Mapping[str, str]) -> requests.Response:
            answer = client.data(headers)
            if answer.status_code in (204, 403):
                answer.close()
                self._explain(image.ref, answer.status_code)
            return answer

        with client.exchange.stream(get, image, offset) as stream:
            yield stream

    def locations(self, ref: str) -> tuple[str, ...]:
        """Return the URLs of an image's data that Glance shows.

        They are in the record of the image if Glance's
        show_multiple_locations or show_image_direct_url is on; services can
        read them through an API of their own.
        """
        client = self._client(ref)
        with _parsing(client.exchange):
            found = glance_records.locations(_record(client, ref))
            if found:
                return found
            answer = client.send("GET", f"/v2/images/{ref}/locations")
            if answer.status_code in (*_NO_SUCH_API, 403):
                return ()
            client.exchange.require_success(answer)
            return glance_records.locations(
                {"locations": answer.json()})

    def request_copy(self, ref: str, store: str) -> None:
        client = self._client(ref)
        _require_accepted(client.exchange, client.send(
            "POST", f"/v2/images/{ref}/import",
            {"method": {"name": "copy-image"}, "stores": [store]}))

    def copy_of(self, ref: str, store: str) -> Copy:
        client = self._client(ref)
        with _parsing(client.exchange):
            return glance_records.copy_of(_record(client, ref), store)

    def register(self, ref: str, location: str) -> None:
        """Give a queued image the data at a URL.

        Since Glance 30, services may add a location; Glance does so shortly
        after this call returns.  An older Glance, or a caller that is no
        service, needs show_multiple_locations.
        """
        client = self._client(ref)
        answer = client.send("POST", f"/v2/images/{ref}/locations",
                           {"url": location, "validation_data": {}})
        if answer.status_code in (*_NO_SUCH_API, 403):
            answer = client.send("PATCH", f"/v2/images/{ref}", [
                {"op": "add", "path": "/locations/-",
                 "value": {"url": location, "metadata": {}}}],
                "application/openstack-images-v2.1-json-patch")
        _require_accepted(client.exchange, answer)

    def _explain(self, image_id: str, status: int) -> None:
        """Raise the reason for an answer without data, if there is one."""
        self.describe(image_id)   # raises if the image was deactivated
        if status == 204:
            raise exception.ImageNotFound(
                f"Image {image_id} is active in Glance, but its data is not"
                " in the store behind it", image_id=image_id)

    def _client(self, image_id: str, size: int | None = None) -> _Endpoint:
        if not resolve.is_uuid(image_id):   # it becomes part of a URL
            raise exception.InvalidImageRef(
                image_ref=image_id, reason="it is not the UUID of an image")
        exchange = wire.Exchange("Keystone", image_id, self._timeout[1], size)
        with _translated(exchange):
            with contextlib.suppress(keystone.MissingAuthPlugin):
                self._adapter.get_token()
            endpoint = next(self._servers) if self._servers \
                else self._adapter.get_endpoint()
        if not endpoint:
            raise _not_in_catalogue(exchange)
        # Catalogues of old name the version as well.
        endpoint = re.sub(r"/v[0-9.]+/?$", "", endpoint)
        exchange = dataclasses.replace(
            exchange, source=f"Glance at {text.mask_url(endpoint)}")
        return _Endpoint(self._adapter, endpoint, self._timeout, exchange)


@dataclasses.dataclass(frozen=True)
class _Endpoint:
    """Requests to one endpoint; their errors are those of this library.

    glanceclient uses this object instead of its own HTTP client, which loses
    the status of some errors of gateways and fails on others.
    """

    adapter: ks_adapter.Adapter
    endpoint: str
    timeout: tuple[float, float]
    exchange: wire.Exchange

    def get(self, url: str, headers: Mapping[str, str]
            ) -> tuple[requests.Response, dict[str, Any]]:
        """Return an answer and the JSON object in it, for glanceclient."""
        answer = self._get(url, headers)
        self.exchange.require_success(answer)
        try:
            body = answer.json()
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise self.exchange.misbehaved("it sent no JSON object")
        return answer, body

    def data(self, headers: Mapping[str, str]) -> requests.Response:
        """Return an answer whose body is not read yet."""
        # The caller repeats the request, from the offset it has reached.
        return self._get(
            f"/v2/images/{self.exchange.image_id}/file",
            {"Accept-Encoding": "identity", **headers}, stream=True,
            connect_retries=0, status_code_retries=0,
            # keystoneauth logs what calls itself JSON or text, of any size.
            log=False)

    def send(self, method: str, url: str, body: object = None,
             media: str = "application/json") -> requests.Response:
        """Return an answer of any status."""
        if body is None:
            return self._request(method, url, {})
        return self._request(method, url, {"Content-Type": media},
                             data=json.dumps(body))

    def _get(self, url: str, headers: Mapping[str, str],
             **options: Any) -> requests.Response:
        return self._request("GET", url, headers, **options)

    def _request(self, method: str, url: str, headers: Mapping[str, str],
                 **options: Any) -> requests.Response:
        with _translated(self.exchange):
            return self.adapter.request(
                url, method,
                endpoint_override=self.endpoint, timeout=self.timeout,
                # A pooled connection may be dead, or shared after a fork.
                headers={"Connection": "close", **headers},
                # keystoneauth would send the token to the other server.
                redirect=False, raise_exc=False, **options)


def _with_deadlines(client: Any, timeout: tuple[float, float]) -> Any:
    """Return an adapter or a session as one whose requests all end.

    The caller's own stays as it is.  What both use is the credentials, and
    so the token.

    :param timeout: for connecting and reading, of requests to Keystone too
    """
    found = copy.copy(client)
    if isinstance(client, ks_session.Session):
        found.session = transport.Session(client.session)
        found._session = None   # or its end would close the caller's
        if found.timeout is None:
            found.timeout = timeout
    else:
        found.session = _with_deadlines(client.session, timeout)
    return found


class _AnySchema:
    """Replaces the schema that glanceclient would get from the server."""

    def get(self, name: str) -> Any:
        return schemas.Schema({"name": name, "properties": {}})


@contextlib.contextmanager
def _translated(exchange: wire.Exchange) -> Iterator[None]:
    try:
        yield
    except (keystone.Unauthorized, keystone.AuthorizationFailure) as e:
        raise exception.Forbidden(
            image_id=exchange.image_id,
            reason="Keystone does not accept the credentials") from e
    except keystone.EndpointNotFound as e:
        raise _not_in_catalogue(exchange) from e
    except (keystone.ClientException, requests.RequestException,
            urllib3.exceptions.HTTPError) as e:
        raise exchange.failure(e) from e
    except OSError as e:   # requests raises it for the file alone
        raise exception.InvalidConfiguration(
            option="[glance] cafile", value=None, reason=str(e)) from e


def _not_in_catalogue(exchange: wire.Exchange) -> exception.SourceUnreachable:
    return exception.SourceUnreachable(
        source="Glance", image_id=exchange.image_id, reason="Keystone's"
        " catalogue has no such endpoint of the image service; check"
        " valid_interfaces and region_name in [glance]")


@contextlib.contextmanager
def _parsing(exchange: wire.Exchange) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError,
            exception.InvalidName) as e:
        raise exchange.misbehaved(
            f"its record of the image is invalid: {e}") from e


def _require_accepted(exchange: wire.Exchange,
                      answer: requests.Response) -> None:
    """Raise the reason for which Glance refuses a request."""
    if answer.status_code in (400, 409):
        raise exception.ImageUnacceptable(
            image_id=exchange.image_id, reason=f"{exchange.source} answered: "
            + glance_records.plain_text(answer.content))
    if answer.status_code != 202:
        exchange.require_success(answer)


def _record(client: _Endpoint, ref: str) -> Mapping[str, Any]:
    """Return the record of an image, which must be active."""
    record: Mapping[str, Any] = images.Controller(
        client, _AnySchema()).get(ref)
    if str(record.get("id")).lower() != ref.lower():
        raise client.exchange.misbehaved("it described another image")
    status = record.get("status")
    if status in _GONE:
        raise exception.ImageNotFound(image_id=ref)
    if status != "active":
        raise exception.ImageNotActive(image_id=ref, status=status)
    return record
