# SPDX-License-Identifier: Apache-2.0
"""Disks that are logical volumes, on a real volume group."""

from __future__ import annotations

import contextlib
import pathlib
import random
import threading
from collections.abc import Iterator
from unittest import mock

import fixtures

import imagecache.system.execute
from imagecache import exception, imagemodel
from imagecache.backends.lvm.volume_disk import VolumeDisk
from imagecache.backends.lvm.volumes import notes
from imagecache.model import GiB, MiB
from imagecache.testing import conformance, images
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE
from imagecache.tests.guest import volume_group
from imagecache.tests.guest.volume_group import GROUP, POOL, run, volumes

CANARY = b"what the last guest wrote" * 1000


class ThickTest(volume_group.LvmTestCase, conformance.DiskConformance):
    """Thick volumes keep all promises of the backend."""

    image_format = "qcow2"

    def test_a_disk_is_made_and_extracted_in_a_sandbox(self) -> None:
        self.assert_made_in_a_sandbox()

    def test_novas_api_describes_a_block_device_to_libvirt(self) -> None:
        self.make()
        image = self.images.backend().by_name(
            {"uuid": INSTANCE}, "disk", disk_info_mapping={
                "bus": "virtio", "dev": "vda", "type": "disk"})
        again = self.images.backend().by_libvirt_path(
            {"uuid": INSTANCE}, f"/dev/mapper/{GROUP}-"
            + INSTANCE.replace("-", "--") + "_disk")
        self.assertEqual(f"/dev/{GROUP}/{INSTANCE}_disk", image.path)
        self.assertEqual(image.path, again.path)
        self.assertEqual(
            (True, "raw", "native"),
            (image.is_block_dev, image.driver_format, image.driver_io))
        self.assertIsInstance(image.get_model(None),
                              imagemodel.LocalBlockImage)
        element = image.libvirt_info("none", {}).format_dom()
        self.assertEqual("block", element.get("type"))
        self.assertEqual(image.path, element.find("source").get("dev"))

    def test_ephemeral_and_swap_disks_are_made_on_volumes(self) -> None:
        self.cache.create_swap(INSTANCE, 4 * SIZE)
        self.cache.create_ephemeral(INSTANCE, 4 * SIZE, label="scratch",
                                    name="disk.eph0_1")
        self.assertEqual({f"{GROUP}/{INSTANCE}_disk.swap",
                          f"{GROUP}/{INSTANCE}_disk.eph0__1"}, self.left())
        for name, label in (("disk.swap", "swap"),
                            ("disk.eph0__1", "scratch")):
            self.assertEqual(label, run(
                "blkid", "-o", "value", "-s", "LABEL",
                f"/dev/{GROUP}/{INSTANCE}_{name}").strip())
        self.assertEqual({"disk.swap", "disk.eph0_1"}, {
            disk.name for disk in self.cache.disks(INSTANCE)})

    def test_a_removed_disk_is_wiped_before_its_space_is_used_again(
            self) -> None:
        for clear in ("zero", "shred"):
            self.images.config("libvirt", volume_clear=clear)
            self.assertEqual(bytes(2 * SIZE), self.next_volume())

    def test_volume_clear_size_limits_how_much_is_wiped(self) -> None:
        self.images.config("libvirt", volume_clear_size=1)
        found = self.next_volume()
        self.assertEqual(bytes(MiB), found[:MiB])
        self.assertEqual(CANARY, found[MiB:][:len(CANARY)])

    def test_volume_clear_none_wipes_nothing(self) -> None:
        self.images.config("libvirt", volume_clear="none")
        self.assertEqual(CANARY, self.next_volume()[MiB:][:len(CANARY)])

    def next_volume(self) -> bytes:
        """Return what a volume reads in the place of a removed disk."""
        disk = self.make(2 * SIZE)
        images.write(disk.path, "raw", CANARY, MiB)
        disk.remove()
        # LVM allocates the first free extents and wipes none of them.
        run("lvcreate", "--yes", "--zero", "n", "--wipesignatures", "n",
            "--size", f"{2 * SIZE}b", "--name", "next", GROUP)
        found = pathlib.Path(f"/dev/{GROUP}/next").read_bytes()
        volume_group.empty(None)
        return found

    def test_a_volume_that_a_program_has_open_is_not_wiped(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.backends.lvm.removal._PATIENCE", 0))
        disk = self.make()
        with disk.path.open("rb"):
            self.assertRaises(exception.StorageFailed, disk.remove)
        self.assertTrue(self.content == self.read(disk))

    def test_a_volume_that_a_program_has_open_is_not_grown(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.backends.lvm.removal._PATIENCE", 0))
        disk = self.make()
        with disk.path.open("r+b"):
            self.assertRaises(exception.StorageBusy, disk.grow, 2 * SIZE)
            disk.grow(SIZE)    # its size: nothing has to be done
        self.assertEqual(SIZE, disk.size())

    def test_wiping_and_copying_do_not_fill_the_page_cache(self) -> None:
        image = self.images.add(random.Random(0).randbytes(64 * MiB), "raw")
        self.cache.fetch(image)
        with Buffers() as buffers:
            for clear in ("zero", "shred"):
                self.images.config("libvirt", volume_clear=clear)
                self.cache.create_disk(INSTANCE, image).remove()
        self.assertLess(buffers.grown, 16 * MiB)

    def test_a_kernel_mounts_the_grown_file_system(self) -> None:
        self.assert_grown_file_system_mounts("ext4")


class ThinTest(volume_group.LvmTestCase, conformance.MakingConformance,
               conformance.RefusingConformance,
               conformance.GrowingConformance,
               conformance.RemovingConformance, conformance.BaseConformance):
    """Disks that are snapshots in a thin pool.

    In a thin pool the bases are volumes, and other commands make, grow and
    remove a disk; a volume is filled and read as in ``ThickTest``.
    """

    pool = POOL

    def test_a_disk_is_made_and_extracted_in_a_sandbox(self) -> None:
        self.assert_made_in_a_sandbox()

    def test_an_ephemeral_disk_is_made_on_a_thin_volume(self) -> None:
        disk = self.cache.create_ephemeral(INSTANCE, 16 * MiB)
        run("e2fsck", "-f", "-n", disk.path)
        self.assertEqual(POOL, run(
            "lvs", "--noheadings", "-o", "pool_lv",
            f"{GROUP}/{disk.path.name}").strip())
        self.assertLess(disk.allocated(), 8 * MiB)

    def test_a_new_disk_is_looked_for_once(self) -> None:
        with mock.patch.object(VolumeDisk, "exists", autospec=True,
                               side_effect=VolumeDisk.exists) as looks:
            self.make()
            self.make(instance=OTHER)
        self.assertEqual([INSTANCE, OTHER], [
            call.args[0].instance for call in looks.call_args_list])

    def test_disks_are_snapshots_of_one_base(self) -> None:
        disks = [self.make(), self.make(64 * SIZE, OTHER)]
        [base] = self.cache.bases()
        self.assertEqual([str(each.path) for each in reversed(disks)],
                         sorted(self.cache.users(base)))
        self.assertEqual(f"{GROUP}/{POOL}", base.store)
        self.assertIn("read-only", run(
            "lvs", "-o", "lv_permissions", f"{GROUP}/{base.path.name}"))
        for disk in disks:
            self.assertLess(disk.allocated(), SIZE / 2)
        with self.assertRaises(exception.BaseInUse):
            self.cache.remove_base(base.key)
        disks[0].remove()
        disks[1].remove()
        self.cache.remove_base(base.key)
        self.assert_nothing_left()

    def test_after_a_host_reboot_disks_are_active_and_bases_are_not(
            self) -> None:
        disk = self.make()
        run("vgchange", "--activate", "n", GROUP)
        self.assertFalse(disk.exists())    # LVM has not activated it
        self.make(2 * SIZE)                # activates it
        self.assertEqual(2 * SIZE, disk.size())
        run("vgchange", "--activate", "n", GROUP)
        run("vgchange", "--activate", "y", GROUP)
        self.assertTrue(disk.path.is_block_device())
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))
        [base] = self.cache.bases()
        self.assertFalse(base.path.exists())

    def test_a_base_survives_the_loss_of_its_directory(self) -> None:
        self.make()
        [base] = self.cache.bases()
        self.assertLess(0, base.used)
        for each in notes(self.cache.host.policy.bases).iterdir():
            each.unlink()
        [base] = self.cache.bases()
        self.assertEqual(0, base.used)
        self.make(instance=OTHER)
        self.assertEqual(1, self.images.store.reads)

    def test_a_base_that_an_operator_removed_is_fetched_again(self) -> None:
        self.make()
        [base] = self.cache.bases()
        run("lvremove", "--yes", f"{GROUP}/{base.path.name}")
        self.assertTrue(self.content == self.read(self.make(instance=OTHER)))
        self.assertEqual(2, self.images.store.reads)

    def test_a_disk_of_a_cached_image_takes_one_command_of_lvm(self) -> None:
        self.make()
        with self.commands() as commands:
            self.make(instance=OTHER)
        self.assertEqual(["lvcreate"], commands)

    def test_a_larger_disk_takes_four_commands_of_lvm(self) -> None:
        self.make()
        with self.commands() as commands:
            disk = self.make(2 * SIZE, instance=OTHER)
        self.assertEqual(["lvs", "lvcreate", "lvextend", "lvrename"],
                         commands)
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))

    def test_a_larger_disk_without_a_device_is_brought_back(self) -> None:
        disk = self.make(2 * SIZE)
        images.write(disk.path, "raw", CANARY)
        run("vgchange", "--activate", "n", GROUP)
        again = self.make(3 * SIZE)
        self.assertEqual(3 * SIZE, again.size())
        self.assertEqual(CANARY, self.read(again)[:len(CANARY)])
        self.assertEqual({disk.path.name}, {
            name for name in volumes() if name.endswith("_disk")})

    @contextlib.contextmanager
    def commands(self) -> Iterator[list[str]]:
        """Yield a list of the programs that are run in the block."""
        commands: list[str] = []

        def run(*command: str, **options: object) -> str:
            commands.append(command[0])
            return execute(*command, **options)

        execute = imagecache.system.execute.run
        with fixtures.MonkeyPatch("imagecache.system.execute.run", run):
            yield commands

    def test_a_kernel_mounts_the_grown_file_system(self) -> None:
        self.assert_grown_file_system_mounts("ext3")


