# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import ipaddress
import pickle
import socket
import ssl
import warnings

import fixtures
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagecache import exception
from imagecache.model import Digest
from imagecache.sources import http
from imagecache.testing import stores, web
from imagecache.tests import base

DATA = stores.DATA
LOGIN = "Basic " + base64.b64encode("jo:sé/cret".encode()).decode()


class HttpTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.server = self._serve()
        self.store = http.HttpStore()

    def _lose_patience(self, seconds=0.2):
        self.store = http.HttpStore(read_timeout=seconds)

    def _serve(self, tls=None):
        server = web.WebServer(tls)
        server.start()
        self.addCleanup(server.stop)
        return server

    def _image(self, data=DATA, **manner):
        self.page = self.server.add("/disk.qcow2", data)
        self.page.always(**manner)
        return self.store.describe(self.page.url)

    def _check(self, expected, found):
        """Compare offset and bytes; a list of differences takes minutes."""
        self.assertEqual(expected[0], found[0])
        self.assertTrue(expected[1] == found[1], "the bytes differ")

    def _read(self, image, offset=0):
        with self.store.read(image, offset) as stream:
            return stream.offset, b"".join(stream.chunks)

    @contextlib.contextmanager
    def _raises(self, error):
        """Expect an error that travels, from a server called by its name."""
        with self.assertRaises(error) as caught:
            yield caught
        again = pickle.loads(pickle.dumps(caught.exception))
        self.assertEqual(str(caught.exception), str(again))
        self.assertTrue(self.server.is_idle())


class HttpStoreConformanceTest(stores.StoreConformance, HttpTestCase):

    def publish(self, data):
        path = f"/{hashlib.sha256(data).hexdigest()}"
        page = self.server.pages.get(path) or self.server.add(path, data)
        return page.url

    def missing(self):
        return f"{self.server.url}/missing"


class PlainServerConformanceTest(HttpStoreConformanceTest):
    """The same with a server that knows neither HEAD nor Range nor ETags."""

    starts_anywhere = False

    def publish(self, data):
        url = super().publish(data)
        self.server.pages[url.removeprefix(self.server.url)].always(
            heads=False, ranges=False, etag=None, last_modified=None)
        return url


class ChunkedServerConformanceTest(HttpStoreConformanceTest):
    """The same with a server that does not know sizes beforehand."""

    def publish(self, data):
        url = super().publish(data)
        self.server.pages[url.removeprefix(self.server.url)].always(
            chunked=True)
        return url

    def test_description_tells_the_size(self):
        self.assertIsNone(self.describe_new().size)


