# SPDX-License-Identifier: Apache-2.0
"""Limits of programs, and errors that name the limit."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import threading
from unittest import mock

import ddt

from imagecache import exception
from imagecache.model import Format, Limits, MiB
from imagecache.policy import CONVERSION, INSPECTION
from imagecache.system import execute
from imagecache.system.sandbox import limits
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tools import filesystem, qemu_img


@ddt.ddt
class ExplainTest(base.TestCase):

    ALL = Limits(address_space=1, cpu_time=2, file_size=3, wall_clock=4)

    @ddt.data((-signal.SIGXCPU, "", "2 seconds of CPU"),
              (128 + signal.SIGXCPU, "", "2 seconds of CPU"),
              (-signal.SIGXFSZ, "", "3 bytes in a file"),
              (1, "x: File too large", "3 bytes in a file"),
              (1, "x: Cannot allocate memory", "1 bytes of address space"),
              (-signal.SIGABRT, "failed to allocate 7 bytes",
               "1 bytes of address space"))
    @ddt.unpack
    def test_the_end_of_a_program_tells_which_limit_it_reached(
            self, exit_code, stderr, expected):
        self.assertEqual(f"it reached its limit of {expected}",
                         limits.explain(self.ALL, exit_code, stderr))

    @ddt.data((1, ""), (0, ""), (-signal.SIGKILL, ""), (-signal.SIGSEGV, ""),
              (-signal.SIGABRT, "assertion failed"), (1, "Invalid argument"))
    @ddt.unpack
    def test_other_failures_are_not_explained_by_a_limit(
            self, exit_code, stderr):
        self.assertIsNone(limits.explain(self.ALL, exit_code, stderr))

    def test_a_limit_that_is_not_set_explains_nothing(self):
        for code in (-signal.SIGXCPU, -signal.SIGXFSZ):
            self.assertIsNone(limits.explain(Limits(), code, ""))
        self.assertIsNone(limits.explain(Limits(), 1, "Cannot allocate"
                                         " memory"))

    def test_the_explanation_names_the_option_of_the_limit(self):
        self.assertEqual(
            "it reached its limit of 30 seconds of CPU, which"
            " [libvirt] images_cpu_time_limit sets",
            limits.explain(INSPECTION, -signal.SIGXCPU, ""))


class QemuImgTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path, self.output = self.root / "image", self.root / "output"

    def convert(self, **changed) -> str:
        """Return the error message of a conversion that fails."""
        with self.assertRaises(exception.CommandFailed) as caught:
            qemu_img.convert(self.path, Format.QCOW2, self.output, Format.RAW,
                             limits=dataclasses.replace(CONVERSION, **changed))
        return str(caught.exception)

    def test_a_conversion_that_writes_too_large_a_file_is_stopped(self):
        self.path.write_bytes(images.qcow2(images.content()))
        self.assertIn("limit of 65536 bytes in a file",
                      self.convert(file_size=65536))
        self.assertLessEqual(self.output.stat().st_size, 65536)

    def test_a_conversion_that_needs_too_much_memory_is_stopped(self):
        self.path.write_bytes(images.qcow2(
            images.content(8 * MiB), "-c", "-o", "cluster_size=2M"))
        self.assertIn(
            f"limit of {32 * MiB} bytes of address space, which"
            " [image_cache] conversion_address_space_limit sets",
            self.convert(address_space=32 * MiB))

    def test_a_conversion_that_takes_too_long_is_stopped(self):
        self.path.write_bytes(images.qcow2(images.content()))
        self.assertIn("limit of 0.001 seconds, which"
                      " [image_cache] conversion_timeout sets",
                      self.convert(wall_clock=0.001))

    def test_programs_that_only_read_may_write_no_byte(self):
        """Also if the image has taken the program over."""
        self.path.write_bytes(images.qcow2(images.content()))
        limited = []
        with self.recording(limited):
            qemu_img.info(self.path, Format.QCOW2, limits=INSPECTION)
            qemu_img.required(self.path, Format.QCOW2, Format.RAW,
                              limits=INSPECTION)
            self.path.write_bytes(bytes(MiB))
            images.write(self.path, "raw", b"\x53\xef", 1024 + 56)
            filesystem.is_ext(self.path, INSPECTION)
        self.assertEqual([0, 0, 0], [each.file_size for each in limited])

    def test_a_disk_that_is_changed_may_grow_to_its_largest_size(self):
        self.path.write_bytes(images.create("qcow2"))
        size, limited = self.path.stat().st_size, []
        with self.recording(limited):
            qemu_img.resize(self.path, Format.QCOW2, 8 * MiB,
                            limits=CONVERSION)
            qemu_img.rebase(self.path, None, None, Format.RAW,
                            limits=CONVERSION)
        for each in limited:
            self.assertGreater(each.file_size, size + 8 * MiB)
            self.assertLess(each.file_size, size + 128 * MiB)

    def test_a_file_system_cannot_grow_beyond_its_disk(self):
        self.path.touch()
        os.truncate(self.path, 4 * MiB)
        filesystem.mkfs("ext4", "x", self.path)
        os.truncate(self.path, 8 * MiB)
        limited = []
        with self.recording(limited):
            filesystem.grow_ext(self.path, CONVERSION)
        self.assertEqual([8 * MiB, 8 * MiB],
                         [each.file_size for each in limited])

    def recording(self, limited: list[Limits]):
        """Record the limits of the programs that the block runs."""
        def run(*command, **options):
            limited.append(options["limits"])
            return original(*command, **options)

        original = execute.run
        return mock.patch.object(execute, "run", run)


class SetterTest(base.TestCase):

    def test_limits_only_lower_the_limits_of_the_agent(self):
        pid = os.fork()
        if not pid:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
                limits.setter(Limits(cpu_time=9))()
                found = resource.getrlimit(resource.RLIMIT_NOFILE)
                os._exit(0 if found == (100, 100) else 1)
            finally:
                os._exit(2)
        self.assertEqual((pid, 0), os.waitpid(pid, 0))


class ThreadsTest(base.TestCase):

    def test_confining_a_program_needs_no_lock_of_other_threads(self):
        """In a child, a lock that another thread held is held for ever."""
        done = threading.Event()

        def be_busy() -> None:
            while not done.is_set():
                [bytearray(each) for each in range(0, 4096, 64)]
                os.environ.get("PATH"), "x".encode("utf-16")

        busy = [threading.Thread(target=be_busy) for _ in range(4)]
        runs = [threading.Thread(target=lambda: [
            execute.run("true", limits=CONVERSION) for _ in range(10)])
            for _ in range(4)]
        for each in busy + runs:
            each.start()
        for each in runs:
            each.join(60)
        done.set()
        for each in busy:
            each.join()
        self.assertFalse(any(each.is_alive() for each in runs))
