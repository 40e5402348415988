# SPDX-License-Identifier: Apache-2.0
"""Text from outside, made fit for messages, logs, records and terminals.

Servers, images and callers choose text that this library shows: reason
phrases, names of files, URLs.  Such text can hold secrets, escape sequences
for a terminal, forged lines of a log, and a million characters.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

# Characters of a message, and of one value in it.
LONGEST_MESSAGE = 4000
LONGEST_VALUE = 1000

_BREAKS = re.compile(r"[\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]+")
_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]*")
_MASKED_QUERY = re.compile(r"\*\*\*[0-9a-f]{12}")


def one_line(text: str, limit: int = LONGEST_MESSAGE) -> str:
    """Return a text as one line that every terminal can show.

    Line breaks and tabs become spaces.  Other characters that cannot be
    printed, and those that change the direction of writing, are escaped.

    :param limit: in characters; of a longer text the middle is left out
    """
    text = _BREAKS.sub(" ", shortened(text, 2 * limit)).strip()
    text = "".join(c if c.isprintable() else
                   c.encode("unicode_escape").decode() for c in text)
    return shortened(text, limit)


def shortened(text: str, limit: int) -> str:
    """Return a text of ``limit`` characters at most, with its start and end.

    Messages end with a rule, or with what to do.
    """
    tail = limit // 3
    return text if len(text) <= limit \
        else f"{text[:limit - tail - 3]}...{text[-tail:]}"


def filled_in(template: str, values: Mapping[str, Any]) -> str:
    """Return one line made of a template and values of limited length."""
    return one_line(template.format(**{
        name: shortened(value, LONGEST_VALUE) if isinstance(value, str)
        else value for name, value in values.items()}))


def mask_url(url: str) -> str:
    """Return a URL without its login, and with a digest for its query.

    A query can be as good as a password: that of a presigned URL is.  The
    digest tells URLs apart.  A masked URL is returned as it is, and so is
    a path.  In a URL with a mistake, everything that may be a
    password is masked.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in parts.fragment:
        return _mask_mistake(url)
    return parts._replace(
        netloc=re.sub("^.*@", "***@", parts.netloc),
        query=_mask_query(parts.query)).geturl()


def mask_urls(text: str) -> str:
    """Return a text of a program or library with its URLs masked."""
    text = re.sub(r"(?<=//)[^/\s]*@", "***@", text)
    return re.sub(r"\?[^\s'\"<>()]+", "?***", text)


def _mask_query(query: str) -> str:
    if not query or _MASKED_QUERY.fullmatch(query):
        return query
    return "***" + hashlib.sha256(
        query.encode(errors="surrogatepass")).hexdigest()[:12]


def _mask_mistake(text: str) -> str:
    scheme = _SCHEME.match(text)
    start = scheme[0] if scheme else ""
    if text.startswith(("/", "./", "../")):
        return text
    login, at, rest = text[len(start):].rpartition("@")
    if at and (":" in start or ":" in login):
        if "?" in login or "#" in login:   # of a password, or of a query
            return f"{start}***"
        text = f"{start}***@{rest}"
    if ":" in start and "?" in text:
        text = text[:text.index("?")] + "?***"
    return text
