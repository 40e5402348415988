# SPDX-License-Identifier: Apache-2.0
"""The signature of an image, and whether its signer is trusted.

The scheme is that of nova and Glance: properties of an image have a signature
of its bytes and the id of the signer's certificate, which is in a key manager.
cursive verifies signatures and chains of certificates; it is installed with
the extra ``signatures``, and imported when it is first needed.
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
# ValueError and TypeError are handled in the same way.
Certificates = Callable[[str], bytes]

# The owner of an image chooses the id, and key managers make paths of it.
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Verifier(Protocol):
    """Receives the bytes of an image once, from the first to the last."""

    def update(self, chunk: bytes) -> None: ...

    def verify(self) -> None:
        """Verify the signature of all bytes.

        :raises ImageSignatureInvalid: other bytes were signed
        """


class Indifferent:
    """The verifier of an image that need not be signed."""

    def update(self, chunk: bytes) -> None: ...

    def verify(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Demand:
    """The requirement that an image is signed by a trusted signer."""

    # Ids of certificates; a chain must lead from the signer's to one of them.
    # None: each signer with a certificate in the key manager is trusted.
    trusted: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Signer:
    """The stated signer of an image, and how to verify the signature."""

    certificate: str                   # its id and its digest, for records
    verifier: Callable[[], Verifier]   # called each time a download starts


def demand(policy: Policy, trusted: Sequence[str] | None,
           in_glance: bool) -> Demand | None:
    """Return what is required of an image; None: nothing.

    :param trusted: ids from the caller, which require a signature whatever
        the options are; None or empty: the ids in the options
    :param in_glance: the options apply to images in Glance only
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
    """Find the stated signer of an image, before the image is read.

    :raises ImageSignatureInvalid: it has no signature, or one of an unknown
        kind
    :raises CertificateValidationFailed: its signer is not trusted
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
        verifier()    # a bad signature is found before the download
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
                self._image, "its bytes are not those that its signer signed;"
                " sign it again, or upload the signed bytes")):
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
    """Return the certificate of an authority.

    :raises LookupError: it may not sign other certificates
    """
    chains, _ = _cursive()
    found = _certificate(certificate_id, certificates)
    if not chains.is_within_valid_dates(found):
        raise LookupError(f"{certificate_id} is not valid at this time")
    if not chains.can_sign_certificates(found, certificate_id):
        raise LookupError(f"{certificate_id} is not the certificate of an"
                          " authority")
    return found


def _require_root(certificate: x509.Certificate,
                  able: Mapping[str, x509.Certificate]) -> None:
    """Follow the chain of certificates to one that signed itself.

    cursive does the same, but does not end if two certificates signed each
    other.

    :raises LookupError: there is no such certificate
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
    """Return the certificate with this id.

    :raises LookupError, ValueError: there is none, or it cannot be read
    """
    from cryptography import x509

    if not _ID.fullmatch(certificate_id):
        raise LookupError(f"{certificate_id!r} is not the id of a certificate")
    return x509.load_der_x509_certificate(certificates(certificate_id))


def _name(certificate_id: str, certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes

    # In some key managers the certificate of an id can be replaced.
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
            "Signatures of images must be verified, but cursive is not"
            " installed; run: pip install 'imagecache[signatures]'",
            option="[glance] verify_glance_signatures", value=True,
            reason=str(e)) from e
    return certificate_utils, signature_utils


@contextlib.contextmanager
def _refusing(refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Raise a refusal if a name, a key or a certificate is bad.

    cursive raises its own error, errors of cryptography, and built-in errors
    for certificates with algorithms that it does not know.
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
