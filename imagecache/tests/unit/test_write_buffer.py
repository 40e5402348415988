# SPDX-License-Identifier: Apache-2.0
"""Small writes that are coalesced into large ones."""

from __future__ import annotations

import random
import threading

import fixtures

from imagecache import exception
from imagecache.tests import base
from imagecache.tools import write_buffer

CHUNK, IN_FLIGHT = 16 * 1024, 128 * 1024     # small, for a quick test
PIECE = CHUNK // 64
FULL = exception.NoSpace(path="vms/x", what="writing", needed="more",
                         available=0)


class Device:
    """A device in memory; a test decides when its writes complete."""

    def __init__(self, size):
        self.data = bytearray(size)
        self.writes = []
        self.flushed_at = []
        self.failing_at = None
        self.open = threading.Event()
        self.open.set()

    def write(self, data, offset, done):
        self.writes.append((offset, len(data)))
        failing = len(self.writes) == self.failing_at

        def land():
            self.open.wait(10)
            if not failing:
                self.data[offset:offset + len(data)] = data
            done(FULL if failing else None)

        threading.Thread(target=land).start()

    def zero(self, size, offset, done):
        self.data[offset:offset + size] = bytes(size)
        done(None)

    def flush(self):
        self.flushed_at.append(len(self.writes))


class CoalescerTest(base.TestCase):

    def setUp(self):
        super().setUp()
        for name, size in ("CHUNK", CHUNK), ("_IN_FLIGHT", IN_FLIGHT):
            self.useFixture(fixtures.MonkeyPatch(
                f"imagecache.tools.write_buffer.{name}", size))
        self.device = Device(40 * CHUNK)
        self.coalescer = write_buffer.Coalescer(self.device)
        self.addCleanup(self.coalescer.close)
        self.answers = []

    def _write(self, data, offset):
        self.coalescer.write(data, offset, self.answers.append)

    def test_pieces_in_order_become_one_write(self):
        content = random.Random(1).randbytes(2 * CHUNK)
        for offset in range(0, len(content), PIECE):
            self._write(content[offset:offset + PIECE], offset)
        self.coalescer.flush()
        self.assertEqual([(0, CHUNK), (CHUNK, CHUNK)], self.device.writes)
        self.assertTrue(self.device.data[:2 * CHUNK] == content)

    def test_pieces_out_of_order_become_one_write(self):
        chance = random.Random(2)
        content = chance.randbytes(4 * CHUNK)
        offsets = list(range(0, len(content), PIECE))
        chance.shuffle(offsets)
        for offset in offsets:
            self._write(content[offset:offset + PIECE], offset)
        self.coalescer.flush()
        self.assertEqual(4, len(self.device.writes))
        self.assertTrue(self.device.data[:4 * CHUNK] == content)

    def test_any_sequence_of_writes_reaches_the_device(self):
        chance = random.Random(3)
        expected = bytearray(len(self.device.data))
        for _ in range(500):
            data = chance.randbytes(chance.randrange(1, 5 * PIECE))
            offset = chance.randrange(len(expected) - len(data))
            # What overlaps may be on its way, and then it must arrive first.
            if any(expected[offset:offset + len(data)]):
                self.coalescer.flush()
            expected[offset:offset + len(data)] = data
            self._write(data, offset)
        self.coalescer.flush()
        self.assertTrue(self.device.data == expected)
        self.assertEqual({None}, set(self.answers))

    def test_gaps_between_pieces_are_not_written(self):
        self._write(b"a" * PIECE, 0)
        self._write(b"c" * PIECE, 3 * PIECE)
        self._write(b"b" * PIECE, PIECE)
        self.coalescer.flush()
        self.assertEqual([(0, 2 * PIECE), (3 * PIECE, PIECE)],
                         self.device.writes)

    def test_the_number_of_buffered_chunks_is_limited(self):
        for number in range(20):
            self._write(b"x", number * CHUNK)
        self.assertLess(20 - 9, len(self.device.writes))

    def test_the_number_of_writes_in_flight_is_limited(self):
        self.device.open.clear()
        writer = threading.Thread(
            target=self._write, args=(bytes(30 * CHUNK), 0))
        writer.start()
        writer.join(0.2)
        self.assertTrue(writer.is_alive())
        self.assertLessEqual(sum(size for _, size in self.device.writes),
                             IN_FLIGHT)
        self.device.open.set()
        writer.join()
        self.coalescer.flush()

    def test_flush_waits_for_writes_and_flushes_the_device(self):
        self._write(b"x", 0)
        self.assertEqual([], self.device.writes)
        self.coalescer.flush()
        self.assertEqual([1], self.device.flushed_at)
        self.assertEqual(b"x", self.device.data[:1])

    def test_zeros_are_written_after_earlier_writes(self):
        self._write(b"x" * PIECE, 0)
        self.coalescer.zero(100, 0, self.answers.append)
        self.coalescer.flush()
        self.assertEqual(bytes(100) + b"x" * (PIECE - 100),
                         self.device.data[:PIECE])

    def test_a_failed_write_is_reported_by_every_later_call(self):
        self.device.failing_at = 1
        self._write(bytes(CHUNK), 0)
        for _ in range(2):
            with self.assertRaises(exception.NoSpace):
                self.coalescer.flush()
        self._write(b"x", 0)
        self.coalescer.zero(1, 0, self.answers.append)
        self.assertEqual([FULL, FULL], self.answers[1:])
        self.assertEqual([], self.device.flushed_at)

    def test_no_data_is_written_after_a_failure(self):
        self.device.failing_at = 1
        self._write(b"x", 0)
        with self.assertRaises(exception.NoSpace):
            self.coalescer.flush()
        self._write(bytes(20 * CHUNK), 0)
        self.assertEqual(1, len(self.device.writes))

    def test_an_error_that_a_write_raises_is_a_failure(self):
        def refuse(*_):
            raise FULL
        self.device.write = refuse
        self._write(b"x", 0)
        with self.assertRaises(exception.NoSpace):
            self.coalescer.flush()

    def test_closing_drops_the_buffered_data(self):
        self._write(b"x", 0)
        self.coalescer.close()
        self.assertEqual([], self.device.writes)

    def test_closing_waits_for_writes_in_flight(self):
        self.device.open.clear()
        self._write(bytes(CHUNK), 0)
        closing = threading.Thread(target=self.coalescer.close)
        closing.start()
        closing.join(0.1)
        self.assertTrue(closing.is_alive())
        self.device.open.set()
        closing.join()
