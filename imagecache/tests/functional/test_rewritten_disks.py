# SPDX-License-Identifier: Apache-2.0
"""Disks that a guest, or another host, has rewritten do no harm.

All of what may be written is tried without a sandbox, where the rules are the
only defence, and every fifth with one.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

import ddt

import hostile_images as corpus
from hostile_images import guests
from imagecache import exception, fixture
from imagecache.backends.base import Disk, Extractor, Rebaser
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base

INSTANCE = "6b1e7d14-0c57-4a6f-9a0f-2d1f6f1f7a10"
SIZE = 4 * MiB
SANDBOXES = ("available", "never")
KINDS = ("qcow2", "raw")

Sample = TypeVar("Sample", guests.Written, guests.Rewritten)


class RewrittenTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.canary = self.enterContext(corpus.Canary(self.root / "canary"))
        self.images = self.useFixture(fixture.ImageCacheFixture())

    def use(self, image_type: str, sandbox: str,
            force_raw: bool = True) -> None:
        self.images.config(force_raw_images=force_raw)
        self.images.config("libvirt", images_type=image_type)
        self.images.config("image_cache", sandbox=sandbox)
        self.every = 1 if sandbox == "never" else 5
        self.image = self.images.add(images.qcow2(images.content()), "qcow2")

    def some(self, samples: Iterator[Sample]) -> list[Sample]:
        """Return the samples to try in the sandbox that is used."""
        return list(samples)[::self.every]

    def disk(self) -> Disk:
        return self.images.cache.disk(INSTANCE)

    def actions(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield every action on a disk; the last removes it."""
        disk, cache = self.disk(), self.images.cache
        nova = self.images.backend().by_libvirt_path(
            {"uuid": INSTANCE}, str(disk.path), disk.format.value)
        yield "format", lambda: disk.format
        yield "size", disk.size
        yield "allocated", disk.allocated
        yield "base_key", disk.base_key
        yield "disks", lambda: [each.size() for each in cache.disks()]
        yield "users", lambda: [cache.users(each) for each in cache.bases()]
        yield "nova's size", lambda: nova.get_disk_size(nova.path)
        yield "nova's format", nova.resolve_driver_format
        yield "nova's model", lambda: nova.get_model(None)
        yield "again", lambda: cache.create_disk(INSTANCE, self.image,
                                                 size=SIZE)
        for format in ("raw", "qcow2", "vmdk"):
            yield f"extract {format}", lambda format=format: self._extract(
                disk, format)
        yield "nova's extract", lambda: nova.snapshot_extract(
            str(self.root / "out"), "raw")
        yield "grow", lambda: disk.grow(disk.size() + MiB)
        yield "nova's grow", lambda: nova.resize_image(disk.size() + MiB)
        if isinstance(disk, Rebaser):
            [entry] = list(cache.bases())
            yield "rebase", lambda: disk.rebase(entry.as_base())
            yield "flatten", disk.flatten
        yield "remove", disk.remove

    def _extract(self, disk: Disk, format: str) -> None:
        assert isinstance(disk, Extractor)
        disk.extract(self.root / "out", format)

    def act(self, write: Callable[[], None]) -> list[str]:
        """Do each action on a disk, after ``write``; return the harm done."""
        found = []
        self.images.cache.create_disk(INSTANCE, self.image, size=SIZE)
        for name, action in list(self.actions()):
            if name != "remove":
                write()
            with contextlib.suppress(exception.ImageCacheError):
                action()
            found += [f"{name}: {each}" for each in self._harm()]
        return found

    def fail_for(self, found: list[str]) -> None:
        if found:
            self.fail("\n".join(["harm was done:", *found]))

    def _harm(self) -> Iterator[str]:
        yield from self.canary.complaints()
        output = self.root / "out"
        if output.exists():
            if self.canary.is_in(output.read_bytes()):
                yield "the secret is in the output"
            output.unlink()
        if self.disk().exists() \
                and self.canary.is_in(self.disk().path.read_bytes()):
            yield "the secret is in the disk"


@ddt.ddt
class WrittenTest(RewrittenTestCase):
    """A guest wrote to where its raw disk begins."""

    @ddt.data(*SANDBOXES)
    def test_a_header_written_by_a_guest_means_nothing(
            self, sandbox: str) -> None:
        self.use("raw", sandbox)
        found = []
        for written in self.some(guests.headers()):
            header = written.build(self.canary.sentinel)[:MiB]
            found += [f"{written.id}: {each}" for each in self.act(
                lambda header=header: self._write(header))]
        self.fail_for(found)

    @ddt.data(*SANDBOXES)
    def test_a_header_means_nothing_where_the_record_is_lost(
            self, sandbox: str) -> None:
        self.use("raw", sandbox)
        found = []
        for written in self.some(guests.headers()):
            header = written.build(self.canary.sentinel)[:MiB]
            found += [f"{written.id}: {each}" for each in self.act(
                lambda header=header: self._write(header, forget=True))]
        self.fail_for(found)

    @ddt.data(True, False)
    def test_what_a_guest_wrote_is_what_is_read(self, forget: bool) -> None:
        self.use("raw", "available")
        for written in self.some(guests.headers()):
            header = written.build(self.canary.sentinel)[:MiB]
            self.images.cache.create_disk(INSTANCE, self.image, size=SIZE)
            self._write(header, forget=forget)
            disk = self.disk()
            disk.grow(2 * SIZE)
            self._extract(disk, "qcow2")
            output = self.root / "out"
            with self.subTest(written.id):
                self.assertEqual("raw", disk.format)
                self.assertEqual(2 * SIZE, disk.size())
                self.assertTrue(
                    header + images.content()[len(header):]
                    + bytes(2 * SIZE - MiB) == images.read(output, "qcow2"))
            output.unlink()
            disk.remove()

    def _write(self, header: bytes, *, forget: bool = False) -> None:
        path = self.disk().path
        if not path.exists():
            return
        with path.open("r+b") as f:
            f.write(header)
        if forget:
            (path.parent / "disk.info").unlink(missing_ok=True)


@ddt.ddt
class OverlayTest(RewrittenTestCase):
    """An attacker in qemu, or another host, has rewritten a qcow2 file."""

    @ddt.data(*itertools.product(SANDBOXES, KINDS))
    @ddt.unpack
    def test_a_rewritten_header_leads_nowhere(self, sandbox: str,
                                              kind: str) -> None:
        # A raw disk is a qcow2 file where the base is kept as it is.
        self.use(kind, sandbox, force_raw=kind == "qcow2")
        found = []
        for rewritten in self.some(guests.rewrites()):
            self._sound: bytes | None = None
            found += [f"{rewritten.id}: {each}" for each in self.act(
                lambda rewritten=rewritten: self._rewrite(rewritten))]
        self.fail_for(found)

    def test_a_sound_overlay_still_works(self) -> None:
        """The tests above would pass if every action failed."""
        self.use("qcow2", "never")
        self.images.cache.create_disk(INSTANCE, self.image, size=SIZE)
        for name, action in list(self.actions()):
            with self.subTest(name):
                action()

    def _rewrite(self, rewritten: guests.Rewritten) -> None:
        path = self.disk().path
        if path.exists():
            # Undo what the last action, or this function, did to the disk.
            if self._sound is None:
                self._sound = path.read_bytes()
            path.write_bytes(rewritten.change(
                self._sound, self.canary.sentinel))