class DescribeTest(HttpTestCase):

    def test_bytes_are_not_fetched(self):
        self._image()
        self.assertEqual(["HEAD"], [r.method for r in self.server.requests])
        self.assertTrue(self.server.is_idle())

    def test_server_without_head_is_asked_with_get(self):
        image = self._image(heads=False)
        self.assertEqual(len(DATA), image.size)
        self.assertTrue(self.server.is_idle())

    def test_end_of_the_path_is_the_claim(self):
        self._image()
        image = self.store.describe(self.page.url + "?x=y.raw")
        self.assertEqual("qcow2", image.disk_format)

    def test_validator_is_the_strong_etag_or_else_the_date(self):
        self.assertTrue(self._image().version.startswith('"'))
        for etag in (None, "weak"):
            self.assertEqual("Mon, 01 Jan 2024 00:00:00 GMT",
                             self._image(etag=etag).version)
        self.assertIsNone(
            self._image(etag=None, last_modified=None).version)

    def test_changed_image_has_another_identity(self):
        seen = {self._image().key,
                self._image(etag='"2"').key,
                self._image(etag="weak").key,
                self._image(etag=None).key,
                self._image(last_modified="Tue, 02 Jan 2024").key,
                self._image(etag=None, last_modified=None).key,
                self._image(b"x", etag=None, last_modified=None).key}
        self.assertEqual(7, len(seen))

    def test_digest_is_the_identity_and_is_not_sent(self):
        self._image()
        ref = f"{self.page.url}#sha512={'0f' * 64}"
        image = self.store.describe(ref)
        self.assertEqual(Digest("sha512", "0f" * 64), image.digest)
        self.page.always(etag='"2"', last_modified=None)
        self.assertEqual(image.identity, self.store.describe(ref).identity)
        self.assertEqual("/disk.qcow2", self.server.requests[-1].path)

    def test_other_digest_is_another_identity(self):
        self._image()
        self.assertEqual(2, len({
            self.store.describe(f"{self.page.url}#sha256={digit * 64}").key
            for digit in "12"}))

    def test_what_is_no_web_address_is_refused(self):
        for ref in ("http://", "http:///x", "https://host:x/", "ftp://h/x",
                    "http://[::1/", "/x", "http://h/x#sha256=1"):
            with self.subTest(ref), self._raises(exception.InvalidImageRef):
                self.store.describe(ref)

    def test_statuses_are_translated(self):
        for status, error in ((404, exception.ImageNotFound),
                              (410, exception.ImageNotFound),
                              (401, exception.Forbidden),
                              (403, exception.Forbidden),
                              (429, exception.SourceUnreachable),
                              (500, exception.SourceUnreachable),
                              (503, exception.SourceUnreachable),
                              (418, exception.SourceMisbehaved),
                              (304, exception.SourceMisbehaved)):
            with self.subTest(status), self._raises(error) as caught:
                self._image(status=status)
            self.assertIn(self.server.url, str(caught.exception))

    def test_length_that_is_no_number_is_misbehaviour(self):
        for length in ("many", "-5", "5, 5", "9" * 30):
            with self.subTest(length), \
                    self._raises(exception.SourceMisbehaved):
                self._image(length=length)

    def test_encoded_bytes_are_misbehaviour(self):
        with self._raises(exception.SourceMisbehaved):
            self._image(encoding="gzip")
        self.assertEqual(
            "identity", self.server.requests[-1].headers["Accept-Encoding"])

    def test_refused_connection_says_so(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with self._raises(exception.SourceUnreachable) as caught:
            self.store.describe(f"{url}/x")
        self.assertEqual(f"No connection to {url} for image {url}/x:"
                         " Connection refused; try again later, and check"
                         " the address and the network",
                         str(caught.exception))

    def test_unknown_host_says_so(self):
        with self._raises(exception.SourceUnreachable) as caught:
            self.store.describe("http://host.invalid./x")
        self.assertRegex(str(caught.exception), ": [^<>()]+$")

    def test_host_that_cannot_be_a_name_is_unreachable(self):
        with self._raises(exception.SourceError):
            self.store.describe(f"http://{'a' * 70}.invalid/x")

    def test_proxy_of_the_environment_is_asked(self):
        self.useFixture(fixtures.EnvironmentVariable(
            "http_proxy", self.server.url))
        url = "http://elsewhere.invalid/disk"
        self.server.pages[url] = self.server.add("/disk", DATA)
        self._check((0, DATA), self._read(self.store.describe(url)))

    def test_silent_server_stalls(self):
        self._lose_patience()
        with self._raises(exception.DownloadStalled):
            self._image(stall=-1)


class ReadTest(HttpTestCase):

    def test_range_is_asked_if_the_image_is_still_the_same(self):
        image = self._image()
        self._check((5, DATA[5:]), self._read(image, 5))
        headers = self.server.requests[-1].headers
        self.assertEqual("bytes=5-", headers["Range"])
        self.assertEqual(image.version, headers["If-Range"])

    def test_whole_image_is_asked_without_range(self):
        self._read(self._image())
        self.assertNotIn("Range", self.server.requests[-1].headers)

    def test_server_that_ignores_range_starts_again(self):
        self._check((0, DATA), self._read(self._image(ranges=False), 5))

    def test_server_that_refuses_range_is_asked_without(self):
        for status in (400, 416):
            with self.subTest(status):
                image = self._image(range_status=status)
                self._check((0, DATA), self._read(image, 5))
        self.assertTrue(self.server.is_idle())

    def test_offset_past_the_end_starts_again(self):
        self._check((0, DATA), self._read(self._image(), len(DATA)))

    def test_range_from_elsewhere_is_misbehaviour(self):
        image = self._image(shift=1)
        with self._raises(exception.SourceMisbehaved) as caught:
            self._read(image, 5)
        self.assertIn("bytes 6-", str(caught.exception))

    def test_range_that_nobody_asked_for_is_misbehaviour(self):
        image = self._image()
        self.page.always(status=206)
        with self._raises(exception.SourceMisbehaved):
            self._read(image)

    def test_encoded_bytes_are_misbehaviour(self):
        image = self._image()
        self.page.always(encoding="gzip")
        with self._raises(exception.SourceMisbehaved):
            self._read(image)

    def test_truncated_body_says_how_much_came(self):
        image = self._image()
        for offset in (0, 7):
            self.page.once(cut=1_500_000)
            with self._raises(exception.DownloadTruncated) as caught:
                self._read(image, offset)
            self.assertEqual(1_500_000 + offset,
                             caught.exception.facts["received"])
            self.assertEqual(len(DATA), caught.exception.facts["expected"])

    def test_all_that_came_before_the_end_is_handed_over(self):
        for broken in ({"cut": 1_500_000}, {"stall": 1_500_000},
                       {"cut": 1_500_000, "chunked": True}):
            with self.subTest(broken):
                image = self._image()
                self.page.once(**broken)
                self._lose_patience()
                got = b""
                with self._raises(exception.SourceError):
                    with self.store.read(image) as stream:
                        for chunk in stream.chunks:
                            got += chunk
                self.assertEqual(DATA[:1_500_000], got)

    def test_body_of_unknown_length_that_breaks_is_truncated(self):
        image = self._image(chunked=True)
        self.page.once(chunked=True, cut=1000)
        with self._raises(exception.DownloadTruncated):
            self._read(image)

    def test_body_that_ends_before_the_size_is_truncated(self):
        image = self._image()
        self.page.always(chunked=True)
        self.page.data = DATA[:1000]
        with self._raises(exception.DownloadTruncated):
            self._read(dataclasses.replace(image, version=None))

    def test_reset_connection_is_unreachable(self):
        image = self._image()
        self.page.once(cut=1000, reset=True)
        with self._raises(exception.SourceUnreachable) as caught:
            self._read(image)
        self.assertIn("reset by peer", str(caught.exception))

    def test_stalled_server_says_how_much_came(self):
        image = self._image()
        self._lose_patience()
        self.page.once(stall=1_500_000)
        with self._raises(exception.DownloadStalled) as caught:
            self._read(image)
        self.assertEqual(1_500_000, caught.exception.facts["received"])
        self.assertEqual(0.2, caught.exception.facts["timeout"])

    def test_slow_server_does_not_stall(self):
        image = self._image(b"12345", piece=1, pause=0.1)
        self._lose_patience(0.4)
        self._check((0, b"12345"), self._read(image))

    def test_other_length_than_described_is_a_wrong_size(self):
        image = self._image()
        for data in (DATA[:-1], DATA + b"x"):
            self.page.data = data
            self.page.always(etag=image.version)
            with self._raises(exception.ImageSizeMismatch):
                self._read(image)

    def test_image_that_changed_is_refused(self):
        for manner in ({"etag": '"1"'},
                       {"etag": None, "last_modified": "then"}):
            image = self._image(**manner)
            self.page.always(etag=manner["etag"] and '"2"',
                             last_modified="now")
            for offset in (0, 5):
                with self.subTest(manner, offset=offset), \
                        self._raises(exception.ImageUnacceptable):
                    self._read(image, offset)

    def test_etag_and_date_are_not_compared(self):
        image = self._image()
        self.page.always(etag=None)
        self._check((0, DATA), self._read(image))

    def test_connection_that_ends_without_an_answer_is_unreachable(self):
        image = self._image()
        self.page.once(cut=-1)
        with self._raises(exception.SourceUnreachable):
            self._read(image)

    def test_servers_of_one_image_may_disagree_if_there_is_a_digest(self):
        self._image()
        image = self.store.describe(
            f"{self.page.url}#sha256={hashlib.sha256(DATA).hexdigest()}")
        self.page.always(etag='"2"')
        self._check((0, DATA), self._read(image))

    def test_image_that_went_is_not_found(self):
        image = self._image()
        del self.server.pages["/disk.qcow2"]
        with self._raises(exception.ImageNotFound):
            self._read(image)


class LoginTest(HttpTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.page = self.server.add("/disk", DATA,
                                    guard=("Authorization", LOGIN))
        self.ref = self.page.url.replace("//", "//jo:s%C3%A9%2Fcret@")

    def test_login_of_the_reference_is_used(self):
        image = self.store.describe(self.ref)
        self._check((0, DATA), self._read(image))
        self._check((0, DATA),
                         self._read(pickle.loads(pickle.dumps(image))))

    def test_login_is_not_shown(self):
        image = self.store.describe(self.ref)
        self.assertEqual(self.page.url, image.ref)
        self.assertNotIn("cret", repr(image))
        self.assertNotIn("jo", image.identity)

    def test_login_is_not_in_errors(self):
        for ref, error in ((self.ref + "x", exception.ImageNotFound),
                           (self.ref.replace("jo", "jim"),
                            exception.Forbidden),
                           (self.ref + "#x", exception.InvalidImageRef),
                           (self.ref.replace("127.0.0.1", "127.0.0.1:x"),
                            exception.InvalidImageRef)):
            with self._raises(error) as caught:
                self.store.describe(ref)
            self.assertNotIn("cret", repr(caught.exception.facts))
            self.assertNotIn("cret", str(caught.exception))

    def test_no_login_is_taken_from_netrc(self):
        netrc = self.root / "netrc"
        netrc.write_text("machine 127.0.0.1 login jo password s\n")
        self.useFixture(fixtures.EnvironmentVariable("NETRC", str(netrc)))
        with self._raises(exception.Forbidden):
            self.store.describe(self.page.url)
        self.assertNotIn("Authorization", self.server.requests[-1].headers)


class RedirectTest(HttpTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.page = self.server.add("/there", DATA)
        self.other = self._serve()

    def _redirect(self, to, status=302):
        page = self.server.add("/here", b"")
        page.always(status=status, location=to)
        return page.url

    def _refused(self, to, *words):
        with self._raises(exception.SourceMisbehaved) as caught:
            self.store.describe(self._redirect(to))
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_same_server_is_followed(self):
        for status in (301, 302, 303, 307, 308):
            for to in ("/there", "there#x", self.page.url):
                with self.subTest(to, status=status):
                    image = self.store.describe(self._redirect(to, status))
                    self._check((5, DATA[5:]), self._read(image, 5))
        self.assertTrue(self.server.is_idle())

    def test_identity_is_of_the_url_that_was_asked(self):
        ref = self._redirect("/there")
        self.assertIn(ref, self.store.describe(ref).identity)

    def test_other_server_is_refused_by_name_with_the_option(self):
        self.other.add("/x", DATA)
        self._refused(f"{self.other.url}/x", self.other.url,
                      "[image_cache] http_redirects")
        self.assertEqual([], self.other.requests)

    def test_other_server_is_followed_if_allowed_and_gets_no_login(self):
        self.store = http.HttpStore(redirects="any")
        self.other.add("/x", DATA)
        to = self.other.url.replace("//", "//jo:bait@")
        ref = self._redirect(f"{to}/x").replace("//", "//jo:secret@")
        self._check((0, DATA), self._read(self.store.describe(ref)))
        self.assertIn("Authorization", self.server.requests[-1].headers)
        for request in self.other.requests:
            self.assertNotIn("Authorization", request.headers)

    def test_login_goes_along_on_the_same_server(self):
        ref = self._redirect("/there").replace("//", "//jo:secret@")
        self.store.describe(ref)
        self.assertIn("Authorization", self.server.requests[-1].headers)

    def test_no_redirect_is_followed_if_none_is_allowed(self):
        self.store = http.HttpStore(redirects="none")
        self._refused("/there", "[image_cache] http_redirects")

    def test_circle_ends(self):
        self._refused("/here", "more than 5 times")
        self.assertEqual(6, len(self.server.requests))

    def test_what_is_no_web_address_is_refused(self):
        self.store = http.HttpStore(redirects="any")
        for to in ("file:///etc/passwd", "ftp://host/x", "http://", "//",
                   "http://[x/"):
            with self.subTest(to):
                self._refused(to)

    def test_redirect_without_location_is_misbehaviour(self):
        self._refused(None, "302")

    def test_body_of_a_redirect_is_not_read(self):
        # It could be endless; this one would stall.
        ref = self._redirect("/there")
        self.server.pages["/here"].always(status=302, location="/there",
                                         length="1000000")
        self.assertEqual(len(DATA), self.store.describe(ref).size)
        self._check((0, DATA), self._read(self.store.describe(ref)))

    def test_login_in_a_redirect_is_not_shown(self):
        with self._raises(exception.SourceMisbehaved) as caught:
            self.store.describe(
                self._redirect("http://jo:secret@elsewhere/x"))
        self.assertNotIn("secret", str(caught.exception))


class TlsTest(HttpTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.ca_file = self.root / "server.pem"
        self.ca_file.write_bytes(_certificate())
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.ca_file)
        self.plain, self.server = self.server, self._serve(tls)
        self.page = self.server.add("/disk", DATA)

    def test_authority_of_the_option_is_trusted(self):
        self.store = http.HttpStore(ca_file=self.ca_file)
        image = self.store.describe(self.page.url)
        self._check((5, DATA[5:]), self._read(image, 5))

    def test_unknown_authority_is_not_trusted(self):
        with self._raises(exception.SourceUnreachable) as caught:
            self.store.describe(self.page.url)
        self.assertIn("certificate", str(caught.exception))

    def test_insecure_trusts_anybody(self):
        # What the environment says of authorities does not matter then.
        self.useFixture(fixtures.EnvironmentVariable(
            "REQUESTS_CA_BUNDLE", "/dev/null"))
        self.store = http.HttpStore(insecure=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")   # urllib3 warns of insecurity
            image = self.store.describe(self.page.url)
            self._check((0, DATA), self._read(image))

    def test_missing_authority_file_is_a_configuration_error(self):
        self.store = http.HttpStore(ca_file=self.root / "missing")
        with self._raises(exception.InvalidConfiguration) as caught:
            self.store.describe(self.page.url)
        self.assertIn("http_ca_file", str(caught.exception))

    def test_redirect_to_plain_http_is_always_refused(self):
        self.store = http.HttpStore(redirects="any", ca_file=self.ca_file)
        self.plain.add("/x", DATA)
        self.page.always(status=301, location=f"{self.plain.url}/x")
        with self._raises(exception.SourceMisbehaved):
            self.store.describe(self.page.url)
        self.assertEqual([], self.plain.requests)


def _certificate() -> bytes:
    """A private key and a certificate of it for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([
            x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256()))
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()) + certificate.public_bytes(
            serialization.Encoding.PEM)