class SparseTest(volume_group.LvmTestCase, conformance.MakingConformance,
                 conformance.GrowingConformance,
                 conformance.RemovingConformance):
    """Sparse disks.

    A disk has a thin pool to itself, which affects the commands that make,
    grow and remove the disk; its base is a file, as in ``ThickTest``.
    """

    def setUp(self) -> None:
        super().setUp()
        self.images.config("libvirt", sparse_logical_volumes=True)

    def test_a_disk_has_a_pool_of_its_own_until_it_is_removed(self) -> None:
        disk = self.make(2 * SIZE)
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))
        self.assertEqual(2, len(volumes()))
        disk.grow(1024 * SIZE)
        self.assertEqual(1024 * SIZE, disk.size())
        self.assertLess(disk.allocated(), SIZE)
        self.assertEqual([disk.path],
                         [each.path for each in self.cache.disks()])
        self.make(2 * SIZE)
        with disk.path.open("rb") as f:
            self.assertTrue(self.content == f.read(SIZE))
        disk.remove()
        self.assertEqual(set(), volumes())

    def test_a_full_group_is_reported_before_a_volume_is_made(self) -> None:
        run("lvcreate", "--yes", "--extents", "100%FREE", "--name", "full",
            GROUP)
        self.addCleanup(run, "lvremove", "--yes", f"{GROUP}/full")
        with self.assertRaisesRegex(exception.NoSpace,
                                    "in volume group vg for a disk"):
            self.make()
        self.assertEqual({"full"}, volumes())

    def test_the_pool_of_a_disk_has_room_for_an_empty_file_system(
            self) -> None:
        """The journal of 16 GiB alone is larger than a new pool."""
        disk = self.cache.create_ephemeral(INSTANCE, 16 * GiB)
        run("e2fsck", "-f", "-n", str(disk.path))

    def test_a_blank_disk_is_zeros_and_takes_no_space(self) -> None:
        disk = self.cache.create_blank(INSTANCE, "blank", 8 * SIZE)
        self.assertEqual(bytes(8 * SIZE), self.read(disk))
        self.assertEqual(0, disk.allocated())


class Buffers(threading.Thread):
    """Records the peak size of the page cache of all devices.

    The kernel drops the pages of a device when its last user closes it.
    """

    def __enter__(self) -> Buffers:
        self._ended = threading.Event()
        self._first = self._size()
        self.grown = 0
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            self.grown = max(self.grown, self._size() - self._first)

    def _size(self) -> int:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        found = dict(line.split(":") for line in lines)
        return int(found["Buffers"].split()[0]) * 1024
