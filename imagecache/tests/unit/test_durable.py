# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent.

That they survive a power failure too is for the functional tests to say.
"""

from __future__ import annotations

import errno
import os
import pathlib
import stat

from imagecache import exception
from imagecache.system import durable
from imagecache.tests import base


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class StagedTest(base.TestCase):

    def test_what_is_staged_is_gone_when_the_block_ends(self) -> None:
        with durable.staged(self.root, "disk") as path:
            path.touch()
        self.assertEqual([], list(self.root.iterdir()))

    def test_what_is_staged_is_gone_when_the_block_fails(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                durable.staged(self.root, "disk") as path:
            path.touch()
            raise KeyboardInterrupt
        self.assertEqual([], list(self.root.iterdir()))

    def test_what_was_moved_away_is_not_missed(self) -> None:
        with durable.staged(self.root, "disk") as path:
            path.write_text("x")
            path.rename(self.root / "disk")
        self.assertEqual("x", (self.root / "disk").read_text())

    def test_no_two_attempts_share_a_name(self) -> None:
        with durable.staged(self.root, "disk") as one, \
                durable.staged(self.root, "disk") as other:
            self.assertNotEqual(one, other)

    def test_what_killed_attempts_left_is_cleared_away(self) -> None:
        keep = {"disk", ".disk", "disk.1.ab", ".disk.eph0.1.ab", ".d.1.ab"}
        for name in keep | {".disk.1.ab", f".disk.{os.getpid()}.cd"}:
            (self.root / name).touch()
        durable.clear_staged(self.root, "disk")
        self.assertEqual(keep, set(os.listdir(self.root)))

    def test_what_is_alive_may_be_spared(self) -> None:
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

    def test_whoever_reads_the_old_one_reads_it_to_the_end(self) -> None:
        durable.write_file(self.path, b"one")
        with self.path.open("rb") as f:
            durable.write_file(self.path, b"two")
            self.assertEqual(b"one", f.read())

    def test_the_mode_is_the_one_asked_for(self) -> None:
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

    def test_what_is_missing_above_is_made_too(self) -> None:
        for umask, name in ((0, "a"), (0o77, "b")):
            self.addCleanup(os.umask, os.umask(umask))
            path = self.root / name / "c" / "d"
            durable.make_directory(path)
            for each in (path, path.parent, path.parent.parent):
                self.assertEqual(0o755, mode(each))

    def test_a_directory_that_is_there_stays_as_it_is(self) -> None:
        self.root.chmod(0o700)
        durable.make_directory(self.root)
        self.assertEqual(0o700, mode(self.root))

    def test_a_file_in_its_place_is_a_failure_of_storage(self) -> None:
        file = self.root / "file"
        file.touch()
        for path in (file, file / "below"):
            self.assertRaises(exception.StorageFailed,
                              durable.make_directory, path)

    def test_a_new_directory_goes_if_its_block_fails(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                durable.directory_for(self.root / "new"):
            raise KeyboardInterrupt
        self.assertEqual([], os.listdir(self.root))

    def test_a_directory_that_is_used_stays(self) -> None:
        with self.assertRaises(KeyboardInterrupt), \
                durable.directory_for(self.root / "new"):
            (self.root / "new" / "file").touch()
            raise KeyboardInterrupt
        self.assertTrue((self.root / "new" / "file").exists())

    def test_a_directory_that_was_there_stays(self) -> None:
        (self.root / "old").mkdir()
        with self.assertRaises(KeyboardInterrupt), \
                durable.directory_for(self.root / "old"):
            raise KeyboardInterrupt
        self.assertEqual(["old"], os.listdir(self.root))


class TranslatedTest(base.TestCase):

    def test_an_exhausted_file_system_or_quota_is_no_space(self) -> None:
        for number in (errno.ENOSPC, errno.EDQUOT):
            with self.assertRaises(exception.NoSpace) as caught, \
                    durable.translated("writing", self.root / "x"):
                raise OSError(number, os.strerror(number))
            self.assertGreater(caught.exception.facts["available"], 0)

    def test_anything_else_is_a_failure_of_storage(self) -> None:
        for error in (OSError(errno.EIO, "oh no"), PermissionError(13, "oh"),
                      OSError("oh no")):
            with self.assertRaises(exception.StorageFailed) as caught, \
                    durable.translated("writing", self.root):
                raise error
            self.assertIn("oh", str(caught.exception))
            self.assertIs(error, caught.exception.__cause__)

    def test_errors_that_say_who_must_act_pass_through(self) -> None:
        with self.assertRaises(exception.CommandFailed), \
                durable.translated("writing", self.root):
            raise exception.CommandFailed(command="x", exit_code=1, stderr="")


class SpaceTest(base.TestCase):

    def test_the_space_of_what_is_to_come_is_that_of_its_place(self) -> None:
        self.assertEqual(durable.available(self.root) > 0,
                         durable.available(self.root / "no" / "such") > 0)

    def test_what_cannot_be_finished_is_refused(self) -> None:
        durable.require_space(self.root, 0, "nothing")
        with self.assertRaises(exception.NoSpace) as caught:
            durable.require_space(self.root, 2 ** 62, "everything")
        self.assertEqual(2 ** 62, caught.exception.facts["needed"])

    def test_flushing_what_is_not_there_is_a_failure(self) -> None:
        durable.fsync_directory(self.root)
        self.assertRaises(exception.StorageFailed, durable.fsync_file,
                          self.root / "no")
