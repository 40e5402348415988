# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import shutil
import subprocess
import sys

from imagecache.tests import base

TOOLS = pathlib.Path(__file__).parents[3] / "tools"


class InGuestTest(base.TestCase):
    """The runner of the guest suite, with the kernel it chooses here."""

    tools = TOOLS
    options: tuple[str, ...] = ()

    def run_in_guest(self, *words):
        return subprocess.run(
            [self.tools / "in-guest", *self.options, *words], cwd=self.root,
            check=False, text=True, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=300,
            env=os.environ | {"TMPDIR": str(self.root)})

    def assert_ends(self, status, done):
        self.assertEqual(status, done.returncode, done.stderr)
        # It cleans up after itself.
        self.assertEqual([], list(self.root.glob("in-guest.*")))

    def test_a_command_is_run_as_if_it_were_here(self):
        (self.root / "file").write_text("from here")
        done = self.run_in_guest(
            "sh", "-c", 'id -u; pwd; cat file; echo "$1" >&2; exit 7',
            "sh", "it's an error")
        self.assertEqual(f"0\n{self.root}\nfrom here", done.stdout)
        self.assertEqual("it's an error\n", done.stderr)
        self.assert_ends(7, done)

    def test_its_kernel_is_another(self):
        done = self.run_in_guest("uname", "-r")
        self.assertNotEqual(os.uname().release, done.stdout.strip())
        self.assert_ends(0, done)

    def test_what_it_writes_stays_only_where_that_is_asked_for(self):
        kept = self.root / "kept"
        done = self.run_in_guest(
            "-w", str(kept), "sh", "-c", "echo x > lost && echo y > kept/file")
        self.assert_ends(0, done)
        self.assertFalse((self.root / "lost").exists())
        self.assertEqual("y\n", (kept / "file").read_text())

    def test_bytes_come_back_as_they_are(self):
        done = subprocess.run(
            [self.tools / "in-guest", *self.options, "cat", "all"],
            cwd=self._directory_with_all_bytes(), check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.assertEqual(bytes(range(256)) * 1000, done.stdout)

    def _directory_with_all_bytes(self):
        (self.root / "all").write_bytes(bytes(range(256)) * 1000)
        return self.root

    def test_it_has_the_disks_that_were_asked_for(self):
        done = self.run_in_guest(
            "-d", "1M", "-d", "2M", "sh", "-c",
            "for d in $GUEST_DISKS; do blockdev --getsize64 $d; done")
        self.assertEqual(["1048576", "2097152"], done.stdout.split())

    def test_a_limit_of_time_has_a_status_of_its_own(self):
        self.assert_ends(124, self.run_in_guest("-t", "15", "sleep", "100"))

    def test_a_guest_that_dies_is_an_error(self):
        done = self.run_in_guest("sh", "-c", "echo c > /proc/sysrq-trigger;"
                                 " sleep 100")
        self.assertIn("the guest did not come up, or died", done.stderr)
        self.assert_ends(125, done)

    def test_a_program_that_stays_behind_holds_up_nothing(self):
        self.assert_ends(0, self.run_in_guest("sh", "-c", "sleep 1000 &"))


class EmulatedTest(InGuestTest):
    """The same, where there is no User-Mode Linux, or it does not work."""

    options = ("-b", "qemu")

    def setUp(self):
        super().setUp()
        self.run_in_guest("true")    # the first one fetches a kernel


class AcceleratorTest(base.TestCase):
    """KVM, where a kernel boots by it; here something else says whether."""

    def accelerator(self, said):
        asked = self.root / "asked"
        program = self.root / "qemu-system-x86_64"
        program.write_text(
            f'#!/bin/sh\necho "$1 $2" >> {asked}\n'
            f'case "$*" in *"-serial stdio"*) {said} ;; esac\n')
        program.chmod(0o755)
        subprocess.run(
            [TOOLS / "in-guest", "-b", "qemu", "true"], check=False,
            capture_output=True, env=os.environ | {
                "PATH": f"{self.root}:{os.environ['PATH']}"})
        trial, started = asked.read_text().splitlines()
        self.assertEqual("-accel kvm", trial)
        return started

    def test_a_kernel_that_boots_by_kvm_is_run_by_kvm(self):
        self.assertEqual("-accel kvm", self.accelerator(
            "echo Kernel panic - not syncing"))

    def test_one_that_does_not_is_emulated(self):
        for said in ("kill -ABRT $$", "true", "exit 1"):
            (self.root / "asked").unlink(missing_ok=True)
            self.assertEqual("-accel tcg", self.accelerator(said))


class ElsewhereTest(base.TestCase):

    def test_a_checkout_can_be_anywhere(self):
        there = self.root / "a new place"
        shutil.copytree(TOOLS, there / "tools")
        done = subprocess.run([there / "tools" / "in-guest", "pwd"],
                              cwd=there, check=False, text=True,
                              stdout=subprocess.PIPE)
        self.assertEqual(f"{there}\n", done.stdout)


class LandlockTest(base.TestCase):
    """User-Mode Linux has no Landlock; distributions' kernels have."""

    def test_a_device_is_used_in_its_sandbox(self):
        done = subprocess.run(
            [TOOLS / "in-guest", "-b", "qemu", sys.executable, "-m",
             "unittest", "imagecache.tests.guest.test_qemu_nbd"
             ".AttachedTest.test_it_works_in_a_sandbox"],
            cwd=TOOLS.parent, check=False, text=True, capture_output=True)
        self.assertEqual(0, done.returncode, done.stderr)
