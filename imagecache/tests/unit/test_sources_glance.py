# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import pickle
import socket
import uuid

import fixtures
from keystoneauth1 import adapter, noauth, session, token_endpoint
from oslo_config import cfg

from imagecache import exception, opts
from imagecache.model import Digest, GiB, Signature
from imagecache.opts import glance as glance_opts
from imagecache.sources import Copy, glance
from imagecache.testing import glance as fake
from imagecache.testing import stores, web
from imagecache.tests import base

DATA = stores.DATA


class GlanceTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        self.server = self._serve(fake.FakeGlance())
        self.store = glance.GlanceStore.from_token(
            self.server.url, self.server.token)

    def _lose_patience(self):
        self.store = glance.GlanceStore.from_token(
            self.server.url, self.server.token, read_timeout=0.2)

    def _serve(self, server):
        server.start()
        self.addCleanup(server.stop)
        return server

    def _image(self, data=DATA, **record):
        self.image_id = self.server.add_image(data, **record)
        return self.store.describe(self.image_id)

    def _check(self, expected, found):
        """Compare offset and bytes; a list of differences takes minutes."""
        self.assertEqual(expected[0], found[0])
        self.assertTrue(expected[1] == found[1], "the bytes differ")

    def _read(self, image, offset=0):
        with self.store.read(image, offset) as stream:
            return stream.offset, b"".join(stream.chunks)

    @contextlib.contextmanager
    def _raises(self, error):
        """Expect an error that travels and keeps the token to itself."""
        with self.assertRaises(error) as caught:
            yield caught
        again = pickle.loads(pickle.dumps(caught.exception))
        self.assertEqual(str(caught.exception), str(again))
        self.assertNotIn(self.server.token, repr(caught.exception.facts))
        self.assertNotIn(self.server.token, str(caught.exception))
        self.assertTrue(self.server.is_idle())


class GlanceStoreConformanceTest(stores.StoreConformance, GlanceTestCase):

    def publish(self, data):
        return self.server.add_image(data)

    def missing(self):
        return str(uuid.uuid4())


class NoRangeConformanceTest(GlanceStoreConformanceTest):
    """The same with a store behind Glance that starts only at 0."""

    starts_anywhere = False

    def publish(self, data):
        image_id = super().publish(data)
        self.server.file(image_id).always(range_status=400)
        return image_id


