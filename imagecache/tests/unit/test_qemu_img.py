# SPDX-License-Identifier: Apache-2.0
"""qemu-img: each subcommand, with the format named in each call."""

from __future__ import annotations

import ast
import pathlib
import signal
import subprocess
import threading

from imagecache import exception
from imagecache.model import Format, Limits, MiB
from imagecache.system import execute
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tools import qemu_img

SOME = Limits(cpu_time=100)
CONTENT = images.content(MiB)


class QemuImgTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "image"
        self.path.write_bytes(images.qcow2(CONTENT))
        self.output = self.root / "output"

    def convert(self, format: str = "raw", **options: object) -> None:
        qemu_img.convert(self.path, Format.QCOW2, self.output, format,
                         limits=SOME, **options)

    def test_info_uses_the_format_of_the_call(self) -> None:
        found = qemu_img.info(self.path, Format.QCOW2, limits=SOME)
        self.assertEqual(MiB, found["virtual-size"])
        found = qemu_img.info(self.path, Format.RAW, limits=SOME)
        self.assertEqual(self.path.stat().st_size, found["virtual-size"])

    def test_info_follows_no_reference(self) -> None:
        self.path.write_bytes(images.backed_by(self.root / "missing"))
        found = qemu_img.info(self.path, Format.QCOW2, limits=SOME)
        self.assertEqual(str(self.root / "missing"),
                         found["backing-filename"])

    def test_a_file_of_another_format_is_an_error(self) -> None:
        self.path.write_bytes(CONTENT)
        self.assertRaises(exception.CommandFailed, qemu_img.info, self.path,
                          Format.QCOW2, limits=SOME)

    def test_an_image_is_converted(self) -> None:
        self.convert()
        self.assertTrue(self.output.read_bytes() == CONTENT)

    def test_an_image_is_converted_into_zeros(self) -> None:
        with self.output.open("wb") as f:
            f.truncate(MiB)
        self.convert(into_zeros=True)
        self.assertTrue(self.output.read_bytes() == CONTENT)
        self.assertLess(self.output.stat().st_blocks * 512, MiB // 2)

    def test_an_image_may_be_compressed(self) -> None:
        self.path.write_bytes(images.qcow2(b"text" * (MiB // 4)))
        self.convert("qcow2", compress=True)
        self.assertLess(self.output.stat().st_size, MiB // 2)

    def test_the_size_of_a_conversion_is_measured(self) -> None:
        needed = qemu_img.required(self.path, Format.QCOW2, Format.RAW,
                                   limits=SOME)
        self.assertEqual(MiB, needed)
        self.assertGreater(qemu_img.measure(MiB, Format.QCOW2), MiB)

    def test_an_overlay_is_made_without_opening_its_base(self) -> None:
        missing = self.root / "missing"
        qemu_img.create_overlay(self.output, missing, Format.RAW, 3 * MiB,
                                128 * 1024)
        found = qemu_img.info(self.output, Format.QCOW2, limits=SOME)
        self.assertEqual(
            (3 * MiB, str(missing), "raw", 128 * 1024),
            (found["virtual-size"], found["backing-filename"],
             found["backing-filename-format"], found["cluster-size"]))

    def test_an_image_is_resized_to_whole_sectors(self) -> None:
        qemu_img.resize(self.path, Format.QCOW2, 2 * MiB - 1, limits=SOME)
        self.assertEqual(2 * MiB, qemu_img.info(
            self.path, Format.QCOW2, limits=SOME)["virtual-size"])

    def test_an_image_is_created(self) -> None:
        qemu_img.create(self.output, Format.QCOW2, MiB)
        self.assertTrue(bytes(MiB) == images.read(self.output, "qcow2"))

    def test_limits_hold(self) -> None:
        """The tables of the image are larger than its header says."""
        with self.assertRaises(exception.CommandFailed):
            qemu_img.convert(self.path, Format.QCOW2, self.output, "raw",
                             limits=Limits(file_size=MiB // 2))

    def test_every_call_names_the_format(self) -> None:
        source = pathlib.Path(qemu_img.__file__).read_text()
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and ast.unparse(
                    node.func) == "execute.run"):
                continue
            words = [ast.literal_eval(each) for each in node.args
                     if isinstance(each, ast.Constant)]
            with self.subTest(words):
                self.assertEqual("qemu-img", words[0])
                self.assertTrue({"-f", "-O"} & set(words))
                if words[1] != "create":
                    self.assertTrue("-f" in words or "--size" in words)


class ProgressTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.process = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.running = execute.Running(self.process, signal.SIGKILL)

    def test_progress_is_reported_while_a_program_runs(self) -> None:
        told: list[int] = []
        heard = threading.Event()

        def progress(read: int) -> None:
            told.append(read)
            heard.set()

        with qemu_img.watching(progress) as started:
            started(self.running)
            self.assertTrue(heard.wait(10))
        self.assertGreater(told[0], 0)

    def test_no_progress_is_reported_after_the_end_of_a_program(self) -> None:
        before = threading.active_count()    # other tests left some
        with qemu_img.watching(lambda read: None) as started:
            started(self.running)
        self.assertEqual(before, threading.active_count())

    def test_an_error_of_the_progress_function_ends_the_program(self) -> None:
        def progress(read: int) -> None:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError), \
                qemu_img.watching(progress) as started:
            started(self.running)
            self.process.wait(10)
        self.assertEqual(-9, self.process.returncode)

    def test_an_error_of_a_watched_program_is_raised(self) -> None:
        with self.assertRaises(exception.CommandFailed), \
                qemu_img.watching(lambda read: None) as started:
            started(self.running)
            raise exception.CommandFailed(command="x", exit_code=1, stderr="")

    def test_without_a_progress_function_there_is_no_thread(self) -> None:
        with qemu_img.watching(None) as started:
            self.assertIsNone(started)
