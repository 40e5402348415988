# SPDX-License-Identifier: Apache-2.0
"""No program opens a disk whose header was rewritten."""

from __future__ import annotations

import pathlib
import subprocess

from imagecache import exception, fixture
from imagecache.backends.base import Disk
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base

INSTANCE = "3f0b9a0e-6f4b-4a37-9a6d-0d6a5c2f7b11"
SECRET = b"the host's secret" * 100


class RewrittenTest(base.TestCase):
    """The sandbox is off: this defence must work without it."""

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("image_cache", sandbox="never")
        self.images.config(force_raw_images=False)
        self.secret = self.root / "secret"
        self.secret.write_bytes(SECRET)
        self.disk = self.make(images.qcow2(images.content(MiB)), "qcow2")

    def make(self, content: bytes, disk_format: str) -> Disk:
        return self.images.cache.create_disk(
            INSTANCE, self.images.add(content, disk_format), size=2 * MiB)

    def rebase(self, backing: pathlib.Path, format: str | None) -> None:
        """Change the header as a compromised hypervisor can."""
        name = [] if format is None else ["-F", format]
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b",
                        backing, *name, self.disk.path], check=True)

    def assert_refused(self, rule: str) -> None:
        out = self.root / "out"
        for act in (lambda: self.disk.grow(4 * MiB), self.disk.flatten,
                    lambda: self.disk.extract(out, "raw")):
            with self.assertRaises(exception.UnsafeDisk) as caught:
                act()
            self.assertIn(f"rule {rule}", str(caught.exception))
            self.assertFalse(out.exists())
        self.assertEqual(SECRET, self.secret.read_bytes())

    def test_a_file_of_the_host_is_refused_as_a_base(self) -> None:
        self.rebase(self.secret, "raw")
        self.assert_refused("foreign-base")

    def test_a_path_that_leaves_the_directory_of_bases_is_refused(
            self) -> None:
        bases = self.images.instances_path / "_base"
        self.rebase(bases / ".." / ".." / self.secret.name, "raw")
        self.assert_refused("foreign-base")

    def test_another_base_of_this_host_is_accepted(self) -> None:
        """It is the result of a rebase; only this library writes there."""
        bases = self.images.instances_path / "_base"
        self.rebase(next(p for p in bases.iterdir()
                         if p.is_file() and p.suffix != ".json"), "qcow2")
        self.disk.grow(4 * MiB)
        self.assertEqual(4 * MiB, self.disk.size())

    def test_the_host_is_at_fault_if_a_base_cannot_be_read(self) -> None:
        [entry] = self.images.cache.bases()
        entry.path.unlink()
        entry.path.mkdir()
        self.assertRaises(exception.HostError, self.disk.grow, 4 * MiB)

    def test_an_external_data_file_is_refused(self) -> None:
        with self.disk.path.open("r+b") as f:
            f.seek(79)
            f.write(b"\4")
        self.assert_refused("data-file")

    def test_a_base_named_as_another_format_is_refused(self) -> None:
        """A raw image of a tenant can be a vmdk that names a file."""
        evil = (f'# Disk DescriptorFile\nversion=1\nCID=1\n'
                f'parentCID=ffffffff\ncreateType="monolithicFlat"\n'
                f'RW 8 FLAT "{self.secret}" 0\n').encode()
        path = self.images.instances_path / "_base" / "nova-made"
        path.write_bytes(evil.ljust(MiB, b"\0"))
        for format in ("vmdk", "qcow2"):
            self.rebase(path, format)
            self.assert_refused("base-format")
        with self.disk.path.open("r+b") as f:    # as before 2020: no format
            content = f.read(65536).replace(
                (0xE2792ACA).to_bytes(4), (0x12345678).to_bytes(4))
            f.seek(0)
            f.write(content)
        self.assert_refused("base-format")

    def test_an_overlay_of_a_raw_base_without_a_format_is_accepted(
            self) -> None:
        self.disk.remove()
        self.images.config(force_raw_images=True)
        self.disk = self.make(images.content(MiB), "raw")
        with self.disk.path.open("r+b") as f:
            content = f.read(65536).replace(
                (0xE2792ACA).to_bytes(4), (0x12345678).to_bytes(4))
            f.seek(0)
            f.write(content)
        self.disk.grow(4 * MiB)
        self.assertEqual(4 * MiB, self.disk.size())
