# SPDX-License-Identifier: Apache-2.0
"""Images in Glance, OpenStack's image service.

What Glance knows of an image comes through python-glanceclient, the image
itself through keystoneauth, as glanceclient cannot start in the middle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
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

from imagecache import exception
from imagecache.model import Description, Digest, GiB, Signature
from imagecache.sources import Stream, glance_opts, resolve, wire

_GONE = ("deleted", "pending_delete", "killed")


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
        self._adapter = adapter
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
        if not resolve.is_uuid(ref):   # it becomes part of a URL
            raise exception.InvalidImageRef(
                image_ref=ref, reason="it is not the UUID of an image")
        door = self._door(ref)
        record = images.Controller(door, _AnySchema()).get(ref)
        if str(record.get("id")).lower() != ref.lower():
            raise door.asking.misbehaved("it described another image")
        status = record.get("status")
        if status in _GONE:
            raise exception.ImageNotFound(image_id=ref)
        if status != "active":
            raise exception.ImageNotActive(image_id=ref, status=status)
        try:
            return _description(record)
        except (TypeError, ValueError, KeyError,
                exception.InvalidName) as e:
            raise door.asking.misbehaved(
                f"what it says of the image makes no sense: {e}") from e

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

    def _explain(self, image_id: str, status: int) -> None:
        """Raise the true reason why there are no data, if there is one."""
        self.describe(image_id)   # if it was deactivated, this raises
        if status == 204:
            raise exception.ImageNotFound(
                f"Image {image_id} is active in Glance, but its data is not"
                " in the store behind it", image_id=image_id)

    def _door(self, image_id: str, size: int | None = None) -> _Door:
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
        return _Door(self._adapter, endpoint, self._timeout,
                     dataclasses.replace(
                         asking, source=f"Glance at {resolve.mask(endpoint)}"))


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
        except ValueError:
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
            connect_retries=0, status_code_retries=0)

    def _get(self, url: str, headers: Mapping[str, str],
             **options: Any) -> requests.Response:
        with _translated(self.asking):
            return self.adapter.get(
                url, endpoint_override=self.endpoint, timeout=self.timeout,
                # A pooled connection may be dead, or shared after a fork.
                headers={"Connection": "close", **headers},
                # keystoneauth would take the token to wherever it is sent.
                redirect=False, raise_exc=False, **options)


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
        " catalogue has no such endpoint of the image service")


def _description(record: Mapping[str, Any]) -> Description:
    places = [record.get("direct_url"),
              *(place["url"] for place in record.get("locations") or ())]
    disk_format = record.get("disk_format")
    if not isinstance(disk_format, str | None):
        raise TypeError(f"disk_format is {disk_format!r}")
    return Description(
        ref=record["id"], identity=record["id"], size=int(record["size"]),
        disk_format=disk_format, digest=_digest(record),
        min_disk=int(record.get("min_disk") or 0) * GiB,
        locations=tuple(dict.fromkeys(filter(None, places))),
        signature=_signature(record))


def _signature(record: Mapping[str, Any]) -> Signature | None:
    """Its owner wrote these properties; a part of them is no signature."""
    found = [str(record[name]) for name in (
        "img_signature", "img_signature_hash_method",
        "img_signature_key_type", "img_signature_certificate_uuid")
        if record.get(name)]
    return Signature(*found) if len(found) == 4 else None


def _digest(record: Mapping[str, Any]) -> Digest | None:
    """The best digest that Glance has and Python knows."""
    for algorithm, value in (
            (record.get("os_hash_algo"), record.get("os_hash_value")),
            ("md5", record.get("checksum"))):
        if value and algorithm in hashlib.algorithms_available:
            return Digest(str(algorithm), str(value).lower())
    return None
