# SPDX-License-Identifier: Apache-2.0
"""The NBD server to which a confined program writes."""

from __future__ import annotations

import dataclasses
import errno
import struct
import threading

from imagecache import exception
from imagecache.model import Format, KiB, MiB, NbdExport, Sandbox
from imagecache.policy import CONVERSION
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tools import nbd_server, qemu_img, write_buffer

SIZE = 4 * MiB
WRITE, READ, FLUSH = 1, 0, 3


class Memory:
    """A device in memory; it calls back in another thread, like Ceph."""

    def __init__(self, size: int = SIZE) -> None:
        self.data = bytearray(size)
        self.flushes = 0
        self.failure: exception.HostError | None = None

    def write(self, data, offset, done):
        if self.failure is None:
            self.data[offset:offset + len(data)] = data
        threading.Thread(target=done, args=(self.failure,)).start()

    def zero(self, size, offset, done):
        self.write(bytes(size), offset, done)

    def flush(self):
        self.flushes += 1
        if self.failure is not None:
            raise self.failure


FULL = exception.NoSpace(path="vms/x", what="writing", needed="more",
                         available=0)


class ConversionTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.device = Memory()
        self.content = images.content(SIZE)
        self.image = self.root / "image"
        self.image.write_bytes(images.qcow2(self.content))

    def convert(self, sandbox=Sandbox.NEVER, format=Format.QCOW2):
        limits = dataclasses.replace(CONVERSION, sandbox=sandbox)
        with nbd_server.serving(self.device, len(self.device.data)) as client:
            qemu_img.convert(self.image, format, NbdExport(client),
                             "raw", limits=limits, into_zeros=True)

    def test_a_conversion_writes_the_image_to_the_device(self):
        self.convert()
        self.assertTrue(self.content == self.device.data)

    def test_a_conversion_in_a_sandbox_writes_the_image_to_the_device(self):
        self.convert(Sandbox.REQUIRED)
        self.assertTrue(self.content == self.device.data)

    def test_a_device_is_flushed_after_the_last_write(self):
        self.convert()
        self.assertGreaterEqual(self.device.flushes, 1)

    def test_holes_of_the_image_are_not_written(self):
        self.image.write_bytes(b"")
        with self.image.open("r+b") as f:
            f.truncate(SIZE)
            f.seek(MiB)
            f.write(b"x" * 64 * KiB)
        written = []
        write = self.device.write
        self.device.write = lambda data, offset, done: (
            written.append(len(data)), write(data, offset, done))
        self.convert(format=Format.RAW)
        self.assertLessEqual(sum(written), 128 * KiB)
        self.assertEqual(b"x" * 64 * KiB,
                         self.device.data[MiB:MiB + 64 * KiB])

    def test_an_error_of_the_device_is_raised(self):
        self.device.failure = FULL
        with self.assertRaises(exception.NoSpace) as caught:
            self.convert()
        self.assertIs(FULL, caught.exception)

    def test_a_program_ends_soon_after_an_error_of_the_device(self):
        size = 12 * write_buffer.CHUNK
        self.image.write_bytes(b"x" * size)
        self.device = Memory(size)
        self.device.failure = FULL
        with self.assertRaises(exception.NoSpace) as caught:
            self.convert(format=Format.RAW)
        self.assertIsInstance(caught.exception.__cause__,
                              exception.CommandFailed)

    def test_an_error_of_the_device_that_the_program_ignores_is_raised(self):
        self.device.flush = lambda: (_ for _ in ()).throw(FULL)
        self.assertRaises(exception.NoSpace, self.convert)

    def test_a_failure_of_the_program_itself_is_raised(self):
        self.image.write_bytes(b"no image" * 1000)
        self.assertRaises(exception.CommandFailed, self.convert)

    def test_the_thread_of_the_server_ends_with_the_block(self):
        before = threading.active_count()
        self.convert()
        self.device.failure = FULL
        self.assertRaises(exception.NoSpace, self.convert)
        self.assertEqual(before, threading.active_count())


class ProtocolTest(base.TestCase):
    """Requests of a program that its input has taken over."""

    def setUp(self):
        super().setUp()
        self.device = Memory()

    def talk(self, *requests):
        """Send requests; return the error number of each answer."""
        answers = []
        with nbd_server.serving(self.device, SIZE) as client:
            client.settimeout(10)
            client.recv(18)
            client.sendall(struct.pack(">I", 3) + struct.pack(
                ">QII", 0x49484156454F5054, 7, 0))
            # two pieces of information, and the end
            for _ in range(3):
                *_, length = struct.unpack(">QIII", client.recv(20))
                client.recv(length) if length else None
            for command, offset, size, data in requests:
                client.sendall(struct.pack(
                    ">IHHQQI", 0x25609513, 0, command, 7, offset, size)
                    + data)
                reply = client.recv(16)
                answers.append(struct.unpack(">IIQ", reply)[1]
                               if reply else None)
        return answers

    def test_a_write_request_reaches_the_device(self):
        self.assertEqual([0, 0], self.talk((WRITE, 3, 5, b"hello"),
                                           (FLUSH, 0, 0, b"")))
        self.assertEqual(b"hello", self.device.data[3:8])

    def test_requests_beyond_the_end_of_the_device_are_refused(self):
        self.assertEqual(
            [errno.EINVAL] * 2,
            self.talk((WRITE, SIZE - 1, 2, b"ab"), (6, SIZE, 1, b"")))
        self.assertEqual(SIZE, len(self.device.data))

    def test_read_requests_are_refused(self):
        self.device.data[:6] = b"secret"
        self.assertEqual([errno.EINVAL], self.talk((READ, 0, 6, b"")))

    def test_a_request_that_is_too_large_ends_the_connection(self):
        self.assertEqual([None], self.talk((WRITE, 0, 1 << 31, b"")))

    def test_a_client_that_disconnects_ends_the_server(self):
        with nbd_server.serving(self.device, SIZE) as client:
            client.close()
