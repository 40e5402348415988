# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
import time
from unittest import mock

import fixtures

from imagecache import backends
from imagecache.bases.cache import BaseCache
from imagecache.bases.directory import DirectoryStore
from imagecache.host import Host
from imagecache.model import MiB
from imagecache.testing import glance
from imagecache.tests import signing
from imagecache.tests.command import CommandTestCase


class TestFetch(CommandTestCase):

    def test_images_are_brought_in(self) -> None:
        a, b = self.image("a.qcow2"), self.image("b.raw")
        done = self.succeed("base", "fetch", a, b, "-f", "json")
        self.assertEqual(
            [(str(a), "raw", MiB, 0), (str(b), "raw", MiB, 0)],
            [(e["source"], e["format"], e["virtual_size"], e["users"])
             for e in done.json])
        for each in done.json:
            base = self.instances / "_base" / each["key"]
            self.assertEqual(base.stat().st_blocks * 512, each["allocated"])

    def test_one_that_is_missing_does_not_stop_the_others(self) -> None:
        done = self.run_command("base", "fetch", "/missing", self.image(),
                                "-f", "json")
        self.assertEqual(3, done.code)
        self.assertEqual(1, len(done.json))
        self.assertEqual("imagecache: error: Image /missing could not be"
                         " found; check its name, and that the user may see"
                         " it\n", done.err)

    def test_a_digest_is_of_one_image(self) -> None:
        image = self.image()
        digest = f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"
        self.succeed("base", "fetch", image, "--digest", digest)
        self.assertEqual(3, self.run_command(
            "base", "fetch", self.image("b.raw"),
            "--digest", f"sha256:{'0' * 64}").code)
        self.assertIn("one image", self.fails(
            2, "base", "fetch", image, image, "--digest", digest))


