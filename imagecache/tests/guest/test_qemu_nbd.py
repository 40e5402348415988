# SPDX-License-Identifier: Apache-2.0
"""Disks as network block devices: claimed, written and disconnected."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from unittest import mock

from imagecache import exception
from imagecache.model import Format, MiB, Sandbox
from imagecache.policy import CONVERSION
from imagecache.system.locks import Locks
from imagecache.testing import images
from imagecache.tests import processes
from imagecache.tests.guest import base, devices
from imagecache.tools import qemu_nbd

SIZE = 4 * MiB
USER, UID = "imagecache", 4242
SUDOERS = pathlib.Path(__file__).parents[3] / "etc/imagecache/sudoers"


class DeviceTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual([], devices.in_use())
        self.addCleanup(self.assert_free)
        self.disk = self.new_disk("disk")
        self.locks = Locks(self.root / "locks")
        # Under User-Mode Linux each start of a sandbox takes half a second.
        self.limits = dataclasses.replace(CONVERSION, sandbox=Sandbox.NEVER)

    def assert_free(self) -> None:
        self.assertEqual([], devices.in_use())
        processes.wait_for(lambda: not devices.leftovers())

    def new_disk(self, name: str) -> pathlib.Path:
        path = self.root / name
        path.write_bytes(images.qcow2(images.content(SIZE)))
        return path

    def attached(self, disk: pathlib.Path | None = None,
                 size: int = SIZE, root_helper: str = "sudo -n"
                 ) -> contextlib.AbstractContextManager[pathlib.Path]:
        return qemu_nbd.attached(
            disk or self.disk, Format.QCOW2, size, locks=self.locks,
            limits=self.limits, root_helper=root_helper)


class AttachedTest(DeviceTestCase):

    def test_a_device_reads_and_writes_as_the_disk(self) -> None:
        with self.attached() as device:
            self.assertTrue(images.content(SIZE) == device.read_bytes())
            with device.open("r+b") as f:
                f.write(b"new")
        self.assertTrue(b"new" + images.content(SIZE)[3:]
                        == images.read(self.disk, "qcow2"))
        devices.run("qemu-img", "check", self.disk)

    def test_a_device_reads_and_writes_as_the_disk_in_a_sandbox(self) -> None:
        self.limits = dataclasses.replace(CONVERSION,
                                          sandbox=Sandbox.REQUIRED)
        self.test_a_device_reads_and_writes_as_the_disk()

    def test_an_overlay_is_read_through_its_base(self) -> None:
        base = self.root / "base"
        base.write_bytes(images.content(SIZE))
        devices.run("qemu-img", "create", "-f", "qcow2", "-b", base,
                    "-F", "raw", self.disk, 2 * SIZE)
        with qemu_nbd.attached(
                self.disk, Format.QCOW2, 2 * SIZE, backing=base,
                locks=self.locks, limits=self.limits,
                root_helper="") as device:
            self.assertTrue(images.content(SIZE) + bytes(SIZE)
                            == device.read_bytes())
            with device.open("r+b") as f:
                f.write(b"new")
        self.assertTrue(images.content(SIZE) == base.read_bytes())

    def test_a_backing_file_that_the_caller_did_not_name_is_not_read(
            self) -> None:
        """The header names it, but the sandbox does not contain it."""
        self.limits = CONVERSION
        secret = self.root / "secret"
        secret.write_bytes(b"secret" * MiB)
        self.disk.write_bytes(images.backed_by(secret, SIZE))
        with self.assertRaises(exception.CommandFailed), self.attached():
            pass

    def test_an_error_in_the_block_disconnects_the_device(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.attached():
            raise ZeroDivisionError
        self.assert_free()

    def test_a_connected_device_has_its_size_at_once(self) -> None:
        for _ in range(5):
            with self.attached() as device:
                self.assertEqual(SIZE, int(devices.run(
                    "blockdev", "--getsize64", device)))

    def test_a_disk_that_is_not_qcow2_is_refused(self) -> None:
        self.disk.write_bytes(images.content(SIZE))
        with self.assertRaises(exception.CommandFailed) as caught, \
                self.attached():
            pass
        self.assertIn("not in qcow2 format", str(caught.exception))

    def test_a_disk_that_is_in_use_is_refused(self) -> None:
        with self.attached(), self.assertRaises(
                exception.CommandFailed) as caught, self.attached():
            pass
        self.assertIn("lock", str(caught.exception))

    def test_a_disk_of_another_size_than_named_is_refused(self) -> None:
        with mock.patch.object(qemu_nbd, "PATIENCE", 1.0), \
                self.assertRaises(exception.CommandFailed), \
                self.attached(size=2 * SIZE):
            pass

    def test_a_failed_write_is_reported(self) -> None:
        small = self.root / "small"
        small.mkdir()
        devices.run("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", small)
        self.addCleanup(devices.run, "umount", small)
        disk = small / "disk"
        disk.write_bytes(images.create("qcow2", size=SIZE))
        with self.assertRaises(exception.StorageFailed), \
                self.attached(disk) as device, device.open("r+b") as f:
            f.write(b"x" * SIZE)

    def test_a_missing_program_is_reported(self) -> None:
        with mock.patch.dict(os.environ, PATH=str(self.root)), \
                mock.patch("imagecache.system.execute._SBIN", ""), \
                self.assertRaises(exception.CommandNotFound), \
                self.attached():
            pass

    def test_without_the_nbd_module_the_error_says_how_to_load_it(
            self) -> None:
        devices.run("modprobe", "-r", "nbd")
        self.addCleanup(devices.run, "modprobe", "nbd", "nbds_max=4")
        with self.assertRaises(exception.NbdUnavailable) as caught, \
                self.attached():
            pass
        self.assertIn("modprobe nbd", str(caught.exception))


class ClaimTest(DeviceTestCase):

    @contextlib.contextmanager
    def foreign(self, device: str, *options: str) -> Iterator[None]:
        """Connect a device as a program that takes none of our locks."""
        devices.run("qemu-nbd", "-c", f"/dev/{device}", "-f", "qcow2",
                    *options, self.new_disk(device))
        processes.wait_for(lambda: device in devices.in_use())
        try:
            yield
        finally:
            devices.run("qemu-nbd", "-d", f"/dev/{device}")
            processes.wait_for(lambda: device not in devices.in_use())

    def test_two_disks_at_once_have_two_devices(self) -> None:
        with self.attached() as one, \
                self.attached(self.new_disk("other")) as other:
            self.assertNotEqual(one, other)

    def test_processes_that_start_at_once_have_a_device_each(self) -> None:
        """There are as many processes as devices."""
        self.assertEqual([0] * 4, processes.at_once(
            [lambda n=n: self.write_number(n, self.new_disk(f"disk{n}"))
             for n in range(4)]))

    def write_number(self, number: int, disk: pathlib.Path) -> None:
        """Write to a disk; exit with 2 if the disk does not hold the data."""
        with self.attached(disk) as device, device.open("r+b") as f:
            f.write(b"%d" % number)
        if images.read(disk, "qcow2")[:1] != b"%d" % number:
            os._exit(2)

    def test_processes_with_different_locks_have_a_device_each(self) -> None:
        def act(number: int) -> None:
            self.locks = Locks(self.root / f"locks{number}")
            for attempt in range(2):
                self.write_number(number, self.new_disk(f"{number}.{attempt}"))

        self.assertEqual([0] * 4, processes.at_once(
            [lambda n=n: act(n) for n in range(4)]))

    def test_a_device_that_another_program_connected_is_not_used(self) -> None:
        with self.foreign("nbd0"), self.attached() as device:
            self.assertEqual(pathlib.Path("/dev/nbd1"), device)
            self.assertEqual(["nbd0", "nbd1"], devices.in_use())

    def test_a_device_that_another_program_is_connecting_is_not_used(
            self) -> None:
        """It still looks free, and then has the size we wait for."""
        with self.foreign("nbd0"), mock.patch.object(
                qemu_nbd.Device, "is_free", True), \
                self.attached() as device:
            self.assertEqual(pathlib.Path("/dev/nbd1"), device)

    def test_waiting_for_a_free_device_ends_with_an_error(self) -> None:
        with contextlib.ExitStack() as stack:
            for each in qemu_nbd.devices():
                stack.enter_context(self.foreign(each.name))
            with mock.patch.object(qemu_nbd, "PATIENCE", 0.5), \
                    self.assertRaises(exception.NbdUnavailable) as caught, \
                    self.attached():
                pass
        self.assertIn("in use", str(caught.exception))

    def test_a_waiting_process_takes_a_device_that_becomes_free(self) -> None:
        with contextlib.ExitStack() as stack:
            last = contextlib.ExitStack()
            for each in qemu_nbd.devices():
                last = contextlib.ExitStack()
                last.enter_context(self.foreign(each.name))
                stack.push(last)
            timer = threading.Timer(0.5, last.close)
            timer.start()
            with self.attached() as device:
                self.assertEqual(f"/dev/{each.name}", str(device))
            timer.join()


class KilledTest(DeviceTestCase):

    def kill_an_agent(self) -> None:
        """Kill a process that has connected a device."""
        readable, writable = os.pipe()

        def act() -> None:
            with self.attached():
                os.write(writable, b"x")
                signal.pause()

        agent = self.start(act)
        os.read(readable, 1)
        agent.kill()
        self.assertEqual(-signal.SIGKILL, agent.wait())

    def start(self, act: Callable[[], None]) -> processes.Child:
        return processes.Child(act)

    def clean_up(self) -> None:
        """Remove the directory of sockets that a killed process leaves."""
        for path in pathlib.Path("/scratch").glob("imagecache-nbd.*"):
            shutil.rmtree(path)

    def test_the_device_of_a_killed_agent_becomes_free(self) -> None:
        self.kill_an_agent()
        self.clean_up()
        processes.wait_for(lambda: not devices.in_use())
        with self.attached() as device:
            self.assertEqual(pathlib.Path("/dev/nbd0"), device)

    def test_a_disk_can_be_attached_again_right_after_its_agent_is_killed(
            self) -> None:
        self.kill_an_agent()
        self.clean_up()
        with self.attached() as device:
            self.assertTrue(images.content(SIZE) == device.read_bytes())


class UnprivilegedTest(KilledTest):
    """An agent that is not root, with the sudo rules that we ship."""

    def setUp(self) -> None:
        super().setUp()
        installed = pathlib.Path("/etc/sudoers.d/imagecache")
        devices.run("useradd", "--uid", UID, "--no-create-home", USER)
        self.addCleanup(devices.run, "userdel", USER)
        devices.run("install", "--mode=0440", SUDOERS, installed)
        self.addCleanup(installed.unlink)
        for path in (self.root, self.disk):
            os.chown(path, UID, UID)
        # A killed agent does not give the devices back to root.
        for path in pathlib.Path("/dev").glob("nbd*"):
            self.addCleanup(os.chown, path, path.stat().st_uid, -1)

    def as_the_agent(self, act: Callable[[], None]) -> None:
        self.assertEqual(0, self.start(act).wait())

    def start(self, act: Callable[[], None]) -> processes.Child:
        def be_the_agent() -> None:
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            act()

        return processes.Child(be_the_agent)

    def test_an_agent_writes_to_the_device(self) -> None:
        def act() -> None:
            with self.attached() as device, device.open("r+b") as f:
                f.write(b"new")

        self.as_the_agent(act)
        self.assertTrue(b"new" + images.content(SIZE)[3:]
                        == images.read(self.disk, "qcow2"))

    def test_a_device_belongs_to_the_agent_and_then_to_root_again(
            self) -> None:
        def act() -> None:
            with self.attached() as device:
                if device.stat().st_uid != UID:
                    os._exit(2)

        self.as_the_agent(act)
        self.assertEqual(0, pathlib.Path("/dev/nbd0").stat().st_uid)

    def test_an_agent_without_sudo_rules_gets_an_error(self) -> None:
        def act() -> None:
            try:
                with self.attached(root_helper="sudo -n -u daemon"):
                    pass
            except exception.CommandFailed:
                os._exit(0)
            os._exit(2)

        self.as_the_agent(act)

    def test_the_device_of_a_killed_agent_becomes_free(self) -> None:
        """The next agent frees it: sudo outlives the agent that called it."""
        self.kill_an_agent()
        self.clean_up()
        self.assertEqual(["nbd0"], devices.in_use())

        def act() -> None:
            with self.attached() as device:
                if str(device) != "/dev/nbd0":
                    os._exit(2)

        self.as_the_agent(act)

    def test_an_agent_with_other_locks_does_not_free_the_device(self) -> None:
        self.kill_an_agent()
        self.clean_up()
        self.locks = Locks(self.root / "other-locks")

        def act() -> None:
            with self.attached() as device:
                if str(device) != "/dev/nbd1":
                    os._exit(2)

        self.as_the_agent(act)
        subprocess.run(["qemu-nbd", "-d", "/dev/nbd0"], check=True,
                       capture_output=True)
