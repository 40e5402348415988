# SPDX-License-Identifier: Apache-2.0
"""Signed images: by real keys, real certificates, cursive and castellan."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import uuid
from collections.abc import Iterator
from unittest import mock

import ddt
import fixtures
from castellan import key_manager as castellan
from castellan.common import utils
from castellan.common.credentials import password
from castellan.common.objects import x_509
from keystoneauth1 import exceptions as keystone

import imagecache
from imagecache import exception, fixture
from imagecache.model import Description, GiB, MiB, Signature
from imagecache.sources import Stream
from imagecache.testing import images
from imagecache.testing.memory import MemoryStore
from imagecache.tests import base, directory_keys, signing
from imagecache.tests.signing import Party

DATA = images.content(2 * MiB)
ROOT = Party("root", authority=True)
BETWEEN = Party("between", issuer=ROOT, authority=True)
ALICE = Party("alice", issuer=ROOT)
MALLORY = Party("mallory")
# An id that no certificate has.
UNKNOWN_ID = str(uuid.UUID(int=0))

Unsigned = exception.ImageSignatureInvalid
Untrusted = exception.CertificateValidationFailed


class SignaturesTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.keys = signing.Keys(self.root / "keys")
        self.images = self.useFixture(fixture.ImageCacheFixture())
        conf = self.images.conf
        for options in (castellan.key_manager_opts, utils.credential_opts,
                        directory_keys.OPTS):
            conf.register_opts(options, group="key_manager")
        self.set_keys(backend="imagecache.tests.directory_keys.DirectoryKeys",
                      directory=str(self.keys.directory))
        self.set(verify_glance_signatures=True)

    def set(self, **options: object) -> None:
        self.images.config("glance", **options)

    def set_keys(self, **options: object) -> None:
        self.images.config("key_manager", **options)

    def add(self, signature: Signature | None, data: bytes = DATA,
            disk_format: str = "raw") -> str:
        return self.images.store.add(data, disk_format, signature=signature)

    def signed(self, party: Party = ALICE) -> str:
        return self.add(self.keys.signed(DATA, party))

    def trust(self, *parties: Party) -> list[str]:
        """Return the ids of certificates that are to be trusted."""
        return [self.keys.add(party) for party in parties]

    def assert_accepted(self, ref: str, **options: object) -> str:
        """Fetch an image, and return the record of its signature."""
        with open(self.images.cache.fetch(ref, **options).path, "rb") as f:
            self.assertTrue(f.read() == DATA)
        return self.images.cache.base(ref).record.signature

    def assert_refused(self, error: type[Exception], words: str, ref: str,
                       *, read: bool = False, **options: object) -> None:
        """Find an image refused, with nothing left of it.

        :param read: whether it takes the image to refuse it
        """
        with self.assertRaisesRegex(error, words) as caught:
            self.images.cache.create_disk("instance", ref, **options)
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(int(read), self.images.store.reads)
        places = self.images.instances_path
        self.assertEqual([], list(self.images.cache.bases()))
        self.assertFalse((places / "instance").exists())
        staged = places / "_base" / ".staged"
        self.assertEqual([], os.listdir(staged) if staged.exists() else [])


@ddt.ddt
class SignedTest(SignaturesTestCase):

    @ddt.data(("RSA-PSS", "SHA-224"), ("RSA-PSS", "SHA-512"),
              ("DSA", "SHA-256"), ("ECC_SECP384R1", "SHA-384"),
              ("ECC_SECP521R1", "SHA-256"))
    @ddt.unpack
    def test_a_signed_image_is_accepted(self, kind: str, digest: str) -> None:
        signature = self.keys.signed(DATA, Party("x", kind), digest)
        record = self.assert_accepted(self.add(signature))
        self.assertRegex(record, "^" + signature.certificate_id
                         + " sha256:[0-9a-f]{64}$")
        self.assertEqual(
            ["miss", "verified", "signature_verified", "validated",
             "committed"], self.images.heard)
        self.assertEqual(record, self.images.events[-3].facts["certificate"])

    def test_the_signature_is_of_the_bytes_in_the_store(self) -> None:
        data = images.qcow2(DATA)
        self.assert_accepted(
            self.add(self.keys.signed(data, ALICE), data, "qcow2"))

    def test_an_image_that_is_not_signed_is_refused(self) -> None:
        self.assert_refused(Unsigned, "img_signature_certificate_uuid",
                            self.add(None))

    def test_an_image_with_one_changed_bit_is_refused(self) -> None:
        signature = self.keys.signed(DATA, ALICE)
        for place in (0, MiB + 1, len(DATA) - 1):
            with self.subTest(place):
                data = bytearray(DATA)
                data[place] ^= 1
                self.images.store.reads = 0
                self.assert_refused(
                    Unsigned, "not those that its signer signed",
                    self.add(signature, bytes(data)),
                                    read=True)

    @ddt.data(*signing.KEYS)
    def test_an_image_that_another_key_signed_is_refused(
            self, kind: str) -> None:
        signature = self.keys.signed(DATA, Party("x", kind))
        ref = self.add(dataclasses.replace(
            signature, certificate_id=self.keys.add(Party("y", kind))))
        self.assert_refused(Unsigned, "not those that its signer signed", ref,
                            read=True)

    @ddt.data(
        ({"key_type": "RSA"}, "RSA"),
        ({"key_type": "DSA"}, "none for DSA"),
        ({"hash_method": "MD5"}, "MD5"),
        ({"hash_method": "sha-256"}, "sha-256"),
        ({"value": "?"}, "empty"),
        ({"value": "A"}, "base64"),
        ({"value": "é"}, "ASCII"),
        ({"certificate_id": UNKNOWN_ID}, f"no certificate {UNKNOWN_ID}"))
    @ddt.unpack
    def test_an_image_with_an_unusable_signature_is_not_read(
            self, changes: dict[str, str], words: str) -> None:
        signature = self.keys.signed(DATA, ALICE)
        self.assert_refused(Unsigned, words, self.add(
            dataclasses.replace(signature, **changes)))

    @ddt.data("../alice", "./alice", "/alice", "alice?x", "alice#x", "%61",
              "alice\0", "alice\n", "a" * 65, "é")
    def test_a_certificate_id_with_other_characters_is_not_requested(
            self, certificate_id: str) -> None:
        """A key manager makes a path of it, and sends credentials there."""
        signature = self.keys.signed(DATA, ALICE)
        with mock.patch.object(directory_keys.DirectoryKeys, "get") as get:
            self.assert_refused(Unsigned, "not the id", self.add(
                dataclasses.replace(signature,
                                    certificate_id=certificate_id)))
        get.assert_not_called()

    def test_a_secret_that_is_no_certificate_is_refused(self) -> None:
        """The secret is not in the message: it may belong to another user."""
        (self.keys.directory / "a-secret").write_bytes(b"the secret")
        (self.keys.directory / "opaque").write_bytes(ALICE.certificate)
        self.keys.put("damaged", b"the secret")
        self.keys.put("cut-short", ALICE.certificate[:-1])
        for name in ("a-secret", "opaque", "damaged", "cut-short"):
            with self.subTest(name):
                ref = self.add(Signature(ALICE.sign(DATA), "SHA-256",
                                         "RSA-PSS", name))
                self.assert_refused(Unsigned, "", ref)
                with self.assertRaises(Unsigned) as caught:
                    self.images.cache.fetch(ref)
                self.assertNotIn("the secret", str(caught.exception))

    def test_a_certificate_that_the_key_manager_cannot_read_is_refused(
            self) -> None:
        """Barbican's client raises such errors; other clients KeyError."""
        ref = self.signed()
        for error in (ValueError("no PEM"), TypeError("no bytes"),
                      KeyError("no such")):
            with self.subTest(error), mock.patch.object(
                    directory_keys.DirectoryKeys, "get", side_effect=error):
                self.assert_refused(Unsigned, "no ", ref)

    def test_a_certificate_with_an_unknown_curve_is_refused(self) -> None:
        known, unknown = b"\x2b\x81\x04\0\x22", b"\x2b\x81\x04\0\x27"
        certificate = Party("x", "ECC_SECP384R1").certificate
        self.assertIn(known, certificate)
        self.keys.put("odd", certificate.replace(known, unknown))
        self.assert_refused(Unsigned, "1.3.132.0.39", self.add(
            Signature("AA==", "SHA-256", "ECC_SECP384R1", "odd")))

    def test_a_certificate_with_an_unknown_kind_of_key_is_refused(
            self) -> None:
        ref = self.add(Signature("AA==", "SHA-256", "RSA-PSS", self.keys.add(
            Party("x", "Ed25519"))))
        self.assert_refused(Unsigned, "none for RSA-PSS", ref)

    def test_signatures_are_not_verified_unless_required(self) -> None:
        self.set(verify_glance_signatures=False)
        ref = self.add(Signature("x", "x", "x", "x"))
        with mock.patch.dict(sys.modules, {"cursive": None}):
            self.assertIsNone(self.assert_accepted(ref))

    def test_the_options_apply_to_images_in_glance_only(self) -> None:
        self.set(enable_certificate_validation=True,
                 default_trusted_certificate_ids=self.trust(ROOT))
        path = self.root / "image.raw"
        path.write_bytes(DATA)
        self.images.cache.fetch(str(path))

    def test_without_cursive_one_line_says_what_to_do(self) -> None:
        with mock.patch.dict(sys.modules, {"cursive": None}):
            self.assert_refused(exception.InvalidConfiguration,
                                r"pip install 'imagecache\[signatures\]'",
                                self.signed())


