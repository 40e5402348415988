# SPDX-License-Identifier: Apache-2.0
"""Bases are fetched at most once, and leased while they are used."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
from collections.abc import Iterator

import fixtures

from imagecache import exception, fixture, sources
from imagecache.bases.cache import BaseCache
from imagecache.bases.directory import DirectoryStore, StagedFiles
from imagecache.events import Event
from imagecache.inspection import verify
from imagecache.model import Base, Digest, Format, MiB
from imagecache.policy import Policy
from imagecache.sources import DelegatedImage, Image, Template, templates
from imagecache.system.locks import Locks
from imagecache.testing import images
from imagecache.testing.memory import MemoryStore
from imagecache.tests import base

SIZE = MiB
CONTENT = images.content(SIZE)


class BaseCacheTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.policy = Policy(self.root / "instances")
        self.events: list[Event] = []
        self.images = MemoryStore()
        self.source = self.image(images.qcow2(CONTENT), "qcow2")
        self.path = self.policy.bases / self.source.key

    @property
    def cache(self) -> BaseCache:
        return BaseCache(
            DirectoryStore(self.policy.bases, self.policy.instances),
            Locks(self.policy.locks), self.policy, self.events.append)

    def image(self, content: bytes, claim: str, **options: object) -> Image:
        ref = self.images.add(content, claim, **options)
        return Image(self.images, self.images.describe(ref))

    def lease(self, source: sources.Source | None = None,
              size: int | None = None) -> Base:
        with self.cache.lease(source or self.source, size) as found:
            return found

    def heard(self) -> list[str]:
        """Return the names of the events since the last call."""
        found = [event.name for event in self.events
                 if event.name not in ("download", "convert")]
        self.events.clear()
        return found

    def left(self) -> list[str]:
        if not self.policy.bases.exists():
            return []
        return sorted(str(path.relative_to(self.policy.bases))
                      for path in self.policy.bases.rglob("*")
                      if path.name != ".staged")

    def adopt(self, content: bytes, source: Image | None = None) -> None:
        """Write a base as nova does: without a record."""
        self.policy.bases.mkdir(parents=True, exist_ok=True)
        path = self.policy.bases / (source or self.source).key
        path.write_bytes(content)
        path.chmod(0o644)


class LeaseTest(BaseCacheTestCase):

    def test_a_base_that_another_host_made_meanwhile_is_used(self) -> None:
        self.lease()
        self.heard()
        other = self.path.rename(self.root / "other")

        class Shared(DirectoryStore):
            """A store in which another host commits the base first."""

            @contextlib.contextmanager
            def stage(self, key: str, *, in_place: bool = False
                      ) -> Iterator[StagedFiles]:
                with super().stage(key, in_place=in_place) as staging:
                    other.rename(self.directory / key)
                    yield staging

        cache = dataclasses.replace(self.cache, store=Shared(
            self.policy.bases, self.policy.instances))
        with cache.lease(self.source) as base:
            self.assertEqual(self.path, base.path)
        self.assertEqual(["miss", "hit"], self.heard())
        self.assertEqual(1, self.images.reads)

    def test_a_fetch_removes_what_a_killed_fetch_of_another_image_left(
            self) -> None:
        for in_place in (False, True):
            with self.subTest(in_place=in_place):
                killed = self.cache.store.stage("b" * 40, in_place=in_place)
                killed.__enter__().download.write_bytes(b"left")
                self.lease(self.image(os.urandom(SIZE), "raw"))
                self.assertEqual([], [
                    path for path in self.policy.bases.rglob("*")
                    if path.is_file() and path.read_bytes() == b"left"])

    def test_a_fetch_keeps_what_a_running_fetch_of_another_image_has(
            self) -> None:
        other = self.image(os.urandom(SIZE), "raw")
        with self.cache.locks.holding(other.key), \
                self.cache.store.stage(other.key) as staging:
            staging.download.write_bytes(b"coming")
            self.lease()
            self.assertEqual(b"coming", staging.download.read_bytes())

    def test_a_fetch_goes_on_although_leftovers_cannot_be_removed(
            self) -> None:
        class Stubborn(DirectoryStore):
            def clear(self, key: str) -> None:
                if key == "b" * 40:
                    raise exception.StorageFailed(
                        what="clearing", path="/", reason="no permission")
                super().clear(key)

        killed = self.cache.store.stage("b" * 40)
        killed.__enter__().download.write_bytes(b"left")
        cache = dataclasses.replace(self.cache, store=Stubborn(
            self.policy.bases, self.policy.instances))
        with cache.lease(self.source):
            pass
        self.assertEqual(["miss", "leftovers_kept", "verified", "validated",
                          "committed"], self.heard())

    def test_no_directory_of_attempts_stays(self) -> None:
        self.lease()
        self.assertFalse((self.policy.bases / ".staged").exists())

    def test_a_base_is_fetched_once(self) -> None:
        first = self.lease()
        self.assertEqual(["miss", "verified", "validated", "committed"],
                         self.heard())
        self.assertEqual(first, self.lease())
        self.assertEqual(["hit"], self.heard())
        self.assertEqual(1, self.images.reads)

    def test_a_base_is_raw_and_holds_the_image(self) -> None:
        found = self.lease()
        self.assertEqual(
            Base(self.source.key, self.path, Format.RAW, SIZE), found)
        self.assertTrue(self.path.read_bytes() == CONTENT)

    def test_a_base_can_keep_the_format_of_its_image(self) -> None:
        self.policy = dataclasses.replace(self.policy, force_raw=False)
        content = images.qcow2(CONTENT, "-c", "-o", "cluster_size=128k")
        self.source = self.image(content, "qcow2")
        found = self.lease()
        self.assertEqual((Format.QCOW2, SIZE, 128 * 1024), (
            found.format, found.virtual_size, found.cluster_size))
        self.assertTrue(found.path.read_bytes() == content)
        self.assertEqual(found, self.lease())

    def test_the_record_holds_what_was_validated(self) -> None:
        self.lease()
        record = self.cache.store.lookup(self.source.key).record
        self.assertEqual(
            (Format.RAW, SIZE, SIZE, verify.RULES, self.source.name,
             str(self.source.description.digest)),
            (record.format, record.virtual_size, record.size, record.rules,
             record.source, record.digest))
        self.assertTrue(record.committed.endswith("+00:00"))

    def test_a_hit_updates_the_time_of_last_use(self) -> None:
        self.lease()
        os.utime(self.path, (0, 0))
        self.lease()
        self.assertGreater(self.path.stat().st_mtime, 1e9)

    def test_threads_make_one_download(self) -> None:
        found: list[Base] = []
        threads = [threading.Thread(
            target=lambda: found.append(self.lease())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([self.lease()] * 8, found)
        self.assertEqual(1, self.images.reads)

    def test_images_of_other_keys_do_not_wait(self) -> None:
        with self.cache.lease(self.source), \
                self.cache.lease(self.image(CONTENT, "raw")):
            self.assertEqual(2, self.images.reads)

    def test_an_error_in_the_lease_block_is_not_translated(self) -> None:
        with self.assertRaises(FileNotFoundError), \
                self.cache.lease(self.source):
            raise FileNotFoundError
        self.assertEqual(self.path, self.lease().path)

    def test_the_base_of_a_template_holds_what_the_template_wrote(
            self) -> None:
        found = self.lease(templates.swap(SIZE))
        self.assertEqual((Format.RAW, SIZE, "swap_1"),
                         (found.format, found.virtual_size, found.key))
        self.assertEqual(["miss", "validated", "committed"], self.heard())

    def test_a_trusted_template_is_not_inspected(self) -> None:
        """This host generated it, and its disks are read as raw."""
        header = images.backed_by(pathlib.Path("/etc/passwd"))
        found = self.lease(Template(
            "t", lambda path: path.write_bytes(header) and None))
        self.assertIs(Format.RAW, found.format)


class RefusalTest(BaseCacheTestCase):

    def refuse(self, kind: type[Exception], source: sources.Source,
               size: int | None = None) -> None:
        before = self.left()
        for _ in range(2):    # the lock is free
            self.assertRaises(kind, self.lease, source, size)
        self.assertEqual(before, self.left())

    def test_an_image_larger_than_the_disk_is_refused(self) -> None:
        for _ in ("miss", "hit"):
            self.refuse(exception.FlavorDiskSmallerThanImage, self.source,
                        SIZE - 512)
            self.lease()

    def test_an_image_whose_min_disk_is_larger_is_not_read(self) -> None:
        source = self.image(CONTENT, "raw", min_disk=SIZE + 1)
        self.refuse(exception.FlavorDiskSmallerThanMinDisk, source, SIZE)
        self.assertEqual(0, self.images.reads)
        for size in (None, 0, SIZE + 1):
            self.lease(source, size)

    def test_an_image_larger_than_the_limit_of_the_site_is_refused(
            self) -> None:
        self.lease()
        self.policy = dataclasses.replace(self.policy,
                                          max_virtual_size=SIZE - 1)
        self.refuse(exception.ImageTooLarge, self.source)
        self.refuse(exception.ImageTooLarge,
                    self.image(CONTENT + b"x", "raw"))

    def test_an_oversized_image_is_not_converted(self) -> None:
        self.refuse(exception.FlavorDiskSmallerThanImage, self.source, 512)
        self.assertNotIn("convert", [event.name for event in self.events])

    def test_a_download_longer_than_the_limit_is_refused(self) -> None:
        self.policy = dataclasses.replace(self.policy, max_image_size=10)
        self.refuse(exception.ImageTooLarge, self.source)
        self.assertEqual(0, self.images.reads)

    def test_an_image_removed_from_its_store_leaves_nothing(self) -> None:
        self.images.remove(self.source.name)
        self.refuse(exception.ImageNotFound, self.source)

    def test_a_failing_fetch_function_leaves_nothing(self) -> None:
        def write(path: pathlib.Path) -> None:
            path.write_bytes(b"half")
            (path.parent / f"{path.name}.part").write_bytes(b"half")
            raise ZeroDivisionError

        self.refuse(ZeroDivisionError, DelegatedImage("key", write))

    def test_a_fetch_function_that_writes_nothing_leaves_nothing(self) -> None:
        self.refuse(exception.ImageNotFound,
                    DelegatedImage("key", lambda path: None))

    def test_a_fetch_function_that_makes_no_regular_file_is_refused(
            self) -> None:
        secret = self.root / "secret"
        secret.write_bytes(CONTENT)
        secret.chmod(0o600)
        for write in (pathlib.Path.mkdir, os.mkfifo,
                      lambda path: path.symlink_to(secret)):
            self.refuse(exception.ImageUnacceptable,
                        DelegatedImage("key", write))
        self.assertEqual(0o600, secret.stat().st_mode & 0o777)

    def test_a_hostile_image_of_a_fetch_function_is_refused(self) -> None:
        header = images.backed_by(pathlib.Path("/etc/passwd"))
        self.refuse(exception.ImageUnacceptable, DelegatedImage(
            "key", lambda path: path.write_bytes(header) and None))

    def test_a_key_that_is_not_a_file_name_is_refused(self) -> None:
        for key in ("../x", "", "a/b", "x.json"):
            self.refuse(exception.InvalidName,
                        DelegatedImage(key, lambda path: None))

    def test_a_base_of_another_format_than_claimed_now_is_refused(
            self) -> None:
        self.lease()
        changed = dataclasses.replace(self.source, description=(
            dataclasses.replace(self.source.description,
                                disk_format="raw")))
        self.refuse(exception.ImageUnacceptable, changed)

    def test_a_base_of_changed_image_data_is_refused(self) -> None:
        self.lease()
        changed = dataclasses.replace(self.source, description=(
            dataclasses.replace(self.source.description,
                                digest=Digest("sha512", "0" * 128))))
        self.refuse(exception.ImageChanged, changed)
        with self.assertRaises(exception.ImageChanged) as caught:
            self.lease(changed)
        self.assertIn(self.source.key, str(caught.exception))

    def test_digests_of_other_algorithms_are_not_compared(self) -> None:
        self.lease()
        other = dataclasses.replace(self.source, description=(
            dataclasses.replace(self.source.description,
                                digest=Digest("sha256", "0" * 64))))
        self.assertEqual(self.path, self.lease(other).path)


class AdoptionTest(BaseCacheTestCase):
    """Bases that nova made are validated and used."""

    def test_a_raw_base_without_a_record_is_validated_once(self) -> None:
        self.adopt(CONTENT)
        found = self.lease()
        self.assertEqual((Format.RAW, SIZE), (found.format,
                                              found.virtual_size))
        self.assertEqual(["adopted", "hit"], self.heard())
        self.assertEqual(found, self.lease())
        self.assertEqual(["hit"], self.heard())
        self.assertEqual(0, self.images.reads)

    def test_a_qcow2_base_without_a_record_is_validated_once(self) -> None:
        self.adopt(images.qcow2(CONTENT))
        found = self.lease()
        self.assertEqual((Format.QCOW2, SIZE, 64 * 1024), (
            found.format, found.virtual_size, found.cluster_size))
        self.assertEqual(found, self.lease())
        self.assertEqual(["adopted", "hit", "hit"], self.heard())

    def test_a_hostile_base_is_refused_and_not_removed(self) -> None:
        content = images.backed_by(pathlib.Path("/etc/passwd"))
        self.adopt(content)
        for _ in range(2):
            self.assertRaises(exception.ImageUnacceptable, self.lease)
        self.assertEqual(content, self.path.read_bytes())

    def test_a_base_of_an_unsupported_format_is_refused(self) -> None:
        """Images of the format may be accepted, because they are converted."""
        self.policy = dataclasses.replace(self.policy,
                                          accepted=frozenset(Format))
        self.adopt(images.convert(CONTENT, "vmdk"))
        self.assertRaises(exception.ImageUnacceptable, self.lease)

    def test_a_replaced_base_is_validated_again(self) -> None:
        self.lease()
        self.heard()
        self.path.unlink()
        self.adopt(images.qcow2(CONTENT))
        self.assertIs(Format.QCOW2, self.lease().format)
        self.assertEqual(["adopted", "hit"], self.heard())

    def test_a_base_validated_by_older_rules_is_validated_again(self) -> None:
        self.lease()
        self.heard()
        digest = self.cache.store.lookup(self.source.key).record.digest
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.inspection.verify.RULES", verify.RULES + 1))
        self.lease()
        self.lease()
        self.assertEqual(["adopted", "hit", "hit"], self.heard())
        record = self.cache.store.lookup(self.source.key).record
        self.assertEqual((verify.RULES, digest),
                         (record.rules, record.digest))

    def test_a_base_validated_by_newer_rules_is_not_validated_again(
            self) -> None:
        """After a downgrade of the library its rules are older."""
        self.lease()
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.inspection.verify.RULES", verify.RULES - 1))
        self.heard()
        self.lease()
        self.assertEqual(["hit"], self.heard())

    def test_a_template_of_nova_is_adopted(self) -> None:
        self.policy.bases.mkdir(parents=True)
        (self.policy.bases / "swap_1").write_bytes(bytes(SIZE))
        self.assertEqual(SIZE, self.lease(templates.swap(SIZE)).virtual_size)
        self.assertEqual(["adopted", "hit"], self.heard())


class InPlaceTest(BaseCacheTestCase):
    """A base copied from another host, to the same path on this host."""

    def copy(self, path: pathlib.Path) -> None:
        self.seen = path
        path.write_bytes(images.qcow2(CONTENT))

    def source_of(self, write: sources.Write) -> sources.Source:
        return DelegatedImage(self.source.key, write, in_place=True)

    def test_a_fetch_function_in_place_gets_the_path_of_the_base(self) -> None:
        found = self.lease(self.source_of(self.copy))
        self.assertEqual(self.path, self.seen)
        self.assertTrue(found.path.read_bytes() == CONTENT)
        self.assertEqual([self.source.key, f"{self.source.key}.json"],
                         self.left())

    def test_an_unfinished_fetch_in_place_is_not_a_base(self) -> None:
        def write(path: pathlib.Path) -> None:
            self.copy(path)
            self.assertFalse(self.cache.has(self.source))
            self.assertEqual([], list(self.cache.entries()))
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.lease,
                          self.source_of(write))
        self.assertEqual([], self.left())

    def test_a_process_killed_while_it_fetches_in_place_leaves_no_base(
            self) -> None:
        child = os.fork()
        if not child:
            def write(path: pathlib.Path) -> None:
                path.write_bytes(b"half")
                os._exit(0)
            self.lease(self.source_of(write))
        os.waitpid(child, 0)
        self.assertTrue(self.path.exists())
        self.assertFalse(self.cache.has(self.source))
        self.assertTrue(self.lease().path.read_bytes() == CONTENT)
        self.assertEqual(1, self.images.reads)
        self.assertEqual([self.source.key, f"{self.source.key}.json"],
                         self.left())

    def test_an_image_fetched_in_place_is_inspected(self) -> None:
        header = images.backed_by(pathlib.Path("/etc/passwd"))
        self.assertRaises(
            exception.ImageUnacceptable, self.lease,
            self.source_of(lambda path: path.write_bytes(header) and None))
        self.assertEqual([], self.left())


class RemoveTest(BaseCacheTestCase):

    def test_a_base_is_removed_with_its_record(self) -> None:
        self.lease()
        self.cache.remove(self.source.key)
        self.assertEqual([], self.left())
        self.assertEqual("removed", self.heard()[-1])
        self.lease()
        self.assertEqual(2, self.images.reads)

    def test_a_missing_base_is_not_found(self) -> None:
        with self.assertRaises(exception.BaseNotFound) as caught:
            self.cache.remove(self.source.key)
        self.assertEqual(
            f"There is no base {self.source.key} in {self.policy.bases};"
            " `imagecache base list` lists the bases", str(caught.exception))

    def test_a_base_in_use_is_not_removed(self) -> None:
        self.lease()
        disk = self.policy.instances / "instance" / "disk"
        disk.parent.mkdir()
        disk.write_bytes(images.backed_by(self.path))
        with self.assertRaises(exception.BaseInUse) as caught:
            self.cache.remove(self.source.key)
        self.assertIn(str(disk), str(caught.exception))
        self.assertTrue(self.path.exists())

    def test_removing_a_leased_base_waits_for_the_end_of_the_lease(
            self) -> None:
        thread = threading.Thread(target=self.cache.remove,
                                  args=(self.source.key,))
        with self.cache.lease(self.source):
            thread.start()
            thread.join(0.02)
            self.assertTrue(self.path.exists())
        thread.join()
        self.assertFalse(self.path.exists())


class OddDirectoryTest(BaseCacheTestCase):
    """An error of the host names the path."""

    @contextlib.contextmanager
    def blamed(self, path: pathlib.Path) -> Iterator[None]:
        with self.assertRaises(exception.StorageFailed) as caught:
            yield
        self.assertIn(str(path), str(caught.exception))

    def test_a_file_in_place_of_the_directory_is_an_error_of_the_host(
            self) -> None:
        for path in (self.policy.instances, self.policy.locks,
                     self.policy.bases):
            path.parent.mkdir(exist_ok=True)
            path.touch()
            with self.subTest(path), self.blamed(path):
                self.lease()
            path.unlink()

    def test_a_directory_in_place_of_a_base_is_an_error_of_the_host(
            self) -> None:
        self.path.mkdir(parents=True)
        with self.blamed(self.path):
            self.lease()

    def test_a_file_in_place_of_the_staging_directory_is_an_error(
            self) -> None:
        self.policy.bases.mkdir(parents=True)
        (self.policy.bases / ".staged").touch()
        with self.blamed(self.policy.bases):
            self.lease()


class Md5Test(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        # Old releases of Glance recorded no other digest.
        self.image = self.images.store.add(
            images.qcow2(images.content(MiB)), "qcow2", algorithm="md5")

    def test_an_image_with_only_an_md5_is_refused(self) -> None:
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            self.images.cache.create_disk("i", self.image)
        self.assertIn("allow_md5", str(caught.exception))
        self.assertEqual(0, self.images.store.reads)

    def test_an_operator_can_accept_images_with_only_an_md5(self) -> None:
        self.images.config("image_cache", allow_md5=True)
        self.assertTrue(
            self.images.cache.create_disk("i", self.image).exists())
