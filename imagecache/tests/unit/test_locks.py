# SPDX-License-Identifier: Apache-2.0
"""Locks that threads and processes share."""

from __future__ import annotations

import gc
import os
import signal
import stat
import threading

import fasteners
from oslo_concurrency import lockutils

from imagecache import exception
from imagecache.system.locks import Locks
from imagecache.tests import base


class LocksTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.locks = Locks(self.root / "locks")

    def test_naming_locks_creates_nothing(self) -> None:
        self.assertEqual([], os.listdir(self.root))

    def test_a_lock_is_a_file_with_a_prefix_and_stays(self) -> None:
        with self.locks.holding("key"):
            pass
        self.assertEqual(["imagecache-key"],
                         os.listdir(self.locks.directory))

    def test_the_umask_does_not_decide_who_can_lock(self) -> None:
        for umask, name in ((0, "a"), (0o77, "b"), (0o777, "c")):
            self.addCleanup(os.umask, os.umask(umask))
            with self.locks.holding(name), \
                    self.locks.trying(f"{name}-tried"):
                pass
        for path in self.locks.directory.iterdir():
            self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode), path)
        self.assertEqual(6, len(os.listdir(self.locks.directory)))

    def test_a_lock_file_that_root_makes_belongs_to_the_agent(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("needs root")
        with self.locks.holding("one"):
            pass
        os.chown(self.locks.directory, 1234, 5678)
        with self.locks.holding("other"):
            pass
        for name, owner in (("one", (0, 0)), ("other", (1234, 5678))):
            found = (self.locks.directory / f"imagecache-{name}").stat()
            self.assertEqual(owner, (found.st_uid, found.st_gid))

    def test_an_existing_lock_file_keeps_its_mode(self) -> None:
        self.locks.directory.mkdir()
        path = self.locks.directory / "imagecache-key"
        path.touch()
        path.chmod(0o660)
        with self.locks.holding("key"):
            pass
        self.assertEqual(0o660, stat.S_IMODE(path.stat().st_mode))

    def test_with_the_prefix_of_nova_a_lock_is_the_lock_of_nova(self) -> None:
        with Locks(self.root, "nova-").holding("abc"):
            pass
        with lockutils.lock("abc", "nova-", external=True,
                            lock_path=str(self.root)):
            pass
        self.assertEqual(["nova-abc"], os.listdir(self.root))

    def test_a_thread_waits_for_another(self) -> None:
        order: list[str] = []

        def wait() -> None:
            with self.locks.holding("key"):
                order.append("second")

        with self.locks.holding("key"):
            thread = threading.Thread(target=wait)
            thread.start()
            thread.join(0.02)
            order.append("first")
        thread.join()
        self.assertEqual(["first", "second"], order)

    def test_a_process_waits_for_another(self) -> None:
        with self.locks.holding("key"):
            self.assertFalse(self.another_process_gets_it())
        self.assertTrue(self.another_process_gets_it())

    def test_a_lock_that_was_waited_for_is_held(self) -> None:
        child, told = self.held_by_a_child()
        waited: list[int] = []

        def waiting() -> None:
            waited.append(os.write(told, b"x"))

        with self.locks.holding("key", waiting):
            gc.collect()    # a file that is closed late takes the lock along
            self.assertFalse(self.another_process_gets_it())
        self.assertEqual([1], waited)
        os.waitpid(child, 0)

    def test_the_lock_of_a_killed_process_is_free(self) -> None:
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            with self.locks.holding("key"):
                os.write(writable, b"x")
                signal.pause()
        os.read(readable, 1)
        self.assertFalse(self.another_process_gets_it())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.assertTrue(self.another_process_gets_it())

    def test_trying_a_free_lock_holds_it(self) -> None:
        with self.locks.trying("key") as held:
            self.assertTrue(held)
            self.assertFalse(self.another_process_gets_it())
        self.assertTrue(self.another_process_gets_it())

    def test_trying_a_lock_that_this_process_holds_fails(self) -> None:
        with self.locks.holding("key"):
            with self.locks.trying("key") as held:
                self.assertFalse(held)
            gc.collect()
            self.assertFalse(self.another_process_gets_it())

    def test_trying_a_lock_that_another_process_holds_fails(self) -> None:
        child, told = self.held_by_a_child()
        with self.locks.trying("key") as held:
            self.assertFalse(held)
        os.write(told, b"x")
        os.waitpid(child, 0)
        with self.locks.trying("key") as held:
            self.assertTrue(held)

    def test_other_names_are_other_locks(self) -> None:
        with self.locks.holding("one"), self.locks.holding("other"):
            pass

    def test_an_error_frees_the_lock(self) -> None:
        for _ in range(2):
            with self.assertRaises(KeyboardInterrupt), \
                    self.locks.holding("key"):
                raise KeyboardInterrupt

    def test_an_error_of_the_block_is_not_translated_by_the_lock(self) -> None:
        with self.assertRaises(FileNotFoundError), self.locks.holding("key"):
            raise FileNotFoundError

    def test_a_directory_that_cannot_hold_locks_raises_storage_failed(
            self) -> None:
        file = self.root / "file"
        file.touch()
        for directory in (file, file / "below"):
            with self.assertRaises(exception.StorageFailed), \
                    Locks(directory).holding("key"):
                pass

    def test_the_mode_of_the_lock_directory_does_not_depend_on_the_umask(
            self) -> None:
        for umask, name in ((0, "one"), (0o77, "other")):
            self.addCleanup(os.umask, os.umask(umask))
            with Locks(self.root / name).holding("key"):
                pass
            self.assertEqual(0o755, (self.root / name).stat().st_mode & 0o777)

    def held_by_a_child(self) -> tuple[int, int]:
        """Return a process that holds the lock, and a pipe that ends it."""
        took, taken = os.pipe()
        let_go, told = os.pipe()
        child = os.fork()
        if not child:
            with self.locks.holding("key"):
                os.write(taken, b"x")
                os.read(let_go, 1)
            os._exit(0)
        os.read(took, 1)
        return child, told

    def another_process_gets_it(self) -> bool:
        child = os.fork()
        if not child:
            lock = fasteners.InterProcessLock(
                self.locks.directory / "imagecache-key")
            os._exit(lock.acquire(blocking=False))
        return bool(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
