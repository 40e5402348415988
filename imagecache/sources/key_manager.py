# SPDX-License-Identifier: Apache-2.0
"""The key manager that holds certificates and keys: Barbican, Vault, ...

It is accessed through castellan, which comes with the extras ``signatures``
and ``encryption``.
"""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from imagecache import exception


class KeyManager:
    """Reads from the key manager that [key_manager] configures.

    :param context: the credentials to use: a context of oslo.context or a
        credential of castellan; None for those in [key_manager]
    """

    def __init__(self, conf: cfg.ConfigOpts, context: Any = None) -> None:
        self._conf = conf
        self._context = context

    def certificate(self, certificate_id: str) -> bytes:
        """Return an X.509 certificate in DER.

        :raises LookupError: there is none with this id
        :raises KeyManagerFailed: it could not be read
        :raises InvalidConfiguration: [key_manager] is invalid
        """
        try:
            found = self._get(certificate_id, "certificate")
        except KeyError:
            raise LookupError("the key manager has no certificate"
                              f" {certificate_id}") from None
        if found.format != "X.509":
            raise LookupError(f"{certificate_id} is no X.509 certificate")
        return bytes(found.get_encoded())

    def passphrase(self, key_id: str) -> bytes:
        """Return a passphrase, or a key as hexadecimal digits, as nova does.

        :raises KeyManagerFailed: it could not be read
        :raises InvalidConfiguration: [key_manager] is invalid
        """
        from castellan.common.objects import passphrase

        try:
            found = self._get(key_id, "key")
        except KeyError as e:
            raise _failed(key_id, e, "key") from e
        secret = bytes(found.get_encoded())
        return secret if isinstance(found, passphrase.Passphrase) \
            else secret.hex().encode()

    def _get(self, object_id: str, what: str) -> Any:
        """:raises KeyError: there is none"""
        from castellan.common import exception as castellan
        from keystoneauth1 import exceptions as keystone

        context = self._credential()
        try:
            return self._manager().get(context, object_id)
        except castellan.ManagedObjectNotFoundError as e:
            raise KeyError("it has none of this id") from e
        except castellan.Forbidden as e:
            if context is None:
                raise _misconfigured("auth_type", None, str(e)) from e
            raise _failed(object_id, e, what) from e
        except (castellan.CastellanException, keystone.ClientException,
                OSError) as e:
            raise _failed(object_id, e, what) from e

    def _manager(self) -> Any:
        from castellan import key_manager

        try:
            # A new one for each call: an old connection may be broken, or
            # shared with another process after a fork.
            return key_manager.API(self._conf)
        except (ImportError, ValueError) as e:
            raise _misconfigured(
                "backend", self._conf.key_manager.backend, str(e)) from e

    def _credential(self) -> Any:
        from castellan.common import exception as castellan
        from castellan.common import utils

        if self._context is not None:
            return self._context
        self._conf.register_opts(utils.credential_opts, utils.OPT_GROUP)
        kind = self._conf.key_manager.auth_type
        if kind is None:    # Vault needs none
            return None
        try:
            return utils.credential_factory(self._conf)
        except castellan.CastellanException as e:
            raise _misconfigured("auth_type", kind, str(e)) from e


def _failed(object_id: str, error: Exception,
            what: str) -> exception.KeyManagerFailed:
    return exception.KeyManagerFailed(
        f"The key manager did not give {what} {object_id}: {error}",
        certificate_id=object_id, reason=str(error))


def _misconfigured(option: str, value: str | None,
                   reason: str) -> exception.InvalidConfiguration:
    return exception.InvalidConfiguration(
        option=f"[key_manager] {option}", value=value, reason=reason)
