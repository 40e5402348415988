# SPDX-License-Identifier: Apache-2.0
"""qemu-img in its sandbox, with images that name files of the host.

Inspection would refuse these images.  Here qemu-img itself must fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator

import ddt

from imagecache import exception
from imagecache.model import Format, Limits, MiB, Sandbox
from imagecache.policy import CONVERSION
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tools import qemu_img

TOKEN = b"only the host may know this"
SIZE = MiB

CONFINED = dataclasses.replace(CONVERSION, sandbox=Sandbox.REQUIRED)
BARE = dataclasses.replace(CONVERSION, sandbox=Sandbox.NEVER)


def qcow2_on(name: str) -> bytes:
    return images.create("qcow2", "-b", name, "-F", "raw", size=SIZE)


def data_file(canary: pathlib.Path) -> bytes:
    """Return a qcow2 image that names the canary as its data file."""
    decoy = canary.with_name("decoys")   # as long a name
    found = images.create("qcow2", "-o", f"data_file={decoy},data_file_raw=on",
                          size=SIZE)
    decoy.unlink()
    return found.replace(bytes(decoy), bytes(canary))


def json_name(canary: pathlib.Path) -> str:
    return "json:" + json.dumps({"driver": "raw", "file": {
        "driver": "file", "filename": str(canary)}})


def flat_extent(canary: pathlib.Path) -> bytes:
    return (
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
        'createType="monolithicFlat"\n'
        f'RW {SIZE // 512} FLAT "{canary}" 0\n'
        'ddb.geometry.cylinders="2"\nddb.geometry.heads="16"\n'
        'ddb.geometry.sectors="63"\nddb.adapterType="ide"\n').encode()


# What each image is, and its bytes, given the path of the canary.
HOSTILE: dict[str, tuple[Format, Callable[[pathlib.Path], bytes]]] = {
    "backing file": (Format.QCOW2, lambda path: qcow2_on(str(path))),
    "backing file as json": (
        Format.QCOW2, lambda path: qcow2_on(json_name(path))),
    "data file": (Format.QCOW2, data_file),
    "vmdk extent": (Format.VMDK, flat_extent),
}


class TestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.canary = self.root / "canary"
        self.canary.write_bytes(TOKEN.ljust(SIZE, b"."))
        os.utime(self.canary, (1, 1))
        self.image = self.root / "image"
        self.output = self.root / "output"

    def convert(self, format: Format, limits: Limits = CONFINED) -> None:
        qemu_img.convert(self.image, format, self.output, Format.RAW,
                         limits=limits)

    def assert_nothing_came_out(self) -> None:
        self.assertNotIn(TOKEN, self.output.read_bytes())

    def assert_canary_is_as_it_was(self) -> None:
        self.assertEqual(1, self.canary.stat().st_mtime)
        self.assertEqual(SIZE, self.canary.stat().st_size)


@ddt.ddt
class HostileImageTest(TestCase):

    denial = "Permission denied"

    def make(self, name: str) -> Format:
        format, content = HOSTILE[name]
        self.image.write_bytes(content(self.canary))
        return format

    @ddt.data(*HOSTILE)
    def test_a_conversion_cannot_read_a_file_that_the_image_names(self, name):
        format = self.make(name)
        with self.assertRaises(exception.CommandFailed) as caught:
            self.convert(format)
        self.assertIn(self.denial, str(caught.exception))
        self.assert_nothing_came_out()

    @ddt.data(*HOSTILE)
    def test_without_a_sandbox_a_conversion_reads_the_named_file(self, name):
        """So the other tests show an effect of the sandbox."""
        self.convert(self.make(name), BARE)
        self.assertIn(TOKEN, self.output.read_bytes())

    @ddt.data(*HOSTILE)
    def test_info_and_measure_reveal_nothing_of_the_named_file(self, name):
        format = self.make(name)
        for ask in (lambda: qemu_img.info(
                        self.image, format, limits=CONFINED),
                    lambda: qemu_img.required(
                        self.image, format, Format.RAW, limits=CONFINED)):
            with contextlib.suppress(exception.CommandFailed):
                self.assertNotIn(TOKEN.decode(), str(ask()))

    @ddt.data("backing file", "data file")
    def test_a_resize_does_not_change_the_named_file(self, name):
        format = self.make(name)
        self.assertRaises(exception.CommandFailed, qemu_img.resize,
                          self.image, format, 2 * SIZE, limits=CONFINED)
        self.assert_canary_is_as_it_was()

    def test_without_a_sandbox_a_resize_changes_the_named_file(self):
        qemu_img.resize(self.image, self.make("data file"), 2 * SIZE,
                        limits=BARE)
        self.assertRaises(AssertionError, self.assert_canary_is_as_it_was)

    @ddt.data("backing file", "backing file as json")
    def test_a_rebase_copies_nothing_from_the_named_file(self, name):
        self.make(name)
        self.assertRaises(
            exception.CommandFailed, qemu_img.rebase, self.image, None, None,
            Format.RAW, limits=CONFINED)
        self.assertNotIn(TOKEN, self.image.read_bytes())

    def test_an_overlay_reads_only_the_base_that_the_call_names(self):
        """The base names a backing file of its own."""
        known = self.root / "known"
        known.write_bytes(qcow2_on(str(self.canary)))
        self.image.write_bytes(images.create(
            "qcow2", "-b", str(known), "-F", "qcow2", size=SIZE))
        self.assertRaises(
            exception.CommandFailed, qemu_img.convert, self.image,
            Format.QCOW2, self.output, Format.RAW, limits=CONFINED,
            backing=known)
        self.assert_nothing_came_out()


class NetworkTest(TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.visitors: list[str] = []

    @contextlib.contextmanager
    def server(self, family: int, address: object) -> Iterator[socket.socket]:
        """Accept connections, count them, and close them."""
        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()
                    self.visitors.append("one")

        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen()
            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield listener
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()

    def visited(self, name: str, limits: Limits) -> bool:
        self.visitors.clear()
        self.image.write_bytes(qcow2_on(name))
        self.assertRaises(exception.CommandFailed, self.convert,
                          Format.QCOW2, limits)
        return bool(self.visitors)

    def test_a_program_connects_to_no_server(self):
        with self.server(socket.AF_INET, ("127.0.0.1", 0)) as server:
            name = f"nbd://127.0.0.1:{server.getsockname()[1]}/x"
            self.assertTrue(self.visited(name, BARE))
            self.assertFalse(self.visited(name, CONFINED))

    def test_a_program_connects_to_no_socket_file(self):
        path = str(self.root / "socket")
        with self.server(socket.AF_UNIX, path):
            name = f"nbd+unix:///x?socket={path}"
            self.assertTrue(self.visited(name, BARE))
            self.assertFalse(self.visited(name, CONFINED))


@ddt.ddt
class PlacesTest(TestCase):
    """Good images are found in the sandbox, by any path."""

    places = ("plain", "with space", "a:b", "nbd:x,y=z", "json:{}", "ä€#%",
              "-f", "a\nb")

    def setUp(self) -> None:
        super().setUp()
        self.content = images.content()

    def place(self, name: str) -> None:
        directory = self.root / name
        directory.mkdir()
        self.image, self.output = directory / "a b:c", directory / "d,e=f"

    @ddt.data(*places)
    def test_an_image_is_converted_at_any_path(self, name):
        self.place(name)
        self.image.write_bytes(images.qcow2(self.content))
        qemu_img.info(self.image, Format.QCOW2, limits=CONFINED)
        self.assertGreater(qemu_img.required(
            self.image, Format.QCOW2, Format.RAW, limits=CONFINED), 0)
        self.convert(Format.QCOW2)
        self.assertTrue(self.content == self.output.read_bytes())

    def test_an_image_is_converted_at_a_relative_path(self):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.root)
        self.image, self.output = pathlib.Path("a:b"), pathlib.Path("c:d")
        self.image.write_bytes(images.qcow2(self.content))
        self.convert(Format.QCOW2)
        self.assertTrue(self.content == self.output.read_bytes())

    @ddt.data(*places)
    def test_an_overlay_is_resized_converted_and_rebased_at_any_path(
            self, name):
        self.place(name)
        known, other = self.root / "known", self.root / "o:ther"
        known.write_bytes(self.content)
        other.write_bytes(images.content(seed=2))
        qemu_img.create_overlay(self.image, known, Format.RAW, SIZE)
        qemu_img.resize(self.image, Format.QCOW2, 2 * SIZE, limits=CONFINED,
                        backing=known)
        qemu_img.convert(self.image, Format.QCOW2, self.output, "qcow2",
                         limits=CONFINED, backing=known)
        qemu_img.rebase(self.image, known, other, Format.RAW,
                        limits=CONFINED)
        qemu_img.rebase(self.image, other, None, Format.RAW, limits=CONFINED)
        for path in (self.image, self.output):
            self.assertTrue(self.content + bytes(SIZE) == images.read(
                path, "qcow2"))


@ddt.ddt
class GoodImageTest(TestCase):
    """Good images are converted in the sandbox as outside."""

    options = (("-o", "compat=0.10"), ("-o", "cluster_size=512"),
               ("-o", "cluster_size=2M"), ("-c",),
               ("-c", "-o", "compression_type=zstd"),
               ("-o", "refcount_bits=1"), ("-o", "lazy_refcounts=on"),
               ("-o", "extended_l2=on"), ("-o", "preallocation=full"))

    def setUp(self) -> None:
        super().setUp()
        self.content = images.content()

    @ddt.data(*options)
    def test_a_qcow2_image_is_converted_with_any_options(self, options):
        self.image.write_bytes(images.qcow2(self.content, *options))
        self.convert(Format.QCOW2)
        self.assertTrue(self.content == self.output.read_bytes())

    @ddt.data("raw", "vmdk", "vpc", "vhdx", "vdi")
    def test_an_image_of_any_format_is_converted(self, format):
        self.image.write_bytes(images.convert(
            self.content, format,
            *(["-o", "force_size=on"] if format == "vpc" else [])))
        self.convert(Format(format))
        self.assertTrue(self.content == self.output.read_bytes())

    @ddt.data("raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi")
    def test_an_image_is_converted_to_any_format(self, format):
        self.image.write_bytes(images.qcow2(self.content))
        for compress in (False, True)[:1 + (format == "qcow2")]:
            qemu_img.convert(self.image, Format.QCOW2, self.output, format,
                             limits=CONFINED, compress=compress)
            self.assertTrue(self.content == images.read(
                self.output, format)[:len(self.content)])
