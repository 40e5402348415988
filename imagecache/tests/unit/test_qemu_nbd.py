# SPDX-License-Identifier: Apache-2.0
"""Disks as block devices: the tests that need no block device.

The tests in the guest suite use real devices.
"""

from __future__ import annotations

import contextlib
import errno
import pathlib
import shlex
import subprocess
from collections.abc import Iterator
from unittest import mock

from imagecache import exception, fixture
from imagecache.backends import Disk
from imagecache.model import Format, Limits, MiB
from imagecache.policy import CONVERSION
from imagecache.system.locks import Locks
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE
from imagecache.tests import base
from imagecache.tests.unit.test_lvm import rootwrap_allows, sudo_allows
from imagecache.tools import qemu_nbd


class WithoutDevicesTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        # The machine that runs the tests may have some.
        self.enterContext(mock.patch.object(
            qemu_nbd, "devices", return_value=[]))
        self.images = self.useFixture(fixture.ImageCacheFixture(
            resize_fs_using_block_device=True))
        self.image = self.images.add(images.content(SIZE), "raw")

    def make(self, size: int | None, instance: str = INSTANCE) -> Disk:
        return self.images.cache.create_disk(instance, self.image, size=size)

    def test_without_devices_a_disk_larger_than_its_image_is_refused(
            self) -> None:
        with self.assertRaises(exception.NbdUnavailable) as caught:
            self.make(2 * SIZE)
        for words in ("modprobe nbd", "resize_fs_using_block_device"):
            self.assertIn(words, str(caught.exception))
        self.assertFalse(self.images.cache.disk(INSTANCE).path.parent.exists())

    def test_without_devices_a_disk_that_should_grow_keeps_its_size(
            self) -> None:
        self.make(None)
        self.images.config(preallocate_images="space")
        disk = self.images.cache.disk(INSTANCE)
        before, taken = disk.path.read_bytes(), disk.allocated()
        self.assertRaises(exception.NbdUnavailable, disk.grow, 16 * SIZE)
        self.assertTrue(before == disk.path.read_bytes())
        self.assertEqual(taken, disk.allocated())

    def test_without_devices_a_qcow2_copy_cannot_grow(self) -> None:
        self.images.config(use_cow_images=False, force_raw_images=False)
        self.image = self.images.add(images.qcow2(images.content(SIZE)),
                                     "qcow2")
        self.assertRaises(exception.NbdUnavailable, self.make, 2 * SIZE)
        self.make(None)
        self.images.config(preallocate_images="space")
        disk = self.images.cache.disk(INSTANCE)
        taken = disk.allocated()
        self.assertRaises(exception.NbdUnavailable, disk.grow, 16 * SIZE)
        self.assertEqual((SIZE, taken), (disk.size(), disk.allocated()))

    def test_a_disk_as_large_as_its_image_needs_no_device(self) -> None:
        self.make(None)
        self.make(SIZE, OTHER).grow(SIZE)

    def test_a_raw_disk_needs_no_device(self) -> None:
        self.images.config(use_cow_images=False)
        self.make(2 * SIZE).grow(4 * SIZE)

    def test_a_disk_made_from_a_template_needs_no_device(self) -> None:
        cache = self.images.cache
        cache.create_swap(INSTANCE, MiB)
        cache.create_ephemeral(INSTANCE, SIZE)
        cache.create_blank(INSTANCE, "disk.blank", SIZE)

    def test_devices_are_not_required_unless_configured(self) -> None:
        self.images.config(resize_fs_using_block_device=False)
        self.make(2 * SIZE).grow(4 * SIZE)