class TestFetchElsewhere(CommandTestCase):
    """The bases of the configured disks are not those that are files."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.dict(backends.BACKENDS, raw=Elsewhere))
        self.conf = self.root / "elsewhere.conf"
        self.conf.write_text("[libvirt]\nimages_type = raw\n")

    def test_a_file_of_the_same_image_is_no_obstacle(self) -> None:
        image = self.image()
        key = self.succeed("base", "fetch", image, "-f",
                           "json").json[0]["key"]
        for _ in range(2):
            [found] = self.succeed("--config-file", self.conf, "base",
                                   "fetch", image, "-f", "json").json
            self.assertEqual(key, found["key"])
        self.assertEqual([key, key], [each["key"] for each in self.succeed(
            "--config-file", self.conf, "base", "list", "-f", "json").json])


class Elsewhere(backends.Raw):

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        return host.cache_over(DirectoryStore(
            host.policy.instances / "elsewhere", host.policy.instances))


class TestSigned(CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.server = glance.FakeGlance()
        self.server.start()
        self.addCleanup(self.server.stop)
        self.conf = self.root / "imagecache.conf"
        self.conf.write_text(
            "[glance]\nauth_type = admin_token\n"
            f"endpoint = {self.server.url}\ntoken = {self.server.token}\n"
            "[key_manager]\n"
            "backend = imagecache.tests.directory_keys.DirectoryKeys\n"
            f"directory = {self.root}/keys\n")

    def test_it_is_fetched_and_shown_by_whom(self) -> None:
        keys, data = signing.Keys(self.root / "keys"), bytes(MiB)
        root = signing.Party("root", authority=True)
        signature = keys.signed(data, signing.Party("jo", issuer=root))
        ref = self.server.add_image(
            data, img_signature=signature.value,
            img_signature_hash_method=signature.hash_method,
            img_signature_key_type=signature.key_type,
            img_signature_certificate_uuid=signature.certificate_id)
        command = ("--config-file", self.conf, "base")
        done = self.run_command(*command, "fetch", ref,
                                "--trusted-certificate", "gone")
        self.assertEqual(3, done.code)
        self.assertIn("no trusted certificate signed it", done.err)
        self.succeed(*command, "fetch", ref, "--trusted-certificate", "gone",
                     "--trusted-certificate", keys.add(root))
        found = self.succeed(*command, "show", ref, "-f", "json").json
        self.assertRegex(found["signature"],
                         f"^{signature.certificate_id} sha256:")


class TestListAndShow(CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.source = self.image("image.qcow2")
        self.key = self.succeed("base", "fetch", self.source, "-f",
                                "json").json[0]["key"]

    def make_disk(self) -> str:
        path: str = self.succeed(
            "disk", "create", "--image", self.source, "--instance", "vm",
            "-f", "json").json["path"]
        return path

    def test_list_counts_the_disks_of_each_base(self) -> None:
        self.make_disk()
        [found] = self.succeed("base", "list", "-f", "json").json
        self.assertEqual((self.key, 1), (found["key"], found["users"]))

    def test_moments_are_local_for_people_and_utc_for_programs(self) -> None:
        self.useFixture(_TimeZone("ABC-5"))
        os.utime(self.instances / "_base" / self.key, (1e9, 1e9))
        [found] = self.succeed("base", "list", "-f", "json").json
        self.assertEqual("2001-09-09T01:46:40+00:00", found["last_used"])
        self.assertIn("2001-09-09 06:46:40",
                      self.succeed("base", "list").out)

    def test_show_names_the_digest_and_the_users(self) -> None:
        disk = self.make_disk()
        found = self.succeed("base", "show", self.key, "-f", "json").json
        self.assertEqual([disk], found["users"])
        digest = hashlib.sha256(self.source.read_bytes()).hexdigest()
        self.assertEqual(f"sha256:{digest}", found["digest"])
        self.assertIsNone(found["signature"])
        self.assertIn(disk, self.succeed("base", "show", self.key).out)

    def test_every_format_of_cliff_can_show_it(self) -> None:
        for name in ("yaml", "shell", "value", "table"):
            self.succeed("base", "show", self.key, "-f", name)
        for name in ("yaml", "csv", "value", "table"):
            self.succeed("base", "list", "-f", name)

    def test_any_path_to_the_image_names_the_base(self) -> None:
        link = self.root / "link"
        link.symlink_to(self.source)
        for name in (self.key, self.source, link,
                     os.path.relpath(self.source)):
            found = self.succeed("base", "show", name, "-f", "json").json
            self.assertEqual(self.key, found["key"])

    def test_a_name_of_two_bases_names_neither(self) -> None:
        os.utime(self.source, (1, 1))
        self.succeed("base", "fetch", self.source)
        for command in ("show", "remove"):
            self.assertIn(self.key, self.fails(7, "base", command,
                                              self.source))
        self.assertEqual(2, len(self.succeed("base", "list", "-f",
                                             "json").json))

    def test_what_nobody_has_proven_is_listed_without_claims(self) -> None:
        (self.instances / "_base" / f"{self.key}.json").unlink()
        [found] = self.succeed("base", "list", "-f", "json").json
        self.assertEqual((None, None, None), (
            found["source"], found["format"], found["virtual_size"]))
        self.assertIn("| -", self.succeed("base", "list").out)
        self.assertIn("| -", self.succeed("base", "show", self.key).out)

    def test_a_base_that_is_not_there(self) -> None:
        self.assertIn("There is no base nope", self.fails(
            7, "base", "show", "nope"))

    def test_a_host_without_bases_has_an_empty_list(self) -> None:
        self.instances = self.root / "elsewhere"
        self.assertEqual([], self.succeed("base", "list", "-f", "json").json)
        self.assertFalse(self.instances.exists())


class TestRemove(CommandTestCase):

    def test_several_are_deleted(self) -> None:
        a, b = self.image("a.raw"), self.image("b.raw")
        key = self.succeed("base", "fetch", a, b, "-f", "json").json[0]["key"]
        self.succeed("base", "remove", key, b)
        self.assertEqual([], self.succeed("base", "list", "-f", "json").json)

    def test_one_in_use_stays_and_its_users_are_named(self) -> None:
        a, b = self.image("a.raw"), self.image("b.raw")
        self.succeed("base", "fetch", b)
        disk = self.succeed("disk", "create", "--image", a, "--instance",
                            "vm", "-f", "json").json["path"]
        self.assertIn(f"is in use by {disk}", self.fails(
            7, "base", "remove", a, b))
        [left] = self.succeed("base", "list", "-f", "json").json
        self.assertEqual(str(a), left["source"])


class _TimeZone(fixtures.Fixture):
    """The process is somewhere else in the world."""

    def __init__(self, zone: str) -> None:
        self._zone = zone

    def _setUp(self) -> None:
        self.addCleanup(time.tzset)
        self.useFixture(fixtures.EnvironmentVariable("TZ", self._zone))
        time.tzset()
