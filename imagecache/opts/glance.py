# SPDX-License-Identifier: Apache-2.0
"""The options of [glance]: nova's, and those of keystoneauth.

keystoneauth imports requests, which takes longer than all other imports here,
so it is imported at its first use.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oslo_config import cfg

from imagecache import exception

if TYPE_CHECKING:
    from keystoneauth1 import adapter as ks_adapter
    from keystoneauth1 import plugin as ks_plugin

GROUP = "glance"

_OPTS = (
    cfg.ListOpt(
        "api_servers",
        help="URLs of Glance servers, used in turn instead of the endpoint"
             " that the other options describe. A load balancer is a better"
             " way."),
    cfg.IntOpt(
        "num_retries", default=3, min=0,
        help="How often the request for the record of an image is repeated"
             " if Glance cannot be reached or is overloaded. For the data of"
             " the image see [image_cache] download_retries."),
    cfg.BoolOpt(
        "verify_glance_signatures", default=False,
        help="Refuse images that have no valid signature. Needs the extra"
             " 'signatures', and in [key_manager] the key manager with the"
             " signers' certificates. Says nothing about the signer without"
             " enable_certificate_validation."),
    cfg.BoolOpt(
        "enable_certificate_validation", default=False,
        help="Refuse images whose signer's certificate has no chain to a"
             " trusted certificate. The trusted certificates are those that"
             " the request names, or else default_trusted_certificate_ids."),
    cfg.ListOpt(
        "default_trusted_certificate_ids", default=[],
        help="Ids, in the key manager, of the certificates that are trusted"
             " if a request names none. They must include the whole chain, up"
             " to its self-signed root."),
)

# Old names that configuration files of nova can have.
_OLD_NAMES = {
    "insecure": [cfg.DeprecatedOpt("api_insecure", group=GROUP)],
    "cafile": [cfg.DeprecatedOpt("ca_file", group="ssl")],
    "certfile": [cfg.DeprecatedOpt("cert_file", group="ssl")],
    "keyfile": [cfg.DeprecatedOpt("key_file", group="ssl")],
}
_VERSIONS = ("version", "min_version", "max_version")   # set by this library


@functools.cache    # a host program may make many caches
def list_glance_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group, as oslo-config-generator wants them."""
    from keystoneauth1 import loading

    client = [option for option in loading.get_adapter_conf_options(
        include_deprecated=False) if option.dest not in _VERSIONS]
    cfg.set_defaults(client, service_type="image",
                     valid_interfaces=["internal", "public"])
    return [(GROUP, [
        *_OPTS, *client, *loading.get_auth_common_conf_options(),
        *loading.get_session_conf_options(deprecated_opts=_OLD_NAMES)])]


def register_glance_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option that ``conf`` does not have yet."""
    for group, options in list_glance_opts():
        _register_missing(conf, options, group)


def servers(conf: cfg.ConfigOpts) -> Sequence[str]:
    """Return the URLs that replace the endpoint, if there are any."""
    register_glance_opts(conf)
    return conf[GROUP].api_servers or ()


def adapter(conf: cfg.ConfigOpts) -> ks_adapter.Adapter:
    """Return the adapter that the options describe.

    The credentials are those of [keystone_authtoken] if [glance] has none.

    :raises InvalidConfiguration: neither has credentials, or they are not
        complete
    """
    from keystoneauth1 import adapter, loading

    register_glance_opts(conf)
    options = conf[GROUP]
    retries = options.num_retries
    return adapter.Adapter(
        loading.load_session_from_conf_options(
            # A pooled connection can be broken, or shared after a fork.
            conf, GROUP, additional_headers={"Connection": "close"}),
        auth=_credentials(conf),
        interface=options.valid_interfaces,
        connect_retries=_first(options.connect_retries, retries),
        status_code_retries=_first(options.status_code_retries, retries),
        **{name: options[name] for name in (
            "service_type", "service_name", "region_name",
            "endpoint_override", "connect_retry_delay",
            "status_code_retry_delay", "retriable_status_codes")})


def _credentials(conf: cfg.ConfigOpts) -> ks_plugin.BaseAuthPlugin:
    from keystoneauth1 import exceptions, loading

    for group in (GROUP, "keystone_authtoken"):
        _register_missing(
            conf, loading.get_auth_common_conf_options(), group)
        try:
            auth = loading.load_auth_from_conf_options(conf, group)
        except exceptions.ClientException as e:
            raise exception.InvalidConfiguration(
                option=f"[{group}] auth_type", value=conf[group].auth_type,
                reason=str(e)) from e
        if auth is not None:
            return auth
    raise exception.InvalidConfiguration(
        option=f"[{GROUP}] auth_type", value=None, reason="there are no"
        " credentials for Glance; if it needs none, say auth_type = none")


def _register_missing(conf: cfg.ConfigOpts, options: list[cfg.Opt],
                     group: str) -> None:
    for option in options:
        # A definition of the embedding program is kept.
        with contextlib.suppress(cfg.DuplicateOptError):
            conf.register_opt(option, group=group)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
