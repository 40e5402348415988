# SPDX-License-Identifier: Apache-2.0
"""A base's record as text, as each store keeps it."""

from __future__ import annotations

import dataclasses
import json
from typing import get_type_hints

from imagecache.model import Record, native

_FIELDS = get_type_hints(Record)


def written(record: Record, indent: int | None = None) -> str:
    return json.dumps(dataclasses.asdict(record), indent=indent)


def read(text: str | bytes) -> Record | None:
    """Return the record, or None if that is none."""
    try:
        found = json.loads(text)
        record = Record(**(found | {"format": native(found["format"])}))
    except (ValueError, TypeError, KeyError):
        return None
    return record if all(isinstance(getattr(record, name), kind)
                         for name, kind in _FIELDS.items()) else None
