# SPDX-License-Identifier: Apache-2.0
"""The record of an image in Glance, translated to this library's types."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping
from typing import Any

from imagecache.model import Description, Digest, GiB, Signature
from imagecache.sources import Copy


def locations(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the URLs of an image's data, each once."""
    places = [record.get("direct_url"),
              *(place["url"] for place in record.get("locations") or ())]
    return tuple(dict.fromkeys(str(place) for place in places if place))


def description(record: Mapping[str, Any]) -> Description:
    disk_format = record.get("disk_format")
    if not isinstance(disk_format, str | None):
        raise TypeError(f"disk_format is {disk_format!r}")
    return Description(
        ref=record["id"], identity=record["id"],
        size=_count("size", record["size"]),
        disk_format=disk_format, digest=_digest(record),
        min_disk=_count("min_disk", record.get("min_disk") or 0) * GiB,
        locations=locations(record),
        signature=_signature(record))


def plain_text(page: bytes) -> str:
    """Return the text of an error page."""
    # Of the first part: the search for tags in a huge page takes long.
    text = page[:4096].decode(errors="replace")
    return html.unescape(" ".join(re.sub("<[^>]*>", " ", text).split()))[:200]


def _count(name: str, value: Any) -> int:
    found = int(value)
    if found < 0:
        raise ValueError(f"{name} is {found}")
    return found


def copy_of(record: Mapping[str, Any], store: str) -> Copy:
    """Return the state of the copy of an image in another store.

    Failures are those of the last import, until the next import starts.
    """
    def stores(field: str) -> list[str]:
        return str(record.get(field) or "").split(",")

    if record.get("os_glance_import_task") \
            or store in stores("os_glance_importing_to_stores"):
        return Copy.COMING
    if store in stores("stores"):
        return Copy.THERE
    if store in stores("os_glance_failed_import"):
        return Copy.FAILED
    return Copy.ABSENT


def _signature(record: Mapping[str, Any]) -> Signature | None:
    """Return the signature in a record; None unless it is complete."""
    found = [str(record[name]) for name in (
        "img_signature", "img_signature_hash_method",
        "img_signature_key_type", "img_signature_certificate_uuid")
        if record.get(name)]
    return Signature(*found) if len(found) == 4 else None


def _digest(record: Mapping[str, Any]) -> Digest | None:
    """Return the strongest digest in a record that Python supports."""
    for algorithm, value in (
            (record.get("os_hash_algo"), record.get("os_hash_value")),
            ("md5", record.get("checksum"))):
        if value and algorithm in hashlib.algorithms_available:
            return Digest(str(algorithm), str(value).lower())
    return None
