# SPDX-License-Identifier: Apache-2.0
"""Signed images in a real Glance, which verifies signatures as well."""

from __future__ import annotations

import dataclasses
import io
import uuid
from typing import Any

import ddt
import fixtures
import glanceclient.exc
from oslo_config import cfg

import imagecache
from imagecache import exception
from imagecache.model import MiB, Signature
from imagecache.testing import images
from imagecache.tests import base, signing
from imagecache.tests.functional import glance_server
from imagecache.tests.signing import Party

INSTANCE = "3c5a0d55-0a8e-4b43-9d0b-1f6c1fd0b4aa"
MEMBER = "jo:ours:member,reader"
DATA = images.content(4 * MiB)
ROOT = Party("root", authority=True)
ALICE = Party("alice", issuer=ROOT)

_CONF = """\
[DEFAULT]
instances_path = {root}/instances
[glance]
auth_type = admin_token
endpoint = {server.url}
token = {token}
verify_glance_signatures = true
{more}
[key_manager]
backend = imagecache.tests.directory_keys.DirectoryKeys
directory = {server.root}/keys
"""


@ddt.ddt
class SignaturesTest(base.TestCase):

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = glance_server.GlanceServer()
        cls.server.setUp()
        cls.addClassCleanup(cls.server.cleanUp)
        cls.keys = signing.Keys(cls.server.root / "keys")
        cls.client = cls.server.client(MEMBER)

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())

    def cache(self, more: str = "") -> imagecache.ImageCache:
        """:param more: options of [glance]"""
        path = self.root / "agent.conf"
        path.write_text(_CONF.format(root=self.root, server=self.server,
                                     token=MEMBER, more=more))
        conf = cfg.ConfigOpts()
        conf([], project="x", default_config_files=[str(path)])
        return imagecache.ImageCache(conf)

    def upload(self, data: bytes, **properties: str) -> str:
        image_id = self.client.images.create(
            name=self.id(), disk_format="raw", container_format="bare",
            **properties).id
        self.client.images.upload(image_id, io.BytesIO(data))
        return image_id

    def published(self, data: bytes, signature: Signature) -> str:
        """Upload an image, and add its signature after the upload.

        Glance verifies a signature only during the upload.
        """
        image_id = self.upload(data)
        self.client.images.update(image_id, **signing.properties_of(signature))
        return image_id

    def assert_refused(self, error: type[Exception], image_id: str,
                       more: str = "", **options: Any) -> None:
        cache = self.cache(more)
        with self.assertRaises(error) as caught:
            cache.create_disk(INSTANCE, image_id, **options)
        self.assertIsInstance(caught.exception, exception.ImageError)
        self.assertIn(image_id, str(caught.exception))
        files = [path for path in (self.root / "instances").rglob("*")
                 if path.is_file() and path.parent.name != "locks"]
        self.assertEqual([], files)

    @ddt.data(*signing.KEYS)
    def test_an_image_that_glance_accepts_as_signed_is_accepted(
            self, kind: str) -> None:
        signature = self.keys.signed(DATA, Party("alice", kind, ROOT))
        image_id = self.upload(DATA, **signing.properties_of(signature))
        cache, trusted = self.cache(), [self.keys.add(ROOT)]
        disk = cache.create_disk(INSTANCE, image_id, trusted_certs=trusted)
        self.assertTrue(cache.base(disk.base_key()).path.read_bytes() == DATA)
        self.assertTrue(cache.base(image_id).record.signature.startswith(
            signature.certificate_id))
        cache.create_disk(str(uuid.uuid4()), image_id, trusted_certs=trusted)

    def test_a_signature_of_other_bytes_is_refused_as_by_glance(
            self) -> None:
        signature = self.keys.signed(DATA, ALICE)
        other = bytearray(DATA)
        other[len(DATA) // 2] ^= 1
        with self.assertRaises(glanceclient.exc.HTTPException):
            self.upload(bytes(other), **signing.properties_of(signature))
        self.assert_refused(exception.ImageSignatureInvalid,
                            self.published(bytes(other), signature))

    def test_a_signature_by_another_key_is_refused(self) -> None:
        signature = dataclasses.replace(
            self.keys.signed(DATA, Party("mallory")),
            certificate_id=self.keys.add(ALICE))
        self.assert_refused(exception.ImageSignatureInvalid,
                            self.published(DATA, signature))

    def test_a_certificate_that_the_key_manager_lacks_is_refused(self) -> None:
        signature = dataclasses.replace(self.keys.signed(DATA, ALICE),
                                        certificate_id=str(uuid.uuid4()))
        self.assert_refused(exception.ImageSignatureInvalid,
                            self.published(DATA, signature))

    def test_an_image_without_a_signature_is_refused(self) -> None:
        self.assert_refused(exception.ImageSignatureInvalid,
                            self.upload(DATA))

    def test_an_image_with_a_part_of_the_properties_is_refused(self) -> None:
        properties = signing.properties_of(self.keys.signed(DATA, ALICE))
        properties.popitem()
        self.assert_refused(exception.ImageSignatureInvalid,
                            self.upload(DATA, **properties))

    def test_a_certificate_of_an_issuer_without_trust_is_refused(
            self) -> None:
        image_id = self.upload(DATA, **signing.properties_of(
            self.keys.signed(DATA, Party("mallory"))))
        trusted = self.keys.add(ROOT)
        self.assert_refused(exception.CertificateValidationFailed, image_id,
                            trusted_certs=[trusted])
        self.assert_refused(
            exception.CertificateValidationFailed, image_id,
            "enable_certificate_validation = true\n"
            f"default_trusted_certificate_ids = {trusted}")
        self.cache().create_disk(INSTANCE, image_id)

    def test_a_base_without_a_signature_is_refused_until_removed(self) -> None:
        image_id = self.upload(DATA, **signing.properties_of(
            self.keys.signed(DATA, ALICE)))
        before = self.cache("verify_glance_signatures = false")
        disk = before.create_disk(INSTANCE, image_id)
        cache, other = self.cache(), str(uuid.uuid4())
        with self.assertRaises(exception.BaseNotVerified):
            cache.create_disk(other, image_id)
        with self.assertRaises(exception.BaseInUse):
            cache.remove_base(image_id)
        disk.remove()
        cache.remove_base(image_id)
        cache.create_disk(other, image_id)
