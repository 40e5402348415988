# SPDX-License-Identifier: Apache-2.0
"""A key manager for castellan that reads keys from a directory.

The tests configure it for this library, and for the Glance of a test::

    [key_manager]
    backend = imagecache.tests.directory_keys.DirectoryKeys
    directory = /where/the/certificates/are

The module imports nothing of this library: Glance runs a copy of it in an
environment of its own.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from castellan.common import exception
from castellan.common.objects import (
    opaque_data,
    passphrase,
    symmetric_key,
    x_509,
)
from castellan.key_manager import key_manager
from oslo_config import cfg

OPTS = (
    cfg.StrOpt("directory"),
    # The user that may read keys; None: every user.
    cfg.StrOpt("reader"),
)


_KINDS: dict[str, Callable[..., Any]] = {
    ".der": x_509.X509,
    ".pass": passphrase.Passphrase,
    ".key": lambda key, id: symmetric_key.SymmetricKey(
        "AES", 8 * len(key), key, id=id),
    "": opaque_data.OpaqueData,
}


class DirectoryKeys(key_manager.KeyManager):
    """Reads certificates, passphrases and keys; the suffix says which."""

    def __init__(self, configuration: cfg.ConfigOpts) -> None:
        configuration.register_opts(OPTS, group="key_manager")
        options = configuration.key_manager
        self.directory = pathlib.Path(options.directory)
        self.reader = options.reader

    def get(self, context: Any, managed_object_id: str,
            metadata_only: bool = False) -> Any:
        if self.reader not in (None, getattr(context, "username", None)):
            raise exception.Forbidden()
        if not self.directory.is_dir():
            raise exception.KeyManagerError(reason="the directory is missing")
        for suffix, kind in _KINDS.items():
            path = self.directory / (managed_object_id + suffix)
            if path.exists():
                return kind(path.read_bytes(), id=managed_object_id)
        raise exception.ManagedObjectNotFoundError(uuid=managed_object_id)

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    create_key = create_key_pair = store = delete = _unused
    add_consumer = remove_consumer = _unused
