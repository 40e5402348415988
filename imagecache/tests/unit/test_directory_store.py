# SPDX-License-Identifier: Apache-2.0
"""The directory of bases."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
from unittest import mock

import ddt

from imagecache import exception
from imagecache.bases.directory import DirectoryStore
from imagecache.model import Base, Format, Record, Validated
from imagecache.testing import images
from imagecache.tests import base

KEY = "a" * 40
CONTENT = b"content" * 100
RECORD = Record(Format.RAW, virtual_size=1024, size=len(CONTENT), rules=1,
                source="image", digest="sha256:00",
                committed="2026-01-01T00:00:00+00:00")


class DirectoryStoreTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.instances = self.root / "instances"
        self.directory = self.instances / "_base"
        self.store = DirectoryStore(self.directory, self.instances)

    def put(self, key: str = KEY, content: bytes = CONTENT,
            in_place: bool = False) -> Base:
        with self.store.stage(key, in_place=in_place) as staging:
            staging.download.write_bytes(content)
            return staging.commit(
                Validated(staging.download, Format.RAW, 1024),
                dataclasses.replace(RECORD, size=len(content)))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.directory))
                for path in self.directory.rglob("*") if not path.is_dir()}

    def disk(self, backing: pathlib.Path, instance: str = "instance",
             name: str = "disk") -> pathlib.Path:
        path = self.instances / instance / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.backed_by(backing))
        return path


@ddt.ddt
class LookupTest(DirectoryStoreTestCase):

    def test_describing_a_store_creates_no_file(self) -> None:
        self.assertIsNone(self.store.lookup(KEY))
        self.assertEqual([], list(self.store.entries()))
        self.assertEqual([], os.listdir(self.root))

    def test_a_committed_base_is_found(self) -> None:
        made = self.put()
        found = self.store.lookup(KEY)
        self.assertEqual(
            (KEY, self.directory / KEY, len(CONTENT), RECORD),
            (found.key, found.path, found.size, found.record))
        self.assertEqual(made, found.as_base())
        self.assertEqual(found.path.stat().st_blocks * 512, found.allocated)

    def test_another_object_reads_the_same_record(self) -> None:
        self.put()
        again = DirectoryStore(self.directory, self.instances)
        self.assertEqual(RECORD, again.lookup(KEY).record)

    def test_a_base_of_nova_has_no_record(self) -> None:
        self.directory.mkdir(parents=True)
        (self.directory / KEY).write_bytes(CONTENT)
        self.assertIsNone(self.store.lookup(KEY).record)
        self.store.record(KEY, RECORD)
        self.assertEqual(RECORD, self.store.lookup(KEY).record)

    def test_a_record_of_another_size_is_ignored(self) -> None:
        self.put()
        path = self.directory / KEY
        path.chmod(0o644)
        path.write_bytes(CONTENT + b"x")
        self.assertIsNone(self.store.lookup(KEY).record)

    @ddt.data(b"", b"{", b"null", b"[]", b"3", b"\xff", b"{}",
              {"format": "vmdk"}, {"format": None}, {"virtual_size": "big"},
              {"virtual_size": None}, {"rules": "x"}, {"rules": None},
              {"source": 3}, {"digest": 3},
              {"cluster_size": "64k"}, {"committed": 0}, {"unknown": 1})
    def test_a_damaged_record_is_ignored(self, damage: object) -> None:
        self.put()
        if isinstance(damage, dict):
            damage = json.dumps(dataclasses.asdict(RECORD) | damage).encode()
        (self.directory / f"{KEY}.json").write_bytes(damage)
        self.assertIsNone(self.store.lookup(KEY).record)

    def test_a_record_that_cannot_be_read_is_an_error_of_the_host(
            self) -> None:
        self.put()
        (self.directory / f"{KEY}.json").unlink()
        (self.directory / f"{KEY}.json").mkdir()
        self.assertRaises(exception.StorageFailed, self.store.lookup, KEY)

    def test_a_directory_or_fifo_is_not_a_base(self) -> None:
        (self.directory / KEY).mkdir(parents=True)
        self.assertRaises(exception.StorageFailed, self.store.lookup, KEY)
        (self.directory / KEY).rmdir()
        os.mkfifo(self.directory / KEY)
        self.assertRaises(exception.StorageFailed, self.store.lookup, KEY)

    def test_a_file_in_place_of_the_directory_is_an_error_of_the_host(
            self) -> None:
        self.instances.mkdir()
        self.directory.touch()
        self.assertRaises(exception.StorageFailed, self.store.lookup, KEY)
        with self.assertRaises(exception.StorageFailed), \
                self.store.stage(KEY):
            pass

    @ddt.data("", ".", "..", "a/b", "/etc/passwd", ".hidden", "a\0b", "a b",
              "key.json", "x" * 201, "é")
    def test_keys_that_are_not_plain_file_names_are_refused(
            self, key: str
                                                        ) -> None:
        for act in (self.store.lookup, self.put, self.store.remove,
                    self.store.touch, self.store.in_use):
            self.assertRaises(exception.InvalidName, act, key)
        self.assertFalse(self.directory.exists())

    def test_entries_are_the_bases_and_nothing_else(self) -> None:
        for key in ("b" * 40, KEY, "swap_64", "ephemeral_1_0123abc"):
            self.put(key)
        for name in ("odd name", ".hidden", "x.part", "x.converted", "ä"):
            (self.directory / name).touch()
        (self.directory / "lost+found").mkdir()
        (self.directory / "dangling").symlink_to("nowhere")
        self.assertEqual(
            [KEY, "b" * 40, "ephemeral_1_0123abc", "swap_64"],
            [entry.key for entry in self.store.entries()])

    def test_touching_a_base_updates_its_time_of_last_use(self) -> None:
        self.put()
        os.utime(self.directory / KEY, (0, 0))
        self.assertEqual(0, self.store.lookup(KEY).used)
        self.store.touch(KEY)
        self.assertGreater(self.store.lookup(KEY).used, 1e9)


class StageTest(DirectoryStoreTestCase):

    def test_a_staged_base_is_not_found(self) -> None:
        with self.store.stage(KEY) as staging:
            staging.download.write_bytes(CONTENT)
            staging.output.write_bytes(CONTENT)
            self.assertIsNone(self.store.lookup(KEY))
            self.assertEqual([], list(self.store.entries()))

    def test_an_attempt_without_a_commit_leaves_no_file(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                self.store.stage(KEY) as staging:
            staging.download.write_bytes(CONTENT)
            (staging.download.parent / "beside").mkdir()
            raise KeyboardInterrupt
        self.assertFalse((self.directory / ".staged").exists())

    def test_other_users_cannot_read_a_staged_base(self) -> None:
        with self.store.stage(KEY) as staging:
            self.assertEqual(0o700, staging.download.parent.stat().st_mode
                             & 0o777)

    def test_the_next_attempt_removes_abandoned_attempts(self) -> None:
        for name in (f"{KEY}.dead", f"{KEY}.alsodead", "b.alive",
                     f"{KEY}.b.alive", f"x{KEY}.alive"):
            (self.directory / ".staged" / name).mkdir(parents=True)
            (self.directory / ".staged" / name / "download").touch()
        (self.directory / ".staged" / f"{KEY}.file").touch()
        self.put()
        self.assertEqual({f"x{KEY}.alive", f"{KEY}.b.alive", "b.alive"},
                         set(os.listdir(self.directory / ".staged")))

    def test_an_error_in_the_block_is_not_translated(self) -> None:
        with self.assertRaises(PermissionError), self.store.stage(KEY):
            raise PermissionError

    def test_staging_in_place_yields_the_path_of_the_base(self) -> None:
        with self.store.stage(KEY, in_place=True) as staging:
            self.assertEqual(self.directory / KEY, staging.download)
            staging.download.write_bytes(CONTENT)
            self.assertIsNone(self.store.lookup(KEY))
            self.assertEqual([], list(self.store.entries()))
        self.assertEqual(set(), self.files())

    def test_a_base_that_was_staged_in_place_is_committed(self) -> None:
        self.put(in_place=True)
        self.assertEqual({KEY, f"{KEY}.json"}, self.files())
        self.assertEqual(RECORD, self.store.lookup(KEY).record)

    def test_a_killed_attempt_in_place_leaves_no_base(self) -> None:
        self.directory.joinpath(".staged").mkdir(parents=True)
        (self.directory / KEY).write_bytes(b"half")
        (self.directory / ".staged" / f"{KEY}.in-place").touch()
        self.assertIsNone(self.store.lookup(KEY))
        with self.store.stage(KEY):
            self.assertEqual(set(), self.files())


class CommitTest(DirectoryStoreTestCase):

    def test_every_user_can_read_a_base_and_none_can_write(self) -> None:
        for umask in (0, 0o77):
            self.addCleanup(os.umask, os.umask(umask))
            key = f"{umask:040}"
            self.put(key)
            modes = [(self.directory / name).stat().st_mode & 0o777
                     for name in (key, f"{key}.json", "")]
            self.assertEqual([0o444, 0o644, 0o755], modes)

    def test_a_record_of_a_lost_base_is_not_that_of_the_next_base(
            self) -> None:
        """The write of the new record may fail, as on a full disk."""
        self.put()
        record = self.directory / f"{KEY}.json"
        (self.directory / KEY).unlink()
        with self.store.stage(KEY) as staging:
            staging.download.write_bytes(CONTENT)
            with self.assertRaises(TypeError):
                staging.commit(
                    Validated(staging.download, Format.RAW, 1024),
                    dataclasses.replace(RECORD, source=object()))
        self.assertFalse(record.exists())

    def test_a_removed_base_leaves_no_file(self) -> None:
        self.put()
        self.store.remove(KEY)
        self.assertIsNone(self.store.lookup(KEY))
        self.assertEqual(set(), self.files())


class InUseTest(DirectoryStoreTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.put()

    def users(self) -> list[str]:
        return list(self.store.in_use(KEY))

    def test_a_base_without_disks_is_not_in_use(self) -> None:
        self.put("b" * 40)
        self.disk(self.directory / ("b" * 40))
        self.assertEqual([], self.users())

    def test_the_disks_made_of_a_base_are_named(self) -> None:
        disks = [self.disk(self.directory / KEY),
                 self.disk(self.directory / KEY, name="disk.eph0"),
                 self.disk(pathlib.Path("../_base") / KEY, "other")]
        self.assertEqual(sorted(map(str, disks)), sorted(self.users()))

    def test_a_path_through_a_link_is_the_same_path(self) -> None:
        (self.root / "link").symlink_to(self.instances)
        self.disk(self.root / "link" / "_base" / KEY)
        self.assertEqual(1, len(self.users()))

    def test_other_files_among_instances_are_not_disks(self) -> None:
        (self.instances / "compute_nodes").write_text("{}")
        (self.instances / "instance").mkdir()
        (self.instances / "instance" / "console.log").write_text("hello")
        (self.instances / "instance" / "directory").mkdir()
        os.mkfifo(self.instances / "instance" / "fifo")
        (self.instances / "gone").symlink_to("nowhere")
        self.assertEqual([], self.users())

    def test_lost_and_found_is_not_an_instance(self) -> None:
        """Instances may be on a file system of their own."""
        found = self.disk(self.directory / KEY, "lost+found", "#12")
        self.assertEqual([str(found)], self.users())    # it may use the base
        with mock.patch("os.access", return_value=False):
            self.assertEqual([], self.users())

    def test_a_disk_that_cannot_be_read_counts_for_every_base(self) -> None:
        disk = self.disk(pathlib.Path("/x"))
        with mock.patch.object(pathlib.Path, "open",
                               side_effect=PermissionError(13, "no")):
            self.assertEqual([str(disk)], self.users())

    def test_a_guest_cannot_stop_the_search(self) -> None:
        """The guest wrote a qcow2 header to its raw disk."""
        for name in ("\0", "/proc/self/fd/0", "x" * 1000, "/" * 1000,
                     "json:{}", "nbd://host", "."):
            header = images.backed_by(pathlib.Path("/" + "x" * 1000))
            disk = self.disk(pathlib.Path("/x"))
            disk.write_bytes(header.replace(
                b"/" + b"x" * 1000, name.encode().ljust(1001, b"\0")))
            self.assertEqual([], self.users())

    def test_an_instance_removed_during_the_search_is_ignored(self) -> None:
        users = [self.disk(self.directory / KEY, f"i{i}") for i in range(9)]

        class Vanishing(type(self.root)):
            """Directories that are removed right after they are listed."""

            def is_dir(self):
                found = super().is_dir()
                if self.name == "i3":
                    shutil.rmtree(self)
                return found

        store = DirectoryStore(self.directory, Vanishing(self.instances))
        self.assertEqual(len(users) - 1, len(list(store.in_use(KEY))))

    def test_a_base_is_in_use_by_an_overlay_that_qemu_img_made(self) -> None:
        disk = self.disk(self.directory / KEY)
        disk.unlink()
        subprocess.check_call([
            "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
            "-b", self.directory / KEY, disk])
        self.assertEqual([str(disk)], self.users())