class DescribeTest(GlanceTestCase):

    def test_record_is_translated(self):
        image = self._image(disk_format="qcow2", min_disk=2)
        self.assertEqual(self.image_id, image.ref)
        self.assertEqual(len(DATA), image.size)
        self.assertEqual("qcow2", image.disk_format)
        self.assertEqual(2 * GiB, image.min_disk)
        self.assertEqual(
            Digest("sha512", hashlib.sha512(DATA).hexdigest()), image.digest)
        self.assertEqual((), image.locations)

    def test_key_is_novas(self):
        image = self._image()
        self.assertEqual(hashlib.sha1(self.image_id.encode()).hexdigest(),
                         image.key)

    def test_one_request_is_enough(self):
        self._image()
        self.assertEqual([f"/v2/images/{self.image_id}"],
                         [r.path for r in self.server.requests])
        self.assertTrue(self.server.is_idle())

    def test_checksum_is_the_last_resort(self):
        md5 = Digest("md5", hashlib.md5(DATA).hexdigest())
        for record in ({"os_hash_algo": None}, {"os_hash_value": None},
                       {"os_hash_algo": "blake9"}):
            with self.subTest(record):
                self.assertEqual(md5, self._image(**record).digest)

    def test_image_may_have_no_digest(self):
        image = self._image(os_hash_value=None, checksum=None)
        self.assertIsNone(image.digest)

    def test_image_may_be_signed(self):
        properties = {"img_signature": "AA==",
                      "img_signature_hash_method": "SHA-256",
                      "img_signature_key_type": "RSA-PSS",
                      "img_signature_certificate_uuid": "an-id"}
        self.assertEqual(Signature("AA==", "SHA-256", "RSA-PSS", "an-id"),
                         self._image(**properties).signature)
        self.assertIsNone(self._image().signature)
        for name in properties:
            for nothing in (None, ""):
                self.assertIsNone(self._image(
                    **properties | {name: nothing}).signature, name)

    def test_locations_are_told_once_each(self):
        image = self._image(direct_url="rbd://a", locations=[
            {"url": "rbd://a", "metadata": {}}, {"url": "file:///b"}])
        self.assertEqual(("rbd://a", "file:///b"), image.locations)
        self.assertEqual(("rbd://a", "file:///b"),
                         self.store.locations(self.image_id))

    def _locations_page(self, page):
        image = self._image()
        self.server.add(f"/v2/images/{image.ref}/locations",
                        json.dumps(page).encode())
        return image.ref

    def test_locations_are_asked_for_where_the_record_has_none(self):
        ref = self._locations_page([{"url": "rbd://a", "metadata": {}}])
        self.assertEqual(("rbd://a",), self.store.locations(ref))

    def test_locations_that_nobody_tells_are_none(self):
        self.assertEqual((), self.store.locations(self._image().ref))
        for status in (403, 405):
            ref = self._locations_page([])
            self.server.pages[f"/v2/images/{ref}/locations"].always(
                status=status)
            self.assertEqual((), self.store.locations(ref), status)

    def test_locations_that_are_nonsense_are_misbehaviour(self):
        for page in ({"no": "list"}, [{"metadata": {}}], 3):
            with self._raises(exception.SourceMisbehaved):
                self.store.locations(self._locations_page(page))

    def test_copy_is_as_far_as_glance_says(self):
        importing = "os_glance_importing_to_stores"
        for expected, record in (
                (Copy.ABSENT, {}), (Copy.ABSENT, {"stores": "a"}),
                (Copy.THERE, {"stores": "a,ceph"}),
                (Copy.THERE, {"stores": "ceph", importing: ""}),
                (Copy.COMING, {"stores": "a", importing: "b,ceph"}),
                (Copy.COMING, {"stores": "a,ceph", importing: "ceph"}),
                (Copy.COMING, {"stores": "a", "os_glance_import_task": "1"}),
                # A failure of before that task.
                (Copy.COMING, {"stores": "a", "os_glance_import_task": "1",
                               "os_glance_failed_import": "ceph"}),
                (Copy.FAILED, {"stores": "a",
                               "os_glance_failed_import": "ceph"})):
            image = self._image(**record)
            self.assertIs(expected, self.store.copy_of(image.ref, "ceph"),
                          record)

    def test_image_that_is_not_active_has_its_own_error(self):
        for status in ("queued", "saving", "uploading", "importing",
                       "deactivated"):
            with self.subTest(status), \
                    self._raises(exception.ImageNotActive) as caught:
                self._image(status=status, size=None)
            self.assertIn(status, str(caught.exception))

    def test_deleted_image_is_not_found(self):
        for status in ("deleted", "pending_delete", "killed"):
            with self.subTest(status), \
                    self._raises(exception.ImageNotFound):
                self._image(status=status)

    def test_anything_but_a_uuid_is_refused_unasked(self):
        for ref in ("", "cirros", "../../v3", f"{uuid.uuid4()}/file",
                    f"{uuid.uuid4()}?x", uuid.uuid4().hex):
            with self.subTest(ref), \
                    self._raises(exception.InvalidImageRef):
                self.store.describe(ref)
        self.assertEqual([], self.server.requests)

    def test_statuses_are_translated(self):
        self._image()
        for status, error in ((404, exception.ImageNotFound),
                              (403, exception.Forbidden),
                              (429, exception.SourceUnreachable),
                              (500, exception.SourceUnreachable),
                              (503, exception.SourceUnreachable),
                              (504, exception.SourceUnreachable),
                              (300, exception.SourceMisbehaved),
                              (409, exception.SourceMisbehaved)):
            self.server.record(self.image_id).always(status=status)
            with self.subTest(status), self._raises(error) as caught:
                self.store.describe(self.image_id)
            if status > 404:
                self.assertIn(f"Glance at {self.server.url}",
                              str(caught.exception))
                self.assertIn(str(status), str(caught.exception))

    def test_wrong_token_is_forbidden(self):
        self._image()
        self.store = glance.GlanceStore.from_token(self.server.url, "wrong")
        with self._raises(exception.Forbidden):
            self.store.describe(self.image_id)

    def test_nonsense_is_misbehaviour(self):
        self._image()
        page = self.server.record(self.image_id)
        record = json.loads(page.data)
        for body in (b"", b"<html>", b"[]", b"null", b"\xff", b"{}",
                     *(json.dumps(record | wrong).encode() for wrong in (
                         {"size": "many"}, {"size": None}, {"size": []},
                         {"min_disk": "x"}, {"locations": [{}]},
                         {"locations": 5}, {"os_hash_value": 5},
                         {"os_hash_value": "12"}, {"os_hash_algo": []},
                         {"id": str(uuid.uuid4())}, {"id": None}))):
            page.data = body
            with self.subTest(body), \
                    self._raises(exception.SourceMisbehaved):
                self.store.describe(self.image_id)

    def test_record_that_breaks_off_is_a_broken_connection(self):
        self._image()
        self.server.record(self.image_id).always(cut=5)
        with self._raises(exception.SourceUnreachable):
            self.store.describe(self.image_id)

    def test_silent_glance_stalls(self):
        self._image()
        self._lose_patience()
        for stall in (-1, 5):
            self.server.record(self.image_id).always(stall=stall)
            with self.subTest(stall), \
                    self._raises(exception.DownloadStalled):
                self.store.describe(self.image_id)

    def test_refused_connection_says_so(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        store = glance.GlanceStore.from_token(url, self.server.token)
        with self._raises(exception.SourceUnreachable) as caught:
            store.describe(str(uuid.uuid4()))
        self.assertIn(f"No connection to Glance at {url}",
                      str(caught.exception))
        self.assertIn(": Connection refused; try again later",
                      str(caught.exception))

    def test_token_goes_nowhere_else(self):
        other = self._serve(web.WebServer())
        self._image()
        away = {"status": 302, "location": f"{other.url}/x"}
        self.server.file(self.image_id).always(**away)
        with self._raises(exception.SourceMisbehaved):
            self._read(self.store.describe(self.image_id))
        self.server.record(self.image_id).always(**away)
        with self._raises(exception.SourceMisbehaved):
            self.store.describe(self.image_id)
        self.assertEqual([], other.requests)

    def test_token_is_not_logged(self):
        self._read(self._image())
        self.assertIn(self.image_id, self.log.output)
        self.assertNotIn(self.server.token, self.log.output)


class ReadTest(GlanceTestCase):

    def test_range_is_asked(self):
        self._check((5, DATA[5:]), self._read(self._image(), 5))
        headers = self.server.requests[-1].headers
        self.assertEqual("bytes=5-", headers["Range"])
        self.assertEqual("identity", headers["Accept-Encoding"])

    def test_truncated_body_says_how_much_came(self):
        image = self._image()
        self.server.file(self.image_id).once(cut=1_500_000)
        with self._raises(exception.DownloadTruncated) as caught:
            self._read(image, 7)
        self.assertEqual(1_500_007, caught.exception.facts["received"])

    def test_stalled_body_says_how_much_came(self):
        image = self._image()
        self.server.file(self.image_id).once(stall=1_500_000)
        self._lose_patience()
        with self._raises(exception.DownloadStalled) as caught:
            self._read(image)
        self.assertEqual(1_500_000, caught.exception.facts["received"])

    def test_reset_connection_is_unreachable(self):
        image = self._image()
        self.server.file(self.image_id).once(cut=1000, reset=True)
        with self._raises(exception.SourceUnreachable):
            self._read(image)

    def test_failed_read_is_left_to_the_caller_to_repeat(self):
        image = self._image()
        self.server.file(self.image_id).always(status=503)
        store = glance.GlanceStore(adapter.Adapter(
            session.Session(auth=token_endpoint.Token(
                self.server.url, self.server.token)),
            connect_retries=5, status_code_retries=5))
        with self._raises(exception.SourceUnreachable):
            with store.read(image):
                pass
        self.assertEqual(2, len(self.server.requests))

    def test_other_length_than_described_is_a_wrong_size(self):
        with self._raises(exception.ImageSizeMismatch):
            self._read(self._image(size=5))

    def test_data_lost_by_the_store_are_not_found_and_said_to_be_lost(self):
        with self._raises(exception.ImageNotFound) as caught:
            self._read(self._image(None))
        self.assertIn("not in the store", str(caught.exception))

    def test_image_deactivated_meanwhile_is_not_active(self):
        for status in (403, 204):
            image = self._image()
            self.server.change(self.image_id, status="deactivated")
            self.server.file(self.image_id).always(status=status)
            with self.subTest(status), \
                    self._raises(exception.ImageNotActive):
                self._read(image)

    def test_forbidden_data_are_forbidden(self):
        image = self._image()
        self.server.file(self.image_id).always(status=403)
        with self._raises(exception.Forbidden):
            self._read(image)

    def test_image_deleted_meanwhile_is_not_found(self):
        image = self._image()
        self.server.file(self.image_id).always(status=404)
        with self._raises(exception.ImageNotFound):
            self._read(image)


class AdapterTest(GlanceTestCase):
    """How a store comes by endpoint and credentials."""

    def test_endpoint_may_name_the_version(self):
        for end in ("/", "/v2", "/v2/", "/v2.9"):
            self.store = glance.GlanceStore.from_token(
                self.server.url + end, self.server.token)
            with self.subTest(end):
                self._check((0, DATA), self._read(self._image()))

    def test_session_may_be_enough(self):
        auth = token_endpoint.Token(self.server.url, self.server.token)
        self.store = glance.GlanceStore.from_session(session.Session(auth))
        self._check((0, DATA), self._read(self._image()))

    def test_adapters_may_be_nested(self):
        auth = token_endpoint.Token(self.server.url, self.server.token)
        self.store = glance.GlanceStore(adapter.Adapter(
            adapter.Adapter(session.Session(), auth=auth)))
        self._check((0, DATA), self._read(self._image()))

    def test_glance_may_need_no_credentials(self):
        self.server.token = None   # the server refuses any token
        for auth in (noauth.NoAuth(), None):
            self.store = glance.GlanceStore.from_session(
                session.Session(auth), endpoint_override=self.server.url)
            image_id = self.server.add_image(DATA)
            for page in self.server.pages.values():
                page.guard = None
            image = self.store.describe(image_id)
            self._check((0, DATA), self._read(image))

    def test_servers_are_asked_in_turn(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.store = glance.GlanceStore(
            adapter.Adapter(session.Session(token_endpoint.Token(
                "http://unused.invalid", self.server.token))),
            servers=[dead, self.server.url])
        image_id = self.server.add_image(DATA)
        with self._raises(exception.SourceUnreachable):
            self.store.describe(image_id)
        self.assertEqual(image_id, self.store.describe(image_id).ref)

    def test_making_a_store_asks_nobody(self):
        self.assertEqual([], self.server.requests)


class ConfTest(GlanceTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.conf = self._conf()
        self.conf.set_override("auth_type", "none", "glance")
        self.conf.set_override("endpoint_override", self.server.url,
                               "glance")

    def _conf(self, text=None):
        conf = cfg.ConfigOpts()
        opts.register_opts(conf)
        files = []
        if text is not None:
            files = [str(self.root / "agent.conf")]
            (self.root / "agent.conf").write_text(text)
        conf([], default_config_files=files, default_config_dirs=[])
        return conf

    def _keystone(self):
        """Let the server be Keystone too, with Glance in the catalogue."""
        version = {"id": "v3.14", "status": "stable", "links": [
            {"rel": "self", "href": f"{self.server.url}/v3"}]}
        self.server.add("/v3", json.dumps({"version": version}).encode())
        endpoints = [{"interface": interface, "region": "here",
                      "region_id": "here", "url": self.server.url + path}
                     for interface, path in (("public", "/public"),
                                             ("internal", "/v2"))]
        token = {"expires_at": "2999-01-01T00:00:00.000000Z",
                 "methods": ["password"], "issued_at":
                 "2000-01-01T00:00:00.000000Z", "catalog": [
                     {"type": "image", "name": "glance",
                      "endpoints": endpoints}]}
        return self.server.add(
            "/v3/auth/tokens", json.dumps({"token": token}).encode(),
            {"X-Subject-Token": self.server.token,
             "Content-Type": "application/json"})

    def _credentials(self, group):
        return (f"[{group}]\nauth_type = password\nusername = imagecache\n"
                f"auth_url = {self.server.url}/v3\npassword = secret\n"
                "project_name = service\nuser_domain_id = default\n"
                "project_domain_id = default\n")

    def test_credentials_and_catalogue_lead_to_glance(self):
        self._keystone()
        for group in ("glance", "keystone_authtoken"):
            with self.subTest(group):
                self.store = glance.GlanceStore.from_conf(
                    self._conf(self._credentials(group)))
                self._check((5, DATA[5:]), self._read(self._image(), 5))

    def test_expired_token_is_renewed(self):
        page = self._keystone()
        self.store = glance.GlanceStore.from_conf(
            self._conf(self._credentials("glance")))
        self._image()
        page.headers["X-Subject-Token"] = self.server.token = "renewed"
        self._check((0, DATA), self._read(self._image()))

    def test_keystone_is_called_by_its_name(self):
        page = self._keystone()
        store = glance.GlanceStore.from_conf(
            self._conf(self._credentials("glance")))
        for manner, error, word in (
                ({"status": 401}, exception.Forbidden, "credentials"),
                ({"status": 500}, exception.SourceUnreachable, "500"),
                ({"cut": 5}, exception.SourceUnreachable, "")):
            page.always(**manner)
            with self.subTest(manner), self._raises(error) as caught:
                store.describe(str(uuid.uuid4()))
            self.assertIn("Keystone", str(caught.exception))
            self.assertIn(word, str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))

    def test_catalogue_without_glance_says_so(self):
        self._keystone()
        store = glance.GlanceStore.from_conf(self._conf(
            self._credentials("glance") + "region_name = elsewhere\n"))
        with self._raises(exception.SourceUnreachable) as caught:
            store.describe(str(uuid.uuid4()))
        self.assertIn("catalogue", str(caught.exception))

    def test_public_endpoint_is_taken_if_asked_for(self):
        self._keystone()
        store = glance.GlanceStore.from_conf(self._conf(
            self._credentials("glance") + "valid_interfaces = public\n"))
        with self._raises(exception.ImageNotFound):
            store.describe(str(uuid.uuid4()))
        self.assertTrue(
            self.server.requests[-1].path.startswith("/public/v2/images/"))

    def test_token_may_stand_in_the_configuration(self):
        self.store = glance.GlanceStore.from_conf(self._conf(
            "[glance]\nauth_type = admin_token\n"
            f"endpoint = {self.server.url}\ntoken = {self.server.token}\n"))
        self._check((0, DATA), self._read(self._image()))

    def test_no_credentials_at_all_is_a_configuration_error(self):
        with self._raises(exception.InvalidConfiguration) as caught:
            glance.GlanceStore.from_conf(self._conf())
        self.assertIn("[glance] auth_type", str(caught.exception))

    def test_unknown_credentials_are_a_configuration_error(self):
        for text in ("auth_type = magic", "auth_type = password"):
            with self.subTest(text), \
                    self._raises(exception.InvalidConfiguration) as caught:
                glance.GlanceStore.from_conf(self._conf(f"[glance]\n{text}"))
            self.assertIn("[glance] auth_type", str(caught.exception))

    def test_missing_authority_file_is_a_configuration_error(self):
        self.conf.set_override("cafile", str(self.root / "ca"), "glance")
        self.conf.set_override("endpoint_override", "https://127.0.0.1:9",
                               "glance")
        with self._raises(exception.InvalidConfiguration) as caught:
            glance.GlanceStore.from_conf(self.conf).describe(
                str(uuid.uuid4()))
        self.assertIn("[glance] cafile", str(caught.exception))

    def test_api_servers_stand_for_the_endpoint(self):
        self.conf.set_override("api_servers", [self.server.url], "glance")
        self.conf.set_override("endpoint_override", None, "glance")
        with self._raises(exception.Forbidden):   # auth_type is none
            glance.GlanceStore.from_conf(self.conf).describe(
                self.server.add_image(DATA))
        self.assertEqual(1, len(self.server.requests))

    def test_glance_in_trouble_is_asked_again(self):
        self.conf.set_override("num_retries", 2, "glance")
        for option in ("connect_retry_delay", "status_code_retry_delay"):
            self.conf.set_override(option, 0.001, "glance")
        image_id = self.server.add_image(DATA)
        self.server.record(image_id).guard = None
        for trouble in ({"status": 503}, {"cut": -1}):
            self.server.record(image_id).once(**trouble)
            self.server.record(image_id).once(**trouble)
            with self.subTest(trouble):
                self.assertEqual(image_id, glance.GlanceStore.from_conf(
                    self.conf).describe(image_id).ref)

    def test_options_of_the_host_program_stand(self):
        conf = cfg.ConfigOpts()
        conf.register_opt(cfg.IntOpt("num_retries", default=7), "glance")
        conf.register_opt(cfg.StrOpt("region_name", default="x"), "glance")
        glance_opts.register_glance_opts(conf)
        glance_opts.register_glance_opts(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        self.assertEqual(7, conf.glance.num_retries)
        self.assertEqual("x", conf.glance.region_name)
        self.assertEqual("image", conf.glance.service_type)
        self.assertEqual(["internal", "public"],
                         conf.glance.valid_interfaces)

    def test_every_option_is_listed_once(self):
        [(group, options)] = glance_opts.list_glance_opts()
        names = [option.dest for option in options]
        self.assertEqual("glance", group)
        self.assertEqual(sorted(set(names)), sorted(names))
        self.assertLessEqual(
            {"api_servers", "num_retries", "auth_type", "cafile",
             "endpoint_override", "region_name"}, set(names))

    def test_names_of_old_option_files_are_read(self):
        conf = self._conf("[glance]\napi_insecure = true\n"
                          "[ssl]\nca_file = /x\n")
        self.assertTrue(conf.glance.insecure)
        self.assertEqual("/x", conf.glance.cafile)
