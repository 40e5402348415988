# SPDX-License-Identifier: Apache-2.0
"""How an image reference is parsed: by its form, without asking a store.

    a UUID                                        glance
    http://..., https://...[#sha256=<hex>]        http
    file:///...[#sha512=<hex>]                    file
    a path: with a slash, or of an existing file  file
"""

from __future__ import annotations

import os
import pathlib
import re
import urllib.parse
import uuid
from typing import Literal

from imagecache import exception, model, text

Kind = Literal["file", "http", "glance"]
MaybeDigest = model.Digest | None

_SCHEMES: dict[str, Kind] = {"file": "file", "http": "http", "https": "http"}
_SCHEME = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9+.-]*):(?P<url>//)?")

# The format that the end of a name claims.  ".img" claims none: such files
# are qcow2 as often as raw.  The claim catches, for example, an error page
# that a server sends instead of disk.qcow2 and that would count as raw.
_CLAIMS = {".qcow2": "qcow2", ".raw": "raw", ".vmdk": "vmdk", ".vdi": "vdi",
           ".vhd": "vhd", ".vhdx": "vhdx", ".iso": "iso"}


def kind_of(ref: str) -> Kind:
    """Return the kind of store that a reference belongs to.

    :raises InvalidImageRef: it belongs to none
    """
    if is_uuid(ref):
        return "glance"
    scheme = _SCHEME.match(ref)
    if scheme and scheme["url"]:
        kind = _SCHEMES.get(scheme["name"].lower())
        if kind:
            return kind
    elif _is_path(ref, has_scheme=scheme is not None):
        return "file"
    raise exception.InvalidImageRef(
        image_ref=text.mask_url(ref), reason="give the id of an image in"
        " Glance (a UUID), an http:// or https:// URL, or a path or file://"
        " URL (a file in the working directory as ./name)")


def is_uuid(ref: str) -> bool:
    """Return whether this is a UUID in Glance's form, in any case."""
    try:
        return str(uuid.UUID(ref)) == ref.lower()
    except ValueError:
        return False


def split_digest(url: str) -> tuple[str, model.Digest | None]:
    """Split a URL from the digest in its fragment, in pip's syntax.

    :raises InvalidImageRef: the fragment is anything but a digest
    """
    address, _, fragment = url.partition("#")
    if not fragment:
        return address, None
    algorithm, _, value = fragment.partition("=")
    try:
        if value and "@" not in fragment:   # or it is of a password
            return address, model.Digest(algorithm, value.lower())
        reason = "what follows # must be a digest: #sha256=<hex digits>"
    except exception.InvalidName as e:
        reason = e.message
    raise exception.InvalidImageRef(
        image_ref=text.mask_url(url), reason=reason)


def claimed_format(path: str) -> str | None:
    """Return the format that a name claims, as Glance calls it, or None."""
    return _CLAIMS.get(pathlib.PurePosixPath(path).suffix.lower())


def can_be_path(text: str) -> bool:
    """Say whether the kernel takes a text as a path."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:   # a surrogate that stands for no byte
        return False


def file_path(ref: str) -> tuple[pathlib.Path, model.Digest | None]:
    """Return the absolute path of a path or file:// URL, links resolved.

    :raises InvalidImageRef: it is not a path on this host
    """
    path, digest = ref, None
    if can_be_path(ref) and ref[:7].lower() == "file://":
        url, digest = split_digest(ref)
        host, slash, rest = url[7:].partition("/")
        if host.lower() not in ("", "localhost") or "?" in rest:
            raise exception.InvalidImageRef(
                image_ref=text.mask_url(ref), reason="a file URL is"
                " file:///path: it has no other host and no query")
        path = os.fsdecode(urllib.parse.unquote_to_bytes(slash + rest))
    if not can_be_path(path):
        raise exception.InvalidImageRef(
            image_ref=ref, reason="it is not a valid path")
    return pathlib.Path(os.path.realpath(path)), digest


def _is_path(ref: str, has_scheme: bool) -> bool:
    if ref.startswith(("/", "./", "../")):
        return True
    # "rbd:pool/image" has a slash but is never a path, even if such a file
    # exists: qemu-img would open it over the network.
    return not has_scheme and "\0" not in ref and "://" not in ref and (
        "/" in ref or os.path.lexists(ref))
