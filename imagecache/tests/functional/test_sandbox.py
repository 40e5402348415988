# SPDX-License-Identifier: Apache-2.0
"""bubblewrap, block devices, users without privileges, and bombs."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from unittest import mock

from imagecache import exception
from imagecache.model import Format, MiB
from imagecache.system import execute
from imagecache.system.sandbox import bubblewrap, landlock, seccomp
from imagecache.testing import images
from imagecache.tests import base, processes, sandboxed
from imagecache.tests.unit import test_sandbox_images, test_sandbox_limits
from imagecache.tools import filesystem, qemu_img

CONFINED = test_sandbox_images.CONFINED


class WithoutLandlock:
    """A kernel without Landlock, where bubblewrap is the sandbox."""

    def setUp(self) -> None:
        super().setUp()
        bubblewrap.works.cache_clear()
        search = execute._environment(confined=True)["PATH"]
        self.assertTrue(bubblewrap.works(search),
                        "bubblewrap is missing, or may not make namespaces")
        patch = mock.patch.object(landlock, "version", return_value=0)
        patch.start()
        self.addCleanup(patch.stop)


class BubblewrapTest(WithoutLandlock, sandboxed.Promises,
                     sandboxed.TestCase):

    def test_without_landlock_the_sandbox_is_bubblewrap(self):
        with self.assertLogs("imagecache.system.sandbox", "INFO") as logs:
            self.attempt("1")
        self.assertIn("bubblewrap", logs.records[0].getMessage())


class BubblewrapWithoutSeccompTest(WithoutLandlock, sandboxed.TestCase):
    """The filter does not know the system calls of this machine."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(seccomp, "program", return_value=None)
        patch.start()
        self.addCleanup(patch.stop)

    def test_no_process_outlives_a_program_that_ends(self):
        for _ in range(20):
            output = self.file("output", "")
            self.assertEqual(["None"], self.attempt(
                f"detach({str(output)!r})", writes=[output]))
            self.assert_no_process_has_open(output)

    def test_no_process_outlives_a_program_that_is_too_slow(self):
        output = self.file("output", "")
        with self.assertRaises(exception.CommandTimedOut):
            self.attempt(
                f"detach_and_wait({str(output)!r})", writes=[output],
                limits=dataclasses.replace(self.limits, wall_clock=1))
        self.assert_no_process_has_open(output)


class BubblewrapEndTest(WithoutLandlock, sandboxed.TestCase):
    """bubblewrap sets up for some milliseconds, and may end at each."""

    def setUp(self) -> None:
        super().setUp()
        self.given = self.file("given", "")

    def sleep(self, wall_clock: float) -> None:
        execute.run("sleep", "1000", reads=[self.given],
                    limits=dataclasses.replace(self.limits,
                                               wall_clock=wall_clock))

    def family(self) -> list[str]:
        """Return the processes of bubblewrap that have this test's file."""
        given = os.fsencode(self.given)
        return [pid.name for pid in pathlib.Path("/proc").glob("[0-9]*")
                if given in command_line(pid)]

    def test_a_program_stopped_at_any_moment_leaves_no_process(self):
        for moment in range(40):
            with self.assertRaises(exception.CommandTimedOut):
                self.sleep(moment / 2000 + 0.0001)
            self.assertEqual([], self.family())

    def test_an_agent_killed_at_any_moment_leaves_no_process(self):
        for moment in range(40):
            parent = os.fork()
            if not parent:
                try:
                    self.sleep(1000)
                finally:
                    os._exit(1)
            time.sleep(moment / 1200)
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
        processes.wait_for(lambda: not self.family())

    def test_the_exit_code_of_a_program_reaches_the_caller(self):
        for line, code in (("os._exit(3)", 3),
                           ("signal.raise_signal(9)", 128 + 9)):
            with self.assertRaises(exception.CommandFailed) as caught:
                self.attempt(line)
            self.assertEqual(code, caught.exception.facts["exit_code"])