class ServingTest(base.TestCase):
    """qemu-storage-daemon serves a disk, in the sandbox of this host."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = self.root / "disk"
        self.disk.write_bytes(images.qcow2(images.content(SIZE)))
        self.socket = self.root / "socket"

    def serving(self, backing: pathlib.Path | None = None
                ) -> contextlib.AbstractContextManager[qemu_nbd.Program]:
        return qemu_nbd._serving(self.socket, self.disk, Format.QCOW2,
                                     CONVERSION, backing)

    def read(self) -> bytes:
        output = self.root / "output"
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "raw",
             f"nbd+unix:///disk?socket={self.socket}", output], check=True,
            stderr=subprocess.PIPE)
        return output.read_bytes()

    def test_the_server_serves_the_content_of_the_disk(self) -> None:
        with self.serving() as program:
            self.assertTrue(images.content(SIZE) == self.read())
            self.assertFalse(program.done())
        self.assertTrue(program.done())

    def test_the_server_reads_the_base_that_the_call_names(self) -> None:
        secret = self.root / "secret"
        secret.write_bytes(images.content(SIZE))
        self.disk.write_bytes(images.backed_by(secret, SIZE))
        with self.serving(secret):
            self.assertTrue(images.content(SIZE) == self.read())

    def test_the_server_reads_no_base_that_only_the_header_names(self) -> None:
        secret = self.root / "secret"
        secret.write_bytes(images.content(SIZE))
        self.disk.write_bytes(images.backed_by(secret, SIZE))
        with self.serving() as program:
            self.assertRaises(subprocess.CalledProcessError, self.read)
            self.assertRaises(exception.CommandFailed, program.result, 30)

    def test_an_error_of_the_server_at_its_start_is_raised(self) -> None:
        with mock.patch("imagecache.system.execute.run",
                        side_effect=OSError(errno.EMFILE, "too many files")), \
                self.assertRaises(exception.StorageFailed) as caught, \
                self.serving():
            pass
        self.assertIn("too many files", str(caught.exception))

    def test_a_socket_that_cannot_be_made_raises_storage_failed(self) -> None:
        self.socket = self.root / ("x" * 200)
        with self.assertRaises(exception.StorageFailed), self.serving():
            pass


FORBIDDEN = (
    "qemu-nbd --connect /dev/nbd0 /etc/shadow",
    "qemu-nbd --disconnect /dev/sda",
    "qemu-nbd --verbose --description 'imagecache /x' --socket"
    " /tmp/imagecache-nbd.abc/nbd0 --connect /dev/nbd0 --image-opts"
    " driver=raw,file.driver=file,file.filename=/dev/sda",
    "qemu-nbd --verbose --description 'imagecache /x' --socket /etc/nbd0"
    " --connect /dev/nbd0 --image-opts driver=raw,file.driver=nbd,"
    "file.export=disk,file.server.type=unix,"
    "file.server.path=/tmp/imagecache-nbd.abc/disk",
    "chown 1000 /dev/nbd0/../sda",
    "chown 1000 /dev/nbd0 /dev/sda",
)


class PrivilegesTest(base.TestCase):
    """The shipped rules for sudo and rootwrap allow the commands of root."""

    def commands(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []

        @contextlib.contextmanager
        def running(*command: str, **how: object
                    ) -> Iterator[qemu_nbd.Program]:
            found.append(command)
            yield qemu_nbd.Program()

        def run(*command: str, **how: object) -> str:
            found.append(command)
            return ""

        connector = qemu_nbd._Connector(
            self.root / "disk", pathlib.Path("/tmp/imagecache-nbd.ab1_x"),
            qemu_nbd.Program(), SIZE,
            Locks(pathlib.Path("/var/lib/nova/instances/locks")), Limits(),
            "sudo")
        device = qemu_nbd.Device("nbd12")
        with mock.patch.object(qemu_nbd, "_running", running), \
                mock.patch("imagecache.system.execute.run", run), \
                mock.patch.object(qemu_nbd, "PATIENCE", 0), \
                mock.patch.object(qemu_nbd._Connector, "_await"), \
                mock.patch.object(qemu_nbd._Connector, "_is_ours"), \
                connector._connected(device):
            connector._own(device, 1000)
        return found

    def test_the_shipped_rules_allow_each_command(self) -> None:
        commands = self.commands()
        self.assertEqual(["qemu-nbd", "chown", "qemu-nbd"],
                         [each[0] for each in commands])
        for command in commands:
            with self.subTest(" ".join(command)):
                self.assertTrue(rootwrap_allows(command))
                self.assertTrue(sudo_allows(list(command)))

    def test_the_shipped_rules_allow_no_other_command(self) -> None:
        for line in FORBIDDEN:
            with self.subTest(line):
                words = shlex.split(line)
                self.assertFalse(rootwrap_allows(words))
                self.assertFalse(sudo_allows(words))
