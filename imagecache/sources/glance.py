# SPDX-License-Identifier: Apache-2.0
"""Images in Glance, OpenStack's image service.

What Glance knows of an image comes through python-glanceclient, the image
itself through keystoneauth, as glanceclient cannot start in the middle.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import html
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
_UNKNOWN = (404, 405)   # to a Glance that is older


class GlanceStore:
    """The images that the credentials of an adapter may see.

    An image's data never changes, so its id is all of its identity.

    :param connect_timeout: seconds until a connection must stand
    :param read_timeout: seconds without a byte after which Glance stalls
    :param servers: URLs to ask in turn in place of the adapter's endpoint
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
        """Read with a session, and the options of an Adapter."""
        options = {"service_type": "image"} | options
        return cls(ks_adapter.Adapter(session, **options),
                   connect_timeout=connect_timeout, read_timeout=read_timeout)

    @classmethod
    def from_token(cls, endpoint: str, token: str, *,
                   verify: bool | str = True, connect_timeout: float = 10.0,
                   read_timeout: float = 60.0) -> Self:
        """Read from an endpoint with a token.

        :param verify: whether to check certificates, or the file with those
            of the authorities to trust
        """
        session = ks_session.Session(
            auth=token_endpoint.Token(endpoint, token), verify=verify)
        return cls.from_session(session, connect_timeout=connect_timeout,
                                read_timeout=read_timeout)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Self:
        """Read as [glance] says, or [keystone_authtoken] where it does not.

        :raises InvalidConfiguration: they do not say whose credentials to use
        """
        servers = glance_opts.servers(conf)
        return cls(glance_opts.adapter(conf),
                   connect_timeout=conf.image_cache.connect_timeout,
                   read_timeout=conf.image_cache.read_timeout,
                   # Not every host should begin with the same one.
                   servers=random.sample(servers, len(servers)))

    def describe(self, ref: str) -> Description:
        """Say what Glance knows of an image.

        :raises InvalidImageRef: ``ref`` is no UUID
        """
        door = self._door(ref)
        with _sensible(door.asking):
            return glance_records.description(_record(door, ref))

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        """Open the bytes of an image that describe() described."""
        door = self._door(image.ref, image.size)

        def get(headers: Mapping[str, str]) -> requests.Response:
            answer = door.data(headers)
            if answer.status_code in (204, 403):
                answer.close()
                self._explain(image.ref, answer.status_code)
            return answer

        with door.asking.stream(get, image, offset) as stream:
            yield stream

    def locations(self, ref: str) -> tuple[str, ...]:
        """Return the URLs of an image's data, as far as Glance tells.

        It shows them in the image's record if show_multiple_locations or
        show_image_direct_url says so, and to services on a page of its own.
        """
        door = self._door(ref)
        with _sensible(door.asking):
            found = glance_records.locations(_record(door, ref))
            if found:
                return found
            answer = door.send("GET", f"/v2/images/{ref}/locations")
            if answer.status_code in (*_UNKNOWN, 403):
                return ()
            door.asking.require_success(answer)
            return glance_records.locations(
                {"locations": answer.json()})

    def request_copy(self, ref: str, store: str) -> None:
        door = self._door(ref)
        _require_taken(door.asking, door.send(
            "POST", f"/v2/images/{ref}/import",
            {"method": {"name": "copy-image"}, "stores": [store]}))

    def copy_of(self, ref: str, store: str) -> Copy:
        door = self._door(ref)
        with _sensible(door.asking):
            return glance_records.copy_of(_record(door, ref), store)

    def register(self, ref: str, location: str) -> None:
        """Make an image of what is at a URL; it has waited for its data.

        Services may add a location since Glance 30, which does so within
        moments after this returns; until then, and for whoever is none, it
        takes show_multiple_locations.
        """
        door = self._door(ref)
        answer = door.send("POST", f"/v2/images/{ref}/locations",
                           {"url": location, "validation_data": {}})
        if answer.status_code in (*_UNKNOWN, 403):
            answer = door.send("PATCH", f"/v2/images/{ref}", [
                {"op": "add", "path": "/locations/-",
                 "value": {"url": location, "metadata": {}}}],
                "application/openstack-images-v2.1-json-patch")
        _require_taken(door.asking, answer)

    def _explain(self, image_id: str, status: int) -> None:
        """Raise the true reason why there are no data, if there is one."""
        self.describe(image_id)   # if it was deactivated, this raises
        if status == 204:
            raise exception.ImageNotFound(
                f"Image {image_id} is active in Glance, but its data is not"
                " in the store behind it", image_id=image_id)

    def _door(self, image_id: str, size: int | None = None) -> _Door:
        if not resolve.is_uuid(image_id):   # it becomes part of a URL
            raise exception.InvalidImageRef(
                image_ref=image_id, reason="it is not the UUID of an image")
        asking = wire.Asking("Keystone", image_id, self._timeout[1], size)
        with _translated(asking):
            with contextlib.suppress(keystone.MissingAuthPlugin):
                self._adapter.get_token()
            endpoint = next(self._servers) if self._servers \
                else self._adapter.get_endpoint()
        if not endpoint:
            raise _not_in_catalogue(asking)
        # Catalogues of old name the version as well.
        endpoint = re.sub(r"/v[0-9.]+/?$", "", endpoint)
        asking = dataclasses.replace(
            asking, source=f"Glance at {text.mask_url(endpoint)}")
        return _Door(self._adapter, endpoint, self._timeout, asking)


