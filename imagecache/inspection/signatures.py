# SPDX-License-Identifier: Apache-2.0
"""Who signed an image, and whether that is somebody to trust.

The scheme is nova's and Glance's: properties of an image hold a signature of
its bytes and name its signer's certificate, which is in a key manager.
cursive knows the kinds of signatures and follows chains of certificates; it
comes with the extra ``signatures``, and is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from imagecache import exception
from imagecache.model import Description
from imagecache.policy import Policy

if TYPE_CHECKING:
    from cryptography import x509

# Returns a certificate (DER) by its id.  LookupError says why there is none;
# ValueError and TypeError are believed to say the same.
Certificates = Callable[[str], bytes]

# An image's owner chose the id, and key managers make paths of it.
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Verifier(Protocol):
    """Sees an image once, from its first byte to its last."""

    def update(self, chunk: bytes) -> None: ...

    def verify(self) -> None:
        """:raises ImageSignatureInvalid: this is not what was signed"""


class Indifferent:
    """The verifier of an image that need not be signed."""

    def update(self, chunk: bytes) -> None: ...

    def verify(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Demand:
    """That an image be signed."""

    # Ids of the certificates that the signer's must lead to; None: whoever
    # has a certificate in the key manager may sign.
    trusted: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Signer:
    """Whoever is said to have signed an image, and how to find out."""

    certificate: str                   # its id and its digest, for records
    verifier: Callable[[], Verifier]   # makes one for each beginning


def demand(policy: Policy, trusted: Sequence[str] | None,
           in_glance: bool) -> Demand | None:
    """Return what an image must fulfil; None: nothing.

    :param trusted: ids that the caller gave, which are a demand by
        themselves; None or empty for those of the options
    :param in_glance: the options speak of images in Glance
    """
    validating = in_glance and policy.validate_certificates
    found = tuple(trusted or ())
    if not found and validating:
        found = policy.trusted_certificates
    if found:
        return Demand(found)
    if in_glance and policy.verify_signatures:
        return Demand(() if validating else None)
    return None


def signer(image: Description, demand: Demand,
           certificates: Certificates) -> Signer:
    """Find out who is said to have signed an image, before it is read.

    :raises ImageSignatureInvalid: nobody, or in no way that is known here
    :raises CertificateValidationFailed: nobody who is trusted
    :raises InvalidConfiguration: cursive is not installed
    """
    _, kinds = _cursive()
    signature = image.signature
    if signature is None:
        raise _invalid(image, "it has no signature; the properties"
                       " img_signature, img_signature_hash_method,"
                       " img_signature_key_type and"
                       " img_signature_certificate_uuid must all be set")
    certificate_id = signature.certificate_id
    with _refusing(functools.partial(_invalid, image)):
        certificate = _certificate(certificate_id, certificates)
    if demand.trusted is not None:
        with _refusing(functools.partial(
                _untrusted, image, certificate_id)):
            _require_trust(certificate, demand.trusted, certificates)
    with _refusing(functools.partial(_invalid, image)):
        kind = kinds.SignatureKeyType.lookup(signature.key_type)
        key = certificate.public_key()
        if not isinstance(key, kind.public_key_type):
            raise LookupError(f"the key of certificate {certificate_id} is"
                              f" none for {signature.key_type}")
        verifier = functools.partial(
            _Verifier, image, kind.create_verifier,
            kinds.get_signature(signature.value),
            kinds.get_hash_method(signature.hash_method), key)
        verifier()    # what cannot be verified need not be read
    return Signer(_name(certificate_id, certificate), verifier)


class _Verifier:

    def __init__(self, image: Description, create: Callable[..., Any],
                 *args: Any) -> None:
        self._image = image
        self._verifier = create(*args)
        if self._verifier is None:
            raise LookupError("its signature is empty")

    def update(self, chunk: bytes) -> None:
        self._verifier.update(chunk)

    def verify(self) -> None:
        with _refusing(lambda _: _invalid(
                self._image, "its bytes are not those that were signed with"
                " the key of its certificate")):
            self._verifier.verify()


def _require_trust(certificate: x509.Certificate, trusted: Sequence[str],
                   certificates: Certificates) -> None:
    """:raises LookupError: no trusted certificate signed it"""
    if not trusted:
        raise LookupError(
            "no trusted certificates are named, neither in the request nor in"
            " [glance] default_trusted_certificate_ids")
    chains, _ = _cursive()
    able: dict[str, x509.Certificate] = {}
    unable = []
    for each in trusted:
        try:
            with _refusing(LookupError):
                able[each] = _authority(each, certificates)
        except LookupError as e:
            unable.append(str(e))
    try:
        _require_root(certificate, able)
    except LookupError as e:
        raise LookupError("; ".join([str(e), *unable])) from e
    context = chains.CertificateVerificationContext(list(able.items()))
    context.update(certificate)
    context.verify()


def _authority(certificate_id: str,
               certificates: Certificates) -> x509.Certificate:
    """:raises LookupError: it cannot vouch for others"""
    chains, _ = _cursive()
    found = _certificate(certificate_id, certificates)
    if not chains.is_within_valid_dates(found):
        raise LookupError(f"{certificate_id} is not valid at this time")
    if not chains.can_sign_certificates(found, certificate_id):
        raise LookupError(f"{certificate_id} is not that of an authority")
    return found


def _require_root(certificate: x509.Certificate,
                  able: Mapping[str, x509.Certificate]) -> None:
    """Follow who signed whom, to one that signed itself.

    cursive does the same, and never ends where two signed each other.

    :raises LookupError: there is no such one
    """
    chains, _ = _cursive()
    name, seen = "it", set()
    while certificate not in seen:
        seen.add(certificate)
        for issuer in able:
            if chains.is_issuer(able[issuer], certificate):
                break
        else:
            raise LookupError(f"no trusted certificate signed {name}")
        if able[issuer] == certificate:
            return
        name, certificate = issuer, able[issuer]
    raise LookupError("the trusted certificates signed each other")


def _certificate(certificate_id: str,
                 certificates: Certificates) -> x509.Certificate:
    """:raises LookupError, ValueError: there is none that can be read"""
    from cryptography import x509

    if not _ID.fullmatch(certificate_id):
        raise LookupError(f"{certificate_id!r} is no id of a certificate")
    return x509.load_der_x509_certificate(certificates(certificate_id))


def _name(certificate_id: str, certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes

    # Some key managers let another certificate take over an id.
    digest = certificate.fingerprint(hashes.SHA256()).hex()
    return f"{certificate_id} sha256:{digest}"


def _invalid(image: Description,
             reason: str) -> exception.ImageSignatureInvalid:
    return exception.ImageSignatureInvalid(image_id=image.ref, reason=reason)


def _untrusted(image: Description, certificate_id: str,
               reason: str) -> exception.CertificateValidationFailed:
    return exception.CertificateValidationFailed(
        cert_uuid=certificate_id, image_id=image.ref,
        reason=f"{reason} (image {image.ref})")


def _cursive() -> tuple[Any, Any]:
    try:
        from cursive import (  # type: ignore[import-untyped]
            certificate_utils,
            signature_utils,
        )
    except ImportError as e:
        raise exception.InvalidConfiguration(
            "Signatures of images are to be verified, and cursive is not"
            " installed: pip install 'imagecache[signatures]'",
            option="[glance] verify_glance_signatures", value=True,
            reason=str(e)) from e
    return certificate_utils, signature_utils


@contextlib.contextmanager
def _refusing(refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Turn what bad names, keys and certificates lead to into a refusal.

    Beside its own error cursive lets pass those of cryptography, and what
    comes of a certificate with algorithms it does not know.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cursive.exception import (  # type: ignore[import-untyped]
        SignatureVerificationError,
    )

    try:
        yield
    except (SignatureVerificationError, InvalidSignature, LookupError,
            UnsupportedAlgorithm, ValueError, TypeError, AttributeError) as e:
        reason = getattr(e, "kwargs", {}).get("reason")
        raise refusal(str(reason or e)) from e