class BrokenTest(SignaturesTestCase):
    """A download that breaks."""

    def test_a_resumed_download_is_verified_as_a_whole(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.bases.download._FIRST_PAUSE", 0))
        for starts_anywhere in (True, False):
            with self.subTest(starts_anywhere=starts_anywhere):
                self.images.store = Broken(starts_anywhere)
                self.assert_accepted(self.signed())
                self.assertEqual(2, self.images.store.reads)
                self.assertIn("retry", self.images.heard)


class Broken(MemoryStore):
    """A store that breaks once, in the middle of an image."""

    def __init__(self, starts_anywhere: bool) -> None:
        super().__init__()
        self.starts_anywhere = starts_anywhere

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        with super().read(image, offset if self.starts_anywhere else 0
                          ) as stream:
            yield Stream(stream.offset, self.chunks(stream))

    def chunks(self, stream: Stream) -> Iterator[bytes]:
        for chunk in stream.chunks:
            yield chunk
            if self.reads == 1:
                raise exception.SourceUnreachable(
                    source="x", image_id="x", reason="x")


@ddt.ddt
class TrustTest(SignaturesTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.set(enable_certificate_validation=True)

    def test_a_signer_with_a_chain_to_a_trusted_certificate_is_trusted(
            self) -> None:
        self.assert_accepted(self.signed(), trusted_certs=self.trust(ROOT))

    def test_the_options_may_name_trusted_certificates(self) -> None:
        self.set(default_trusted_certificate_ids=self.trust(ROOT))
        for trusted in (None, []):
            self.assert_accepted(self.signed(), trusted_certs=trusted)

    def test_trusted_certificates_of_a_request_replace_the_options(
            self) -> None:
        self.set(default_trusted_certificate_ids=self.trust(ROOT))
        self.assert_refused(
            Untrusted, "no trusted certificate signed it", self.signed(),
            trusted_certs=self.trust(Party("other", authority=True)))

    def test_a_request_with_trusted_certificates_requires_a_signature(
            self) -> None:
        """As in nova, which ignores the other options then."""
        self.set(verify_glance_signatures=False)
        trusted = self.trust(ROOT)
        unsigned = self.add(None)
        self.assert_accepted(unsigned)
        self.images.cache.remove_base(unsigned)
        self.images.store.reads = 0
        self.assert_refused(Unsigned, "no signature", unsigned,
                            trusted_certs=trusted)
        self.set(default_trusted_certificate_ids=trusted)
        self.assert_refused(Unsigned, "no signature", unsigned)
        self.set(enable_certificate_validation=False)
        self.assert_accepted(unsigned)

    def test_a_file_is_refused_if_a_request_requires_a_signature(self) -> None:
        path = self.root / "image.raw"
        path.write_bytes(DATA)
        self.assert_refused(Unsigned, "no signature", str(path),
                            trusted_certs=self.trust(ROOT))

    def test_an_image_of_an_untrusted_signer_is_not_read(self) -> None:
        for party in (MALLORY, Party("alice"), Party("alice", issuer=Party(
                "root", "DSA"))):    # the names are right, the keys are not
            with self.subTest(party):
                self.assert_refused(
                    Untrusted, "no trusted certificate signed it",
                    self.signed(party), trusted_certs=self.trust(ROOT))

    def test_changed_bytes_of_a_trusted_signer_are_refused(self) -> None:
        ref = self.add(self.keys.signed(DATA[:-1] + b"x", ALICE))
        self.assert_refused(Unsigned, "not those that its signer signed", ref,
                            read=True, trusted_certs=self.trust(ROOT))

    def test_validation_without_trusted_certificates_refuses_all_images(
            self) -> None:
        self.assert_refused(Untrusted, "default_trusted_certificate_ids",
                            self.signed())

    def test_a_chain_of_certificates_is_followed_to_its_root(self) -> None:
        party = Party("bob", issuer=BETWEEN)
        self.assert_accepted(self.signed(party),
                             trusted_certs=self.trust(BETWEEN, ROOT))
        self.images.store.reads = 0
        self.images.cache.remove_base(next(self.images.cache.bases()).key)
        for part in (BETWEEN, ROOT):
            self.assert_refused(Untrusted, "no trusted certificate signed",
                                self.signed(party),
                                trusted_certs=self.trust(part))

    def test_a_signer_may_be_an_authority_of_its_own(self) -> None:
        party = Party("own", authority=True)
        self.assert_accepted(self.signed(party),
                             trusted_certs=self.trust(party))

    def test_a_certificate_that_is_not_valid_now_is_refused(self) -> None:
        for valid in ((-2, -1), (1, 2)):
            with self.subTest(valid):
                self.assert_refused(
                    Untrusted, "valid date range",
                    self.signed(Party("alice", issuer=ROOT, valid=valid)),
                    trusted_certs=self.trust(ROOT))
                root = dataclasses.replace(ROOT, valid=valid)
                self.assert_refused(
                    Untrusted, "not valid at this time",
                    self.signed(Party("alice", issuer=root)),
                    trusted_certs=self.trust(root))

    def test_a_certificate_that_is_no_authority_cannot_be_trusted(
            self) -> None:
        root = Party("root")
        self.assert_refused(
            Untrusted, "not the certificate of an authority",
            self.signed(Party("alice", issuer=root)),
            trusted_certs=self.trust(root))

    def test_an_authority_with_a_path_length_limit_is_held_to_it(self) -> None:
        root = Party("root", authority=True, path_length=0)
        between = Party("between", issuer=root, authority=True)
        self.assert_refused(
            Untrusted, "sufficient length",
            self.signed(Party("bob", issuer=between)),
            trusted_certs=self.trust(between, root))

    def test_a_missing_trusted_certificate_that_is_not_needed_is_ignored(
            self) -> None:
        self.keys.put("damaged", b"?")
        trusted = [UNKNOWN_ID, "../x", "damaged", *self.trust(ROOT)]
        self.assert_accepted(self.signed(), trusted_certs=trusted)

    def test_the_error_says_which_trusted_ones_are_gone(self) -> None:
        for gone in (UNKNOWN_ID, "../x"):
            self.assert_refused(Untrusted, gone, self.signed(),
                                trusted_certs=[gone])

    def test_two_authorities_that_signed_each_other_are_not_a_chain(
            self) -> None:
        """cursive would follow such a chain without an end."""
        one = Party("one", authority=True)
        two = Party("two", issuer=one, authority=True)
        one = dataclasses.replace(one, issuer=two)
        self.assert_refused(
            Untrusted, "signed each other",
            self.signed(Party("alice", issuer=one)),
            trusted_certs=self.trust(one, two))

    def test_an_authority_with_an_unknown_kind_of_key_is_refused(
            self) -> None:
        root = Party("root", "Ed25519", authority=True)
        for party in (Party("alice", issuer=root), ALICE):
            self.assert_refused(Untrusted, "", self.signed(party),
                                trusted_certs=self.trust(root))
        # One that can sign nothing at all.
        root = Party("root", "X25519", ROOT, authority=True)
        self.assert_refused(Untrusted, "", self.signed(),
                            trusted_certs=self.trust(root))


class CachedTest(SignaturesTestCase):
    """A base that was made before the requirement."""

    def change_record(self, ref: str, **changes: object) -> None:
        entry = self.images.cache.base(ref)
        path = entry.path.with_name(entry.key + ".json")
        path.write_text(json.dumps(
            dataclasses.asdict(entry.record) | changes))

    def change_signature(self, ref: str, **changes: object) -> None:
        """Let the store say something else of an image's signature."""
        described = self.images.store.describe(ref)
        self.images.store.add(
            DATA, "raw", image_id=ref,
            signature=dataclasses.replace(described.signature, **changes))

    def assert_not_verified(self, words: str, ref: str,
                            **options: object) -> None:
        reads, key = self.images.store.reads, self.images.store.describe(
            ref).key
        with self.assertRaisesRegex(exception.BaseNotVerified,
                                    words) as caught:
            self.images.cache.create_disk("instance", ref, **options)
        self.assertIsInstance(caught.exception, exception.HostError)
        self.assertIn(key, str(caught.exception))
        self.assertEqual(reads, self.images.store.reads)
        self.assertTrue((self.images.instances_path / "_base" / key).exists())

    def test_a_base_with_a_verified_signature_is_not_read_again(self) -> None:
        ref = self.signed()
        self.assert_accepted(ref)
        self.assert_accepted(ref)
        self.assertEqual(1, self.images.store.reads)

    def test_a_base_without_a_verified_signature_is_refused(
            self) -> None:
        ref = self.signed()
        self.set(verify_glance_signatures=False)
        self.assertIsNone(self.assert_accepted(ref))
        self.set(verify_glance_signatures=True)
        self.assert_not_verified("was not verified", ref)
        self.images.cache.remove_base(ref)
        self.assertIsNotNone(self.assert_accepted(ref))

    def test_a_base_of_novas_is_verified_if_it_was_not_converted(
            self) -> None:
        ref = self.signed()
        self.novas_base(ref, DATA)
        self.assertIsNotNone(self.assert_accepted(ref))
        self.assertEqual(0, self.images.store.reads)
        self.assertIn("signature_verified", self.images.heard)

    def test_a_base_that_cannot_be_verified_and_has_no_disk_is_fetched_again(
            self) -> None:
        ref = self.signed()
        self.novas_base(ref, DATA[:-1] + b"x")
        self.assertIsNotNone(self.assert_accepted(ref))
        self.assertEqual(1, self.images.store.reads)

    def test_a_base_that_cannot_be_verified_stays_while_it_has_disks(
            self) -> None:
        ref = self.signed()
        self.novas_base(ref, DATA[:-1] + b"x")
        self.set(verify_glance_signatures=False)
        disk = self.images.cache.create_disk("first", ref)
        entry = self.images.cache.base(ref)
        entry.path.with_name(entry.key + ".json").unlink()
        self.set(verify_glance_signatures=True)
        self.assert_not_verified("was not verified", ref)
        disk.remove()
        self.assertIsNotNone(self.assert_accepted(ref))

    def test_a_resized_base_without_a_record_is_made_again(self) -> None:
        self.images.config("image_cache", resized_bases=True)
        ref = self.signed()
        disk = self.images.cache.create_disk("first", ref, size=GiB)
        disk.remove()
        [resized] = [entry for entry in self.images.cache.bases()
                     if entry.size == GiB]
        resized.path.with_name(resized.key + ".json").unlink()
        self.images.cache.create_disk("second", ref, size=GiB)
        self.assertIsNotNone(self.images.cache.base(ref).record.signature)
        self.assertEqual(1, self.images.store.reads)

    def novas_base(self, ref: str, content: bytes) -> None:
        """Have a base without a record."""
        bases = self.images.instances_path / "_base"
        bases.mkdir()
        (bases / self.images.store.describe(ref).key).write_bytes(content)

    def test_a_verified_base_can_be_used_without_a_requirement(
            self) -> None:
        ref = self.signed()
        self.assert_accepted(ref)
        self.set(verify_glance_signatures=False)
        self.assertIsNotNone(self.assert_accepted(ref))

    def test_a_verified_base_stays_verified_after_a_validation(self) -> None:
        ref = self.signed()
        verified = self.assert_accepted(ref)
        self.change_record(ref, rules=0)
        self.assertEqual(verified, self.assert_accepted(ref))
        self.assertIn("adopted", self.images.heard)

    def test_a_base_of_another_signer_is_refused(self) -> None:
        ref = self.signed()
        verified = self.assert_accepted(ref)
        self.change_signature(ref, certificate_id=self.keys.add(MALLORY),
                              value=MALLORY.sign(DATA))
        self.assert_not_verified(f"was verified with {verified}", ref)

    def test_another_certificate_of_the_same_id_is_another_signer(
            self) -> None:
        ref = self.signed()
        self.assert_accepted(ref)
        described = self.images.store.describe(ref)
        self.keys.put(described.signature.certificate_id,
                      MALLORY.certificate)
        self.assert_not_verified("was verified with", ref)

    def test_a_removed_certificate_verifies_no_more_images(self) -> None:
        ref = self.signed()
        self.assert_accepted(ref)
        self.keys.remove(
            self.images.store.describe(ref).signature.certificate_id)
        self.assertRaises(Unsigned, self.images.cache.fetch, ref)

    def test_each_request_has_its_own_trusted_certificates(self) -> None:
        ref = self.signed()
        self.assert_accepted(ref)
        self.assert_accepted(ref, trusted_certs=self.trust(ROOT))
        self.assertRaises(Untrusted, self.images.cache.fetch, ref,
                          trusted_certs=self.trust(MALLORY))


class KeyManagerTest(SignaturesTestCase):

    def test_an_unreachable_key_manager_is_no_fault_of_the_image(self) -> None:
        ref = self.signed()
        self.set_keys(directory="/no/such")
        self.assert_refused(exception.KeyManagerFailed, "directory is missing",
                            ref)
        self.assertTrue(issubclass(exception.KeyManagerFailed,
                                   exception.SourceError))

    def test_an_unreachable_key_manager_is_no_missing_certificate(
            self) -> None:
        ref = self.signed()
        for error in (keystone.ConnectFailure("no way"), OSError("no way")):
            with self.subTest(error), mock.patch.object(
                    directory_keys.DirectoryKeys, "get", side_effect=[
                        x_509.X509(ALICE.certificate), error]):
                self.assert_refused(exception.KeyManagerFailed, "no way",
                                    ref, trusted_certs=["x"])

    def test_barbican_is_the_default_key_manager(self) -> None:
        ref = self.signed()
        self.set_keys(backend="barbican", auth_type="keystone_password",
                      auth_url="http://127.0.0.1:9/v3", username="jo",
                      password="the password")
        self.assert_refused(exception.KeyManagerFailed, "127.0.0.1", ref)
        self.assertNotIn("the password", self.log.output)

    def test_barbican_needs_credentials(self) -> None:
        ref = self.signed()
        self.set_keys(backend="barbican")
        self.assert_refused(exception.InvalidConfiguration,
                            r"\[key_manager\] auth_type", ref)

    def test_incomplete_credentials_are_a_configuration_error(self) -> None:
        ref = self.signed()
        self.set_keys(auth_type="token")
        self.assert_refused(exception.InvalidConfiguration,
                            r"\[key_manager\] auth_type = 'token'", ref)

    def test_the_options_have_the_credentials_for_barbican(self) -> None:
        self.set_keys(reader="jo", auth_type="password", username="jo")
        self.assert_accepted(self.signed())
        self.images.store.reads = 0
        self.images.cache.remove_base(next(self.images.cache.bases()).key)
        self.set_keys(username="eve")
        self.assert_refused(exception.KeyManagerFailed, "not authorized",
                            self.signed())

    def test_the_context_of_a_request_replaces_the_credentials(self) -> None:
        self.set_keys(reader="jo", auth_type="password", username="eve")
        cache = imagecache.ImageCache(
            self.images.conf, glance=self.images.store,
            context=password.Password("jo", "x"))
        cache.fetch(self.signed())

    def test_an_unknown_key_manager_is_a_configuration_error(
            self) -> None:
        ref = self.signed()
        for name in ("nosuch", "no.such", "imagecache.NoSuch"):
            with self.subTest(name):
                self.set_keys(backend=name)
                self.assert_refused(exception.InvalidConfiguration,
                                    r"\[key_manager\] backend", ref)
