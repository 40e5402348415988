# SPDX-License-Identifier: Apache-2.0
"""Full volume groups, and processes that are killed or race."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable

import fixtures

from imagecache import exception, sources
from imagecache.backends import Disk
from imagecache.backends.lvm.volumes import notes
from imagecache.model import GiB, KiB, MiB
from imagecache.provision import provision
from imagecache.system import execute
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE
from imagecache.tests import encrypting, processes
from imagecache.tests.encrypting import KEY
from imagecache.tests.guest import volume_group
from imagecache.tests.guest.volume_group import (
    GROUP,
    POOL,
    POOL_SIZE,
    opened,
    run,
    volumes,
)


class TroubleTestCase(volume_group.LvmTestCase):

    def assert_only(self, *disks: Disk) -> None:
        """Check that the group holds these disks, bases and no more."""
        self.assertEqual(
            {disk.path.name for disk in disks},
            {name for name in volumes() - {self.pool}
             if not name.startswith("base-")})

    def killed_after(self, commands: int, act: Callable[[], object]) -> bool:
        """Run ``act`` in a process that is killed after so many commands.

        Only commands that change something count.

        :return: False if the process ended before that
        """
        genuine = execute.run
        done = 0

        def run_and_die(*command: str, **options: object) -> str:
            nonlocal done
            output = genuine(*command, **options)
            if command[0] in CHANGES or command[1] == "convert":
                done += 1
                if done == commands:
                    os.kill(os.getpid(), signal.SIGKILL)
            return output

        def in_child() -> None:
            with fixtures.MonkeyPatch("imagecache.system.execute.run",
                                      run_and_die):
                act()

        status = processes.Child(in_child).wait()
        self.assertIn(status, (0, -signal.SIGKILL))
        return status != 0

    def assert_survives_kills(self, act: Callable[[], object],
                              check: Callable[[], None]) -> None:
        """Kill ``act`` after its first command, its second, and so on."""
        commands = 1
        while self.killed_after(commands, act):
            with self.subTest(f"killed after {commands} commands"):
                check()
            commands += 1
        self.assertGreater(commands, 2)

    def assert_a_killed_maker_leaves_a_whole_disk_or_none(self) -> None:
        def check() -> None:
            disk = self.cache.disk(INSTANCE)
            if disk.exists():
                self.assertEqual(3 * SIZE, disk.size())
            disk = self.make(3 * SIZE)
            self.assertTrue(self.content + bytes(2 * SIZE)
                            == self.read(disk))
            self.assert_only(disk)
            self.assertEqual(1, len(list(self.cache.bases())))
            self.forget_all()

        self.assert_survives_kills(lambda: self.make(3 * SIZE), check)
        self.cache.disk(INSTANCE).remove()
        [base] = self.cache.bases()
        self.cache.remove_base(base.key)
        self.assertEqual(set(), volumes() - {self.pool})

    def forget_all(self) -> None:
        """Remove all volumes and records, by fewer commands than the cache."""
        volume_group.empty(self.pool)
        for record in notes(self.cache.host.policy.bases).glob("*.base-*"):
            record.unlink()

    def assert_racers_get_one_disk(self) -> None:
        self.assertEqual([0, 0, 0], processes.at_once([
            lambda: self.make(2 * SIZE), lambda: self.make(2 * SIZE),
            lambda: self.make(2 * SIZE, OTHER)]))
        disks = [self.cache.disk(each) for each in (INSTANCE, OTHER)]
        for disk in disks:
            self.assertTrue(self.content + bytes(SIZE) == self.read(disk))
        self.assert_only(*disks)
        self.assertEqual(1, len(list(self.cache.bases())))


CHANGES = ("lvcreate", "lvextend", "lvrename", "lvchange", "lvremove",
           "blkdiscard", "cryptsetup")


class ThickTroubleTest(TroubleTestCase):

    def test_a_full_group_is_reported_before_a_volume_is_made(self) -> None:
        with self.assertRaisesRegex(exception.NoSpace,
                                    "in volume group vg for a disk"):
            self.make(64 * GiB)
        self.assert_only()
        disk = self.make()
        with self.assertRaisesRegex(exception.NoSpace, "for a larger disk"):
            disk.grow(64 * GiB)
        self.assertEqual(SIZE, disk.size())

    def test_a_killed_maker_leaves_a_whole_disk_or_none(self) -> None:
        self.assert_a_killed_maker_leaves_a_whole_disk_or_none()

    def test_a_second_removal_finishes_a_killed_one(self) -> None:
        def check() -> None:
            disk = self.cache.disk(INSTANCE)
            self.assertFalse(disk.exists())    # not even in part
            disk.remove()
            self.assertEqual(set(), volumes())
            self.assertEqual(-1, found_on_disk(canary))
            self.make()
            images.write(disk.path, "raw", canary)

        canary = os.urandom(512)
        images.write(self.make().path, "raw", canary)
        self.assertLess(0, found_on_disk(canary))
        self.assert_survives_kills(self.cache.disk(INSTANCE).remove, check)

    def test_racers_get_one_disk(self) -> None:
        self.assert_racers_get_one_disk()

    def test_a_failed_request_does_not_remove_an_existing_volume(self) -> None:
        """Nova's error handler removes it; see from-nova.rst."""
        disk = self.make()
        images.write(disk.path, "raw", b"precious")
        [base] = self.cache.bases()
        self.cache.remove_base(base.key)

        def fetch(target: str, **arguments: object) -> None:
            raise AssertionError("the image is not needed")

        self.images.backend().by_name({"uuid": INSTANCE}, "disk").cache(
            fetch, base.key, 2 * SIZE, image_id=self.image)
        self.assertTrue(self.read(disk).startswith(b"precious"))
        run("lvchange", "--activate", "n", f"{GROUP}/{disk.path.name}")
        self.make()
        self.assertTrue(self.read(disk).startswith(b"precious"))

    def test_novas_error_handler_keeps_a_volume_that_is_not_active(
            self) -> None:
        disk = self.make()
        images.write(disk.path, "raw", b"precious")
        run("lvchange", "--activate", "n", f"{GROUP}/{disk.path.name}")
        image = self.images.backend().by_name({"uuid": INSTANCE}, "disk")
        with self.assertRaises(OSError), \
                image.remove_volume_on_error(image.path):
            raise OSError
        self.make()
        self.assertTrue(self.read(disk).startswith(b"precious"))

    def test_a_partly_wiped_volume_is_not_a_disk(self) -> None:
        def fail(path: pathlib.Path, size: int) -> None:
            run("blkdiscard", "--zeroout", "--length", "4096", str(path))
            raise exception.CommandFailed(
                command="blkdiscard", exit_code=1, stderr="no")

        disk = self.make()
        with fixtures.MonkeyPatch("imagecache.tools.blockdev.zero", fail):
            self.assertRaises(exception.CommandFailed, disk.remove)
        self.assertFalse(disk.exists())
        self.assertEqual([], list(self.cache.disks()))
        disk.remove()    # continues
        self.assertEqual(set(), volumes())

    def test_an_attempt_that_a_program_has_open_is_not_removed(self) -> None:
        """The program may have outlived the process that started it."""
        left = f".{INSTANCE}_disk.99999999-1.012345"
        run("lvcreate", "--yes", "--size", "1m", "--name", left, GROUP)
        with pathlib.Path("/dev", GROUP, left).open("r+b") as f:
            f.write(b"still written")
            f.flush()
            disk = self.make()
            self.assertTrue(self.content == self.read(disk))
            f.seek(0)
            self.assertEqual(b"still written", f.read(13))
        disk.remove()
        self.assertEqual(set(), volumes())

    def test_a_disk_that_cannot_be_filled_leaves_nothing(self) -> None:
        def fail(path: pathlib.Path) -> None:
            path.write_bytes(b"half" * 1024)
            raise exception.CommandFailed(
                command="mkfs", exit_code=1, stderr="no")

        with self.assertRaisesRegex(exception.CommandFailed, "mkfs"):
            provision(self.cache.disk(INSTANCE), sources.Template(
                "x", fail, on_device=True), SIZE)
        self.assert_only()
        self.assertEqual(-1, found_on_disk(b"half" * 1024))