@dataclasses.dataclass(frozen=True)
class _Door:
    """The way to one endpoint.  Errors come out of it as ours.

    It stands where glanceclient expects its own HTTP client, which would
    lose the status of a gateway's errors and trip over others.
    """

    adapter: ks_adapter.Adapter
    endpoint: str
    timeout: tuple[float, float]
    asking: wire.Asking

    def get(self, url: str, headers: Mapping[str, str]
            ) -> tuple[requests.Response, dict[str, Any]]:
        """Return an answer and the JSON object in it, as glanceclient asks."""
        answer = self._get(url, headers)
        self.asking.require_success(answer)
        try:
            body = answer.json()
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise self.asking.misbehaved("it sent no JSON object")
        return answer, body

    def data(self, headers: Mapping[str, str]) -> requests.Response:
        """Return an answer whose body is yet to be read."""
        # Whoever reads the body repeats all of it, with this.
        return self._get(
            f"/v2/images/{self.asking.image_id}/file",
            {"Accept-Encoding": "identity", **headers}, stream=True,
            connect_retries=0, status_code_retries=0,
            # keystoneauth logs what calls itself JSON or text, of any size.
            log=False)

    def send(self, method: str, url: str, body: object = None,
             media: str = "application/json") -> requests.Response:
        """Return an answer, whatever its status."""
        if body is None:
            return self._request(method, url, {})
        return self._request(method, url, {"Content-Type": media},
                             data=json.dumps(body))

    def _get(self, url: str, headers: Mapping[str, str],
             **options: Any) -> requests.Response:
        return self._request("GET", url, headers, **options)

    def _request(self, method: str, url: str, headers: Mapping[str, str],
                 **options: Any) -> requests.Response:
        with _translated(self.asking):
            return self.adapter.request(
                url, method,
                endpoint_override=self.endpoint, timeout=self.timeout,
                # A pooled connection may be dead, or shared after a fork.
                headers={"Connection": "close", **headers},
                # keystoneauth would take the token to wherever it is sent.
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
    """Stands where glanceclient asks the server what a record may contain."""

    def get(self, name: str) -> Any:
        return schemas.Schema({"name": name, "properties": {}})


@contextlib.contextmanager
def _translated(asking: wire.Asking) -> Iterator[None]:
    try:
        yield
    except (keystone.Unauthorized, keystone.AuthorizationFailure) as e:
        raise exception.Forbidden(
            image_id=asking.image_id,
            reason="Keystone does not accept the credentials") from e
    except keystone.EndpointNotFound as e:
        raise _not_in_catalogue(asking) from e
    except (keystone.ClientException, requests.RequestException,
            urllib3.exceptions.HTTPError) as e:
        raise asking.failure(e) from e
    except OSError as e:   # from requests, about nothing else
        raise exception.InvalidConfiguration(
            option="[glance] cafile", value=None, reason=str(e)) from e


def _not_in_catalogue(asking: wire.Asking) -> exception.SourceUnreachable:
    return exception.SourceUnreachable(
        source="Glance", image_id=asking.image_id, reason="Keystone's"
        " catalogue has no such endpoint of the image service; check"
        " valid_interfaces and region_name in [glance]")


@contextlib.contextmanager
def _sensible(asking: wire.Asking) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError,
            exception.InvalidName) as e:
        raise asking.misbehaved(
            f"what it says of the image makes no sense: {e}") from e


def _require_taken(asking: wire.Asking, answer: requests.Response) -> None:
    """Raise why Glance does not do what it was asked to."""
    if answer.status_code in (400, 409):
        raise exception.ImageUnacceptable(
            image_id=asking.image_id, reason=f"{asking.source} answered: "
            + _plain_text(answer.content))
    if answer.status_code != 202:
        asking.require_success(answer)


def _plain_text(page: bytes) -> str:
    """Return the words of an error page of Glance's."""
    # Of a page without an end: to look for tags takes time, too.
    text = page[:4096].decode(errors="replace")
    return html.unescape(" ".join(re.sub("<[^>]*>", " ", text).split()))[:200]


def _record(door: _Door, ref: str) -> Mapping[str, Any]:
    """What Glance knows of an active image."""
    record: Mapping[str, Any] = images.Controller(
        door, _AnySchema()).get(ref)
    if str(record.get("id")).lower() != ref.lower():
        raise door.asking.misbehaved("it described another image")
    status = record.get("status")
    if status in _GONE:
        raise exception.ImageNotFound(image_id=ref)
    if status != "active":
        raise exception.ImageNotActive(image_id=ref, status=status)
    return record
