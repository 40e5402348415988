# SPDX-License-Identifier: Apache-2.0
"""A base's record as JSON text, which each store keeps with the base."""

from __future__ import annotations

import dataclasses
import json
from typing import get_type_hints

from imagecache.model import Record, native
from imagecache.text import mask_url

_FIELDS = get_type_hints(Record)


def dumps(record: Record, indent: int | None = None) -> str:
    return json.dumps(dataclasses.asdict(record), indent=indent)


def loads(text: str | bytes) -> Record | None:
    """Return the record that a text holds; None if it is not a record."""
    try:
        found = json.loads(text)
        record = Record(**(found | {"format": native(found["format"])}))
    except (ValueError, TypeError, KeyError):
        return None
    if not all(isinstance(getattr(record, name), kind)
               for name, kind in _FIELDS.items()):
        return None
    # Records of older versions hold whole URLs.
    return dataclasses.replace(record, source=mask_url(record.source))