class ThinTroubleTest(TroubleTestCase):
    pool = POOL

    def test_a_full_pool_is_reported_and_then_refused(self) -> None:
        disk = self.make(POOL_SIZE)
        fill(disk, POOL_SIZE * 85 // 100)
        self.images.events.clear()
        self.let_a_minute_pass()
        self.make(instance=OTHER)
        [event] = [each for each in self.images.events
                   if each.name == "pool_nearly_full"]
        self.assertEqual("vg/pool", event.subject)
        fill(disk, POOL_SIZE * 96 // 100)
        before = volumes()
        with self.assertRaisesRegex(exception.NoSpace,
                                    "the data of thin pool vg/pool"):
            self.make(name="disk2")
        with self.assertRaisesRegex(exception.NoSpace, "the data of"):
            disk.grow(2 * POOL_SIZE)
        self.assertEqual(before, volumes())

    def let_a_minute_pass(self) -> None:
        os.utime(notes(self.cache.host.policy.bases) / f"{GROUP}.{POOL}",
                 (0, 0))

    def test_an_image_that_does_not_fit_the_pool_makes_no_base(self) -> None:
        self.images.config("image_cache", lvm_pool_limit=1)
        self.image = self.images.add(os.urandom(8 * MiB), "raw")
        with self.assertRaisesRegex(exception.NoSpace,
                                    "the data of .* for a base"):
            self.make()
        self.images.config("image_cache", lvm_pool_limit=5)
        with self.assertRaisesRegex(exception.NoSpace, "the metadata of"):
            self.make()
        self.assert_only()
        self.assertEqual([], list(self.cache.bases()))

    def test_a_pool_that_does_not_zero_is_refused(self) -> None:
        run("lvchange", "--zero", "n", f"{GROUP}/{POOL}")
        self.addCleanup(run, "lvchange", "--zero", "y", f"{GROUP}/{POOL}")
        self.assertRaises(exception.InvalidConfiguration, self.make)
        self.assert_only()

    def test_a_killed_maker_leaves_a_whole_disk_or_none(self) -> None:
        self.assert_a_killed_maker_leaves_a_whole_disk_or_none()

    def test_racers_get_one_disk(self) -> None:
        self.assert_racers_get_one_disk()

    def test_a_guest_does_not_read_what_another_guest_wrote(self) -> None:
        disk = self.make(16 * SIZE)
        images.write(disk.path, "raw", b"mine" * 64 * 1024, 4 * SIZE)
        disk.remove()
        other = self.make(16 * SIZE, OTHER)
        # One sector of each chunk, so that the pool allocates all of them.
        for offset in range(2 * SIZE, 16 * SIZE, 64 * KiB):
            images.write(other.path, "raw", b"x", offset)
        self.assertGreaterEqual(other.allocated(), 14 * SIZE)
        self.assertNotIn(b"mine", self.read(other))


class SparseTroubleTest(TroubleTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images.config("libvirt", sparse_logical_volumes=True)

    def test_a_killed_attempt_leaves_no_pool(self) -> None:
        def check() -> None:
            disk = self.make()
            self.assertTrue(self.content == self.read(disk))
            self.assertEqual(2, len(volumes()))
            self.forget_all()

        self.assert_survives_kills(self.make, check)
        self.cache.disk(INSTANCE).remove()
        self.assertEqual(set(), volumes())


class EncryptedTroubleTest(TroubleTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(encrypting.FixedIterations())

    def test_a_killed_maker_leaves_a_whole_disk_or_none(self) -> None:
        def make() -> Disk:
            return self.make(encryption=KEY)

        def check() -> None:
            disk = make()
            self.assertTrue(self.content == self.read(disk))
            self.assertEqual({f"{INSTANCE}_disk"}, volumes())
            self.forget_all()

        self.assert_survives_kills(make, check)
        self.cache.disk(INSTANCE, encryption=KEY).remove()
        self.assertEqual((set(), set()), (volumes(), opened()))

    def test_a_disk_grows_after_an_earlier_attempt_was_killed(self) -> None:
        def grow() -> None:
            self.cache.disk(INSTANCE, encryption=KEY).grow(size)

        def check() -> None:
            nonlocal size
            grow()
            self.assertEqual(size, disk.size())
            size += SIZE

        disk, size = self.make(encryption=KEY), 2 * SIZE
        self.assert_survives_kills(grow, check)


def fill(disk: Disk, size: int) -> None:
    """Write ``size`` bytes to the beginning of a disk."""
    run("dd", "if=/dev/zero", f"of={disk.path}", "bs=4M", "conv=notrunc",
        "oflag=direct", f"count={size // (4 * MiB)}")


def found_on_disk(data: bytes) -> int:
    """Return the offset of ``data`` on the physical volume, or -1.

    The volumes of the tests are in its first 64 MiB.
    """
    with pathlib.Path(os.environ["GUEST_DISK"]).open("rb") as f:
        return f.read(64 * MiB).find(data)
