# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates and certificate authorities for signed images."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import pathlib
import uuid
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import (
    dsa,
    ec,
    ed25519,
    padding,
    rsa,
    x25519,
)

from imagecache.model import Signature

HASHES = {"SHA-224": hashes.SHA224(), "SHA-256": hashes.SHA256(),
          "SHA-384": hashes.SHA384(), "SHA-512": hashes.SHA512()}
# How to make a key, by the name that Glance gives its type.
KEYS = {
    "RSA-PSS": lambda: rsa.generate_private_key(65537, 2048),
    "DSA": lambda: dsa.generate_private_key(1024),
    "ECC_SECP384R1": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ECC_SECP521R1": lambda: ec.generate_private_key(ec.SECP521R1()),
}
# Types that cursive does not support.
_ODD_KEYS = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
}
_AUTHORITY = x509.KeyUsage(
    digital_signature=False, content_commitment=False,
    key_encipherment=False, data_encipherment=False, key_agreement=False,
    key_cert_sign=True, crl_sign=False, encipher_only=False,
    decipher_only=False)


@functools.cache
def key(kind: str = "RSA-PSS", which: str = "") -> Any:
    """Return a private key; the same arguments give the same key."""
    return (KEYS | _ODD_KEYS)[kind]()


@dataclasses.dataclass(frozen=True)
class Party:
    """The owner of a key, and what the certificate of the key says.

    :param issuer: of the certificate; None: it is self-signed
    :param valid: the first and the last day of the certificate, from today
    :param authority: whether it is the certificate of an authority
    :param path_length: how many authorities may be in a row below this one;
        None: any number
    """

    name: str
    kind: str = "RSA-PSS"
    issuer: Party | None = None
    valid: tuple[int, int] = (-1, 1)
    authority: bool = False
    path_length: int | None = None

    @property
    def key(self) -> Any:
        return key(self.kind, self.name)

    @functools.cached_property
    def certificate(self) -> bytes:
        """The certificate, in DER."""
        issuer, now = self.issuer or self, datetime.datetime.now(datetime.UTC)
        first, last = (now + datetime.timedelta(n) for n in self.valid)
        builder = x509.CertificateBuilder(
            issuer_name=_name(issuer.name), subject_name=_name(self.name),
            public_key=self.key.public_key(), serial_number=1,
            not_valid_before=first, not_valid_after=last)
        if self.authority:
            builder = builder.add_extension(x509.BasicConstraints(
                True, self.path_length), True).add_extension(_AUTHORITY, True)
        algorithm = None if issuer.kind == "Ed25519" else hashes.SHA256()
        return builder.sign(issuer.key, algorithm).public_bytes(
            serialization.Encoding.DER)

    def sign(self, data: bytes, hash_method: str = "SHA-256") -> str:
        """Return a signature, in the base64 that Glance stores."""
        match self.kind, HASHES[hash_method]:
            case "RSA-PSS", digest:
                value = self.key.sign(data, padding.PSS(
                    padding.MGF1(digest), padding.PSS.MAX_LENGTH), digest)
            case "DSA", digest:
                value = self.key.sign(data, digest)
            case _, digest:
                value = self.key.sign(data, ec.ECDSA(digest))
        return base64.b64encode(value).decode()


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


class Keys:
    """The directory of certificates that DirectoryKeys reads."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def add(self, party: Party) -> str:
        """Store the certificate of a party, and return its id."""
        certificate_id = str(uuid.uuid4())
        self.put(certificate_id, party.certificate)
        return certificate_id

    def put(self, certificate_id: str, certificate: bytes) -> None:
        (self.directory / f"{certificate_id}.der").write_bytes(certificate)

    def remove(self, certificate_id: str) -> None:
        (self.directory / f"{certificate_id}.der").unlink()

    def signed(self, data: bytes, party: Party,
               hash_method: str = "SHA-256") -> Signature:
        """Store the certificate of a party; return its signature of data."""
        return Signature(party.sign(data, hash_method), hash_method,
                         party.kind, self.add(party))


def properties_of(signature: Signature) -> dict[str, str]:
    """Return a signature as Glance has it."""
    return {"img_signature": signature.value,
            "img_signature_hash_method": signature.hash_method,
            "img_signature_key_type": signature.key_type,
            "img_signature_certificate_uuid": signature.certificate_id}
