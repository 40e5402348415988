# SPDX-License-Identifier: Apache-2.0
"""Files that are complete or absent.

Functional tests show that they also survive a power failure.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import pathlib
import stat
import subprocess
import threading
import time

import fixtures

from imagecache import exception
from imagecache.system import durable, leases
from imagecache.tests import base

real_fcntl = fcntl.fcntl


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class StagedTest(base.TestCase):

    def test_a_staged_file_is_removed_when_the_block_ends(self) -> None:
        with durable.staged(self.root, "disk") as path:
            path.touch()
        self.assertEqual([], list(self.root.iterdir()))

    def test_a_staged_file_is_removed_when_the_block_fails(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                durable.staged(self.root, "disk") as path:
            path.touch()
            raise KeyboardInterrupt
        self.assertEqual([], list(self.root.iterdir()))

    def test_a_staged_file_may_be_renamed_in_the_block(self) -> None:
        with durable.staged(self.root, "disk") as path:
            path.write_text("x")
            path.rename(self.root / "disk")
        self.assertEqual("x", (self.root / "disk").read_text())

    def test_two_attempts_have_different_names(self) -> None:
        with durable.staged(self.root, "disk") as one, \
                durable.staged(self.root, "disk") as other:
            self.assertNotEqual(one, other)

    def test_staged_files_of_killed_attempts_are_removed(self) -> None:
        keep = {"disk", ".disk", "disk.1.ab", ".disk.eph0.1.ab", ".d.1.ab"}
        for name in keep | {".disk.1.ab", f".disk.{os.getpid()}.cd"}:
            (self.root / name).touch()
        durable.clear_staged(self.root, "disk")
        self.assertEqual(keep, set(os.listdir(self.root)))

    def test_staged_files_of_running_processes_can_be_kept(self) -> None:
        dead = os.fork() or os._exit(0)
        os.waitpid(dead, 0)
        alive = f".disk.{os.getpid()}.cd"
        for name in (f".disk.{dead}.ab", alive):
            (self.root / name).touch()
        durable.clear_staged(self.root, "disk", but_alive=True)
        self.assertEqual([alive], os.listdir(self.root))


class WriteFileTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "file"

    def test_a_file_is_replaced(self) -> None:
        for content in (b"one", b"two"):
            durable.write_file(self.path, content)
            self.assertEqual(content, self.path.read_bytes())
        self.assertEqual(["file"], os.listdir(self.root))

    def test_a_process_that_reads_a_replaced_file_reads_it_to_the_end(
            self) -> None:
        durable.write_file(self.path, b"one")
        with self.path.open("rb") as f:
            durable.write_file(self.path, b"two")
            self.assertEqual(b"one", f.read())

    def test_a_written_file_has_the_mode_of_the_call(self) -> None:
        for umask in (0, 0o77):
            self.addCleanup(os.umask, os.umask(umask))
            durable.write_file(self.path, b"")
            self.assertEqual(0o644, mode(self.path))
            durable.write_file(self.path, b"", 0o640)
            self.assertEqual(0o640, mode(self.path))

    def test_a_failure_is_translated_and_leaves_nothing(self) -> None:
        self.path.mkdir()
        self.assertRaises(exception.StorageFailed, durable.write_file,
                          self.path, b"x")
        self.assertRaises(exception.StorageFailed, durable.write_file,
                          self.root / "no" / "file", b"x")
        self.assertEqual(["file"], os.listdir(self.root))


class DirectoryTest(base.TestCase):

    def test_missing_parents_of_a_directory_are_created(self) -> None:
        for umask, name in ((0, "a"), (0o77, "b")):
            self.addCleanup(os.umask, os.umask(umask))
            path = self.root / name / "c" / "d"
            durable.make_directory(path)
            for each in (path, path.parent, path.parent.parent):
                self.assertEqual(0o755, mode(each))

    def test_an_existing_directory_keeps_its_mode(self) -> None:
        self.root.chmod(0o700)
        durable.make_directory(self.root)
        self.assertEqual(0o700, mode(self.root))

    def test_a_file_in_place_of_a_directory_is_an_error(self) -> None:
        file = self.root / "file"
        file.touch()
        for path in (file, file / "below"):
            self.assertRaises(exception.StorageFailed,
                              durable.make_directory, path)

    def test_a_new_directory_is_removed_if_its_block_fails(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                durable.directory_for(self.root / "new"):
            raise KeyboardInterrupt
        self.assertEqual([], os.listdir(self.root))

    def test_a_new_directory_that_is_not_empty_stays(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                durable.directory_for(self.root / "new"):
            (self.root / "new" / "file").touch()
            raise KeyboardInterrupt
        self.assertTrue((self.root / "new" / "file").exists())

    def test_a_directory_that_existed_before_stays(self) -> None:
        (self.root / "old").mkdir()
        with self.assertRaises(KeyboardInterrupt), \
                durable.directory_for(self.root / "old"):
            raise KeyboardInterrupt
        self.assertEqual(["old"], os.listdir(self.root))


class TranslatedTest(base.TestCase):

    def test_a_full_file_system_or_quota_raises_no_space(self) -> None:
        for number in (errno.ENOSPC, errno.EDQUOT):
            with self.assertRaises(exception.NoSpace) as caught, \
                    durable.translated("writing", self.root / "x"):
                raise OSError(number, os.strerror(number))
            self.assertGreater(caught.exception.facts["available"], 0)

    def test_another_error_raises_storage_failed(self) -> None:
        for error in (OSError(errno.EIO, "oh no"), PermissionError(13, "oh"),
                      OSError("oh no")):
            with self.assertRaises(exception.StorageFailed) as caught, \
                    durable.translated("writing", self.root):
                raise error
            self.assertIn("oh", str(caught.exception))
            self.assertIs(error, caught.exception.__cause__)

    def test_exceptions_of_this_library_are_not_translated(self) -> None:
        with self.assertRaises(exception.CommandFailed), \
                durable.translated("writing", self.root):
            raise exception.CommandFailed(command="x", exit_code=1, stderr="")


class WrittenTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "file"
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.system.leases._PATIENCE", 0.05))

    def fill(self) -> None:
        with durable.filling(self.path, 3) as path:
            path.write_bytes(b"abc")

    def test_a_filled_file_is_complete_when_the_block_ends(self) -> None:
        self.fill()
        self.assertEqual(b"abc", self.path.read_bytes())

    def test_a_file_of_another_size_than_expected_is_an_error(self) -> None:
        with self.assertRaises(exception.StorageFailed) as caught, \
                durable.filling(self.path, 3) as path:
            path.write_bytes(b"abcd")
        self.assertIn("4 bytes", str(caught.exception))

    def test_a_file_that_another_process_can_still_write_is_an_error(
            self) -> None:
        with self.assertRaises(exception.StorageFailed) as caught, \
                durable.filling(self.path, 3) as path:
            writer = subprocess.Popen(
                ["sh", "-c", f"exec >> {path}; echo; exec sleep 60"])
            self.addCleanup(writer.wait)
            self.addCleanup(writer.kill)
            while not path.read_bytes().endswith(b"\n"):
                time.sleep(0.001)
        self.assertIn("open for writing", str(caught.exception))

    def test_a_file_that_is_mapped_for_writing_is_an_error(self) -> None:
        with self.assertRaises(exception.StorageFailed), \
                durable.filling(self.path, 3) as path, path.open("r+b") as f:
            mapped = mmap.mmap(f.fileno(), 3)
            self.addCleanup(mapped.close)

    def test_a_writer_that_ends_soon_is_waited_for(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.system.leases._PATIENCE", 60))
        with durable.filling(self.path, 3) as path:
            writer = path.open("r+b")
            threading.Timer(0.05, writer.close).start()

    def test_a_file_system_whose_server_decides_on_leases_is_trusted(
            self) -> None:
        with fixtures.MonkeyPatch("imagecache.system.leases._file_system",
                                  lambda descriptor: "nfs4"), \
                durable.filling(self.path, 3) as path, path.open("r+b") as f:
            self.addCleanup(f.close)

    def test_a_file_system_without_leases_is_trusted(self) -> None:
        def refuse(descriptor: int, command: int, argument: int) -> None:
            if command == fcntl.F_SETLEASE:
                raise OSError(errno.EINVAL, "no leases")

        with fixtures.MonkeyPatch("fcntl.fcntl", refuse):
            self.fill()

    def test_a_process_that_opens_a_leased_file_ends_no_agent(self) -> None:
        """The kernel signals the holder of a lease, by default SIGIO."""
        child = os.fork()
        if not child:
            try:
                leases.fcntl.fcntl = self.open_when_leased
                self.fill()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        self.assertEqual(0, status)

    def open_when_leased(self, descriptor: int, command: int,
                         argument: int) -> None:
        real_fcntl(descriptor, command, argument)
        if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
            with contextlib.suppress(BlockingIOError):
                os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)

    def test_the_type_of_a_mounted_file_system_is_known(self) -> None:
        with open("/proc/self/mountinfo", "rb") as f:
            self.assertEqual("proc", leases._file_system(f.fileno()))
        with self.path.open("xb") as f, fixtures.MonkeyPatch(
                "imagecache.system.leases._MOUNTS", self.root / "mounts"):
            (self.root / "mounts").write_text("")
            self.assertIsNone(leases._file_system(f.fileno()))


class CreateFileTest(base.TestCase):

    def test_the_mode_of_a_new_file_does_not_depend_on_the_umask(self) -> None:
        for umask in (0, 0o77):
            self.addCleanup(os.umask, os.umask(umask))
            for expected in (0o600, 0o644):
                path = self.root / f"{umask}-{expected}"
                durable.create_file(path, expected, 7)
                self.assertEqual(expected, mode(path))
                self.assertEqual(bytes(7), path.read_bytes())

    def test_creating_a_file_that_exists_is_an_error(self) -> None:
        (self.root / "file").write_text("x")
        self.assertRaises(exception.StorageFailed, durable.create_file,
                          self.root / "file", 0o600)
        self.assertEqual("x", (self.root / "file").read_text())


class SpaceTest(base.TestCase):

    def test_a_missing_directory_has_the_space_of_its_parent(self) -> None:
        found = os.statvfs(self.root)
        asked: list[pathlib.Path] = []

        def statvfs(path: pathlib.Path) -> os.statvfs_result:
            asked.append(path)
            return found

        with fixtures.MonkeyPatch("os.statvfs", statvfs):
            self.assertEqual(
                found.f_bavail * found.f_frsize,
                durable.available(self.root / "no" / "such"))
        self.assertEqual([self.root], asked)

    def test_too_little_free_space_raises_no_space(self) -> None:
        durable.require_space(self.root, 0, "nothing")
        with self.assertRaises(exception.NoSpace) as caught:
            durable.require_space(self.root, 2 ** 62, "everything")
        self.assertEqual(2 ** 62, caught.exception.facts["needed"])

    def test_flushing_a_missing_file_is_an_error(self) -> None:
        durable.fsync_directory(self.root)
        self.assertRaises(exception.StorageFailed, durable.fsync_file,
                          self.root / "no")
