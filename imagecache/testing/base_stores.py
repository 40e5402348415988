# SPDX-License-Identifier: Apache-2.0
"""The promises of every store of bases, as tests to inherit.

    class FolderStoreTest(base_stores.BaseStoreConformance):
        def make_store(self):
            return FolderStore(self.directory)
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import fixtures

from imagecache import exception
from imagecache.bases.store import BaseStore, Staging
from imagecache.model import Base, Format, MiB, Record, Validated

KEY = "a" * 40
OTHER = "b" * 40
CONTENT = b"content" * 100
RECORD = Record(Format.RAW, virtual_size=1024, size=len(CONTENT), rules=1,
                source="image", digest="sha256:00",
                committed="2026-01-01T00:00:00+00:00")


class BaseStoreConformance(fixtures.TestWithFixtures):
    """Inherit this together with unittest.TestCase and make a store."""

    def setUp(self) -> None:
        super().setUp()
        # Does not exist yet.
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / "bases"

    def make_store(self) -> BaseStore:
        """Return a new object for the same store, below ``directory``."""
        raise NotImplementedError

    def put(self, key: str = KEY) -> Base:
        with self.make_store().stage(key) as staging:
            return self.commit(staging)

    def commit(self, staging: Staging) -> Base:
        staging.download.write_bytes(CONTENT)
        return staging.commit(
            Validated(staging.download, Format.RAW, 1024), RECORD)

    def keys(self) -> list[str]:
        return [entry.key for entry in self.make_store().entries()]

    def test_describing_a_store_creates_no_file(self) -> None:
        self.assertIsNone(self.make_store().lookup(KEY))
        self.assertEqual([], self.keys())
        self.assertFalse(self.directory.exists())

    def test_a_committed_base_is_found_by_another_object(self) -> None:
        base = self.put()
        entry = self.make_store().lookup(KEY)
        assert entry is not None
        self.assertEqual(base, entry.as_base())
        self.assertEqual((RECORD, len(CONTENT)), (entry.record, entry.size))
        self.assertEqual(CONTENT, base.path.read_bytes())

    def test_bases_are_listed_in_the_order_of_their_keys(self) -> None:
        self.put(OTHER)
        self.put(KEY)
        self.assertEqual([KEY, OTHER], self.keys())

    def test_an_attempt_is_not_visible_before_its_commit(self) -> None:
        for in_place in (False, True):
            store = self.make_store()
            with store.stage(KEY, in_place=in_place) as staging:
                self.assertFalse(staging.download.exists())
                staging.download.write_bytes(CONTENT)
                self.assertIsNone(self.make_store().lookup(KEY))
                self.assertEqual([], self.keys())

    def test_an_attempt_without_a_commit_leaves_no_file(self) -> None:
        for in_place in (False, True):
            with self.assertRaises(ZeroDivisionError), \
                    self.make_store().stage(
                        KEY, in_place=in_place) as staging:
                staging.download.write_bytes(CONTENT)
                raise ZeroDivisionError
            self.assertEqual([], self.files())

    def test_a_download_in_place_becomes_the_base(self) -> None:
        with self.make_store().stage(KEY, in_place=True) as staging:
            download = staging.download
            self.assertEqual(download, self.commit(staging).path)
        self.assertEqual([KEY], self.keys())

    def test_an_abandoned_attempt_is_removed_by_the_next(self) -> None:
        abandoned = self.make_store().stage(KEY)
        abandoned.__enter__().download.write_bytes(b"abandoned")
        self.put()
        self.assertEqual([KEY], self.keys())
        self.assertNotIn(b"abandoned", [
            path.read_bytes() for path in self.files()])

    def test_abandoned_attempts_are_listed_and_cleared(self) -> None:
        self.put(OTHER)
        for in_place in (False, True):
            abandoned = self.make_store().stage(KEY, in_place=in_place)
            abandoned.__enter__().download.write_bytes(b"abandoned")
            self.assertEqual([KEY], list(self.make_store().attempts()))
            self.make_store().clear(KEY)
            self.assertEqual([], list(self.make_store().attempts()))
            self.assertNotIn(b"abandoned", [
                path.read_bytes() for path in self.files()])
        self.assertEqual([OTHER], self.keys())

    def test_an_attempt_keeps_a_base_that_is_committed(self) -> None:
        """On shared storage another host may have been quicker."""
        self.put()
        with self.make_store().stage(KEY):
            pass
        self.assertEqual([KEY], self.keys())

    def test_an_output_reads_as_zeros_until_it_is_written(self) -> None:
        with self.make_store().stage(KEY) as staging:
            with staging.writing(MiB, 0):
                pass
            self.assertEqual(bytes(MiB), staging.head(MiB))
            base = staging.commit(
                Validated(staging.output, Format.RAW, MiB),
                dataclasses.replace(RECORD, size=MiB, virtual_size=MiB))
        self.assertEqual(bytes(MiB), base.path.read_bytes())

    def test_a_used_base_has_a_later_time(self) -> None:
        base = self.put()
        os.utime(base.path, (0, 0))
        self.make_store().touch(KEY)
        entry = self.make_store().lookup(KEY)
        assert entry is not None
        self.assertGreater(entry.used, 0)

    def test_the_record_of_a_base_is_replaced(self) -> None:
        self.put()
        record = dataclasses.replace(RECORD, rules=2)
        base = self.make_store().record(KEY, record)
        entry = self.make_store().lookup(KEY)
        assert entry is not None
        self.assertEqual((record, base), (entry.record, entry.as_base()))

    def test_a_base_that_is_required_must_exist(self) -> None:
        self.put()
        self.make_store().require(KEY)
        self.make_store().remove(KEY)
        self.assertRaises(exception.BaseNotFound, self.make_store().require,
                          KEY)

    def test_a_removed_base_leaves_no_file(self) -> None:
        self.put()
        self.assertEqual((), tuple(self.make_store().in_use(KEY)))
        self.make_store().remove(KEY)
        self.assertIsNone(self.make_store().lookup(KEY))
        self.assertEqual([], self.files())

    def files(self) -> list[pathlib.Path]:
        return [path for path in self.directory.rglob("*")
                if path.is_file()]
