# SPDX-License-Identifier: Apache-2.0
"""The steps that provide a disk, in their order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from imagecache import exception
from imagecache.model import Base, Capabilities, Format, MiB
from imagecache.provision import provision
from imagecache.sources import DelegatedImage, Source, Template
from imagecache.tests import base

IMAGE = DelegatedImage("key", lambda path: None)
TEMPLATE = Template("key", lambda path: None)
BASE = Base("key", "/base", Format.RAW, MiB)


class Disk:
    """Records the calls that it and its cache receive."""

    capabilities = Capabilities()

    def __init__(self, there: bool = False, reads: str | None = None,
                 **capabilities: bool) -> None:
        self.there = there
        self.reads = reads
        self.clones = False
        self.in_session = False
        self.story: list[Any] = []
        self.capabilities = Capabilities(**capabilities)

    @property
    def cache(self) -> Disk:
        return self

    # The cache.

    def restore(self, source: Source, format: Format | None) -> None:
        self.story.append(("restore", source.key, format))

    @contextlib.contextmanager
    def lease(self, source: Source, size: int | None = None
              ) -> Iterator[Base]:
        self.story.append(("lease", size))
        yield dataclasses.replace(BASE, key=source.key)
        self.story.append("end of lease")

    # The disk.

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        self.in_session = True
        yield
        self.in_session = False

    def exists(self) -> bool:
        assert self.in_session
        return self.there

    def base_key(self) -> str | None:
        return self.reads

    def base_format(self) -> Format | None:
        return Format.QCOW2

    def open(self) -> None:
        self.story.append("open")

    def clone(self, source: Source, size: int | None) -> bool:
        return self.clones and not self.story.append(("clone", size))

    def create(self, base: Base, size: int | None) -> None:
        self.story.append(("create", base.key, size))

    def generate(self, template: Template, size: int | None) -> None:
        self.story.append(("generate", template.key, size))

    def grow(self, size: int) -> None:
        self.story.append(("grow", size))


class ProvisionTest(base.TestCase):

    def assert_story(self, expected: list[Any], disk: Disk, source: Source,
                     size: int | None) -> None:
        provision(disk, source, size)
        self.assertEqual(expected, disk.story)

    def test_a_cloned_disk_needs_no_base(self) -> None:
        disk = Disk()
        disk.clones = True
        self.assert_story([("clone", 7)], disk, IMAGE, 7)

    def test_a_disk_is_made_while_its_base_is_leased(self) -> None:
        for source in (IMAGE, TEMPLATE):
            self.assert_story(
                [("lease", 7), ("create", "key", 7), "end of lease"],
                Disk(), source, 7)

    def test_a_template_needs_no_base_if_the_disk_generates_in_place(
            self) -> None:
        self.assert_story([("generate", "key", 7)],
                          Disk(generates_in_place=True), TEMPLATE, 7)

    def test_an_image_needs_a_base_if_it_is_not_cloned(self) -> None:
        self.assert_story(
            [("lease", None), ("create", "key", None), "end of lease"],
            Disk(generates_in_place=True), IMAGE, None)

    def test_a_disk_that_exists_grows_to_the_requested_size(self) -> None:
        self.assert_story(["open", ("grow", 7)], Disk(there=True), IMAGE, 7)

    def test_a_disk_that_exists_keeps_its_size_if_none_is_requested(
            self) -> None:
        for size in (None, 0):
            self.assert_story(["open"], Disk(there=True), IMAGE, size)

    def test_a_lost_base_is_fetched_before_the_disk_grows(self) -> None:
        self.assert_story([("restore", "key", Format.QCOW2), "open",
                           ("grow", 7)],
                          Disk(there=True, reads="key"), IMAGE, 7)

    def test_a_lost_base_of_another_image_is_not_fetched(self) -> None:
        self.assert_story(["open"], Disk(there=True, reads="other"), IMAGE,
                          None)

    def test_a_disk_made_by_another_process_meanwhile_is_kept(self) -> None:
        class Late(Disk):
            def create(self, base: Base, size: int | None) -> None:
                self.there = True
                raise exception.DiskExists(location="somewhere")

        self.assert_story([("lease", 7), "open", ("grow", 7)], Late(), IMAGE,
                          7)

    def test_a_disk_cloned_by_another_process_meanwhile_is_kept(self) -> None:
        class Late(Disk):
            def clone(self, source: Source, size: int | None) -> bool:
                self.there = True
                raise exception.DiskExists(location="somewhere")

        self.assert_story(["open", ("grow", 7)], Late(), IMAGE, 7)

    def test_a_disk_that_exists_and_cannot_be_found_is_an_error(self) -> None:
        class Torn(Disk):
            def create(self, base: Base, size: int | None) -> None:
                raise exception.DiskExists(location="somewhere")

        self.assertRaises(exception.DiskExists, provision, Torn(), IMAGE)

    def test_a_caller_can_say_whether_the_disk_exists(self) -> None:
        class Unasked(Disk):
            def exists(self) -> bool:
                raise AssertionError("the storage was asked")

        for there in (True, False):
            disk = Unasked()
            provision(disk, IMAGE, exists=there)
            self.assertEqual(there, "open" in disk.story)

    def test_the_storage_is_asked_once_whether_a_disk_exists(self) -> None:
        class Counting(Disk):
            asked = 0

            def exists(self) -> bool:
                self.asked += 1
                return super().exists()

        for there in (True, False):
            disk = Counting(there)
            provision(disk, IMAGE, 7)
            self.assertEqual(1, disk.asked)

    def test_an_error_ends_the_lease(self) -> None:
        class Failing(Disk):
            def create(self, base: Base, size: int | None) -> None:
                raise exception.StorageFailed("oh no")

        disk = Failing()
        self.assertRaises(exception.StorageFailed, provision, disk, IMAGE)
        self.assertEqual([("lease", None)], disk.story)
