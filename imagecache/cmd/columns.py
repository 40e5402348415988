# SPDX-License-Identifier: Apache-2.0
"""Values with two forms: in a table, and in JSON or YAML."""

from __future__ import annotations

import datetime

from cliff import columns

from imagecache.text import one_line


class Size(columns.FormattableColumn[int | None]):
    """A number of bytes; None if it is unknown."""

    def human_readable(self) -> str:
        return "-" if self._value is None else human_size(self._value)


class Maybe(columns.FormattableColumn[str | None]):
    """A text, or none."""

    def human_readable(self) -> str:
        return "-" if self._value is None else one_line(self._value)

    def machine_readable(self) -> str | None:
        # The YAML formatter does not accept an enum as text.
        return None if self._value is None else str(self._value)


class Time(columns.FormattableColumn[str | None]):
    """A time, in ISO 8601 and UTC; a table shows the local time."""

    @classmethod
    def at(cls, seconds: float) -> Time:
        """:param seconds: since the epoch"""
        return cls(datetime.datetime.fromtimestamp(
            int(seconds), datetime.UTC).isoformat())

    def human_readable(self) -> str:
        if not self._value:
            return "-"
        return datetime.datetime.fromisoformat(
            self._value).astimezone().strftime("%Y-%m-%d %H:%M:%S")


class Lines(columns.FormattableColumn[list[str]]):
    """Any number of names."""

    def human_readable(self) -> str:
        return "\n".join(map(one_line, self._value)) or "-"


def human_size(size: int) -> str:
    """Return a number of bytes with a unit, such as "2.0 GiB"."""
    if size < 1024:
        return f"{size} bytes"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        # 1023.97 would print as 1024.0
        if round(amount, 1) < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} PiB"
