# SPDX-License-Identifier: Apache-2.0
"""The stores in directories keep the promises of every store of bases."""

from __future__ import annotations

import unittest

import fixtures

from imagecache.backends import Raw
from imagecache.bases.cache import BaseCache
from imagecache.bases.directory import DirectoryStore
from imagecache.bases.store import BaseStore
from imagecache.host import Host
from imagecache.testing import base_stores, conformance
from imagecache.testing.conformance import SIZE
from imagecache.testing.folder_store import FolderStore


class DirectoryStoreTest(base_stores.BaseStoreConformance,
                         unittest.TestCase):

    def make_store(self) -> BaseStore:
        return DirectoryStore(self.directory, self.directory.parent)


class FolderStoreTest(base_stores.BaseStoreConformance, unittest.TestCase):
    """The worked example is a store."""

    def make_store(self) -> BaseStore:
        return FolderStore(self.directory)


class Copied(Raw):
    """A raw copy of a base in a FolderStore."""

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        return host.cache_over(FolderStore(host.policy.bases))


class CopiedTest(conformance.MakingConformance,
                 conformance.RefusingConformance,
                 conformance.BaseConformance):
    """The store affects where bases are; existing disks are as in RawTest."""

    image_type = "copied"

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.backends.BACKENDS", {"copied": Copied}))

    def test_the_bases_are_in_folders(self) -> None:
        self.make(2 * SIZE)
        [entry] = self.cache.bases()
        self.assertEqual(("base", {"base", "record.json"}), (
            entry.path.name,
            {path.name for path in entry.path.parent.iterdir()}))