def command_line(process: pathlib.Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:     # it has ended
        return b""


class BubblewrapHostileImageTest(WithoutLandlock,
                                 test_sandbox_images.HostileImageTest):

    denial = "No such file or directory"


class BubblewrapNetworkTest(WithoutLandlock,
                            test_sandbox_images.NetworkTest):
    pass


class BubblewrapPlacesTest(WithoutLandlock, test_sandbox_images.PlacesTest):
    """It binds paths, and does not depend on what is in the files."""


class BubblewrapLimitsTest(WithoutLandlock, test_sandbox_limits.QemuImgTest):
    pass


class Enough(Exception):
    """Ends a conversion that would take too long."""


class BubblewrapProgressTest(WithoutLandlock, base.TestCase):

    def test_progress_counts_the_bytes_read_inside_bubblewrap(self):
        def tell(done: int) -> None:
            if done > 64 * MiB:
                raise Enough

        path = self.root / "image"
        bomb(path)
        with self.assertRaises(Enough):
            qemu_img.convert(path, Format.QCOW2, self.root / "output",
                             Format.RAW, progress=tell,
                             limits=dataclasses.replace(
                                 CONFINED, wall_clock=processes.PATIENCE))


class BombTest(base.TestCase):

    def test_an_image_that_burns_processor_time_is_stopped(self):
        path = self.root / "image"
        bomb(path)
        with self.assertRaises(exception.CommandFailed) as caught:
            qemu_img.convert(path, Format.QCOW2, self.root / "output",
                             Format.RAW, limits=dataclasses.replace(
                                 CONFINED, cpu_time=1))
        self.assertEqual(-signal.SIGXCPU,
                         caught.exception.facts["exit_code"])
        self.assertIn("limit of 1 seconds of CPU, which [image_cache]"
                      " conversion_cpu_time_limit sets",
                      str(caught.exception))


class BlockDeviceTest(base.TestCase):
    """A sandbox lets a program ask a device its size."""

    def setUp(self) -> None:
        super().setUp()
        backing = self.root / "backing"
        backing.touch()
        os.truncate(backing, 16 * MiB)
        self.device = pathlib.Path(as_root(
            "losetup", "--find", "--show", str(backing)).strip())
        self.addCleanup(as_root, "losetup", "--detach", str(self.device))

    def convert(self) -> None:
        content = images.content(16 * MiB)
        image, output = self.root / "image", self.root / "output"
        image.write_bytes(images.qcow2(content))
        qemu_img.convert(image, Format.QCOW2, self.device, Format.RAW,
                         limits=CONFINED, into_zeros=True)
        qemu_img.convert(self.device, Format.RAW, output, Format.QCOW2,
                         limits=CONFINED)
        self.assertTrue(content == images.read(output, "qcow2"))

    def test_a_confined_program_writes_and_reads_a_block_device(self):
        self.convert()

    def test_a_file_system_grows_on_a_block_device(self):
        subprocess.run(["mkfs.ext4", "-q", self.device, "4M"], check=True)
        self.assertTrue(filesystem.is_ext(self.device, CONFINED))
        filesystem.grow_ext(self.device, CONFINED)
        self.assertEqual(16 * MiB, images.ext_size(self.device))


class BubblewrapBlockDeviceTest(WithoutLandlock, BlockDeviceTest):
    pass


class UnprivilegedTest(test_sandbox_images.TestCase):
    """The agent does not run as root."""

    def setUp(self) -> None:
        super().setUp()
        self.image.write_bytes(images.qcow2(images.content()))
        self.hostile = self.root / "hostile"
        self.hostile.write_bytes(images.backed_by(self.canary))
        self.work()      # imports what it needs while it can
        self.output.unlink()
        for path in (self.root, *self.root.iterdir()):
            os.chown(path, NOBODY, NOBODY)

    def work(self) -> list[object]:
        self.convert(Format.QCOW2)
        done = self.output.read_bytes() == images.content()
        try:
            qemu_img.convert(self.hostile, Format.QCOW2, self.output,
                             Format.RAW, limits=CONFINED)
        except exception.CommandFailed:
            return [os.geteuid(), done, "failed"]
        return [os.geteuid(), done, "leaked"]

    def test_a_user_without_privileges_has_the_sandbox(self):
        self.assertEqual([NOBODY, True, "failed"], as_nobody(self.work))


class BubblewrapUnprivilegedTest(WithoutLandlock, UnprivilegedTest):
    """bubblewrap needs a kernel that gives namespaces to all users."""

    def work(self) -> object:
        bubblewrap.works.cache_clear()    # another user works now
        try:
            return super().work()
        except exception.InvalidConfiguration:
            return "refused"

    def test_a_user_without_privileges_has_the_sandbox(self):
        # No kernel does in a chroot, and some never do.
        if as_nobody(has_namespaces):
            super().test_a_user_without_privileges_has_the_sandbox()
        else:
            self.assertEqual("refused", as_nobody(self.work))


NOBODY = 65534


def as_nobody(work: Callable[[], object]) -> object:
    """Return what a function returns to a process without privileges."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as f:
        found = f.read()
    os.waitpid(child, 0)
    return json.loads(found)


def has_namespaces() -> bool:
    done = subprocess.run(["unshare", "--user", "true"], check=False,
                          stderr=subprocess.DEVNULL)
    return done.returncode == 0


def as_root(*command: str) -> str:
    sudo = () if os.geteuid() == 0 else ("sudo", "-n")
    return subprocess.run([*sudo, *command], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def bomb(path: pathlib.Path) -> None:
    """Write a qcow2 image of 400 KiB that reads as 1 TiB of zeros.

    All entries of its first table name one second table, whose clusters are
    zeros that must be read.
    """
    size, entries = 1 << 40, 2048
    with path.open("wb") as f:
        f.write(images.create("qcow2", "-o", "preallocation=metadata",
                              size=512 * MiB))
    with path.open("r+b") as f:
        f.seek(24)
        f.write(struct.pack(">Q", size))
        f.seek(36)
        f.write(struct.pack(">I", entries))
        [table] = struct.unpack(">Q", f.read(8))
        f.seek(table)
        first = f.read(8)
        f.seek(table)
        f.write(first * entries)
