# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from imagecache.tests import base

TOOLS = pathlib.Path(__file__).parents[3] / "tools"


# What runs there: it answers in files, but for what it prints.
SCRIPT = """\
id -u > kept/user
pwd > kept/directory
cat file > kept/content
uname -r > kept/kernel
echo x > lost
for disk in $GUEST_DISKS; do blockdev --getsize64 $disk; done > kept/disks
echo "it's an error" >&2
cat all
sleep 1000 &
[ $# = 0 ] || "$@" > kept/test 2>&1
exit 7
"""
ALL_BYTES = bytes(range(256)) * 1000


class InGuestTest(base.TestCase):
    """The kernel that is chosen here runs one command, and two that fail."""

    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()    # that the script runs as well

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.place = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory())).resolve()
        cls.kept = cls.place / "kept"
        (cls.place / "file").write_text("from here")
        (cls.place / "all").write_bytes(ALL_BYTES)
        cls.done = cls.run_in_guest(
            "-w", str(cls.kept), "-d", "1M", "-d", "2M", "sh", "-c", SCRIPT,
            "sh", *cls.command)

    @classmethod
    def run_in_guest(cls, *words):
        return subprocess.run(
            [TOOLS / "in-guest", *cls.options, *words], cwd=cls.place,
            check=False, stdin=subprocess.DEVNULL, capture_output=True,
            env=os.environ | {"TMPDIR": str(cls.place)})

    def kept_text(self, name):
        return (self.kept / name).read_text().strip()

    def assert_ends(self, status, done):
        self.assertEqual(status, done.returncode, done.stderr)
        # It cleans up after itself.
        self.assertEqual([], list(self.place.glob("in-guest.*")))

    def test_a_command_runs_as_root_in_its_directory_on_these_files(self):
        self.assertEqual(("0", str(self.place), "from here"), (
            self.kept_text("user"), self.kept_text("directory"),
            self.kept_text("content")))

    def test_its_status_and_its_errors_come_back(self):
        self.assertEqual(b"it's an error\n", self.done.stderr)
        # A program that stays behind does not hold it up.
        self.assert_ends(7, self.done)

    def test_bytes_come_back_as_they_are(self):
        self.assertTrue(self.done.stdout == ALL_BYTES)

    def test_its_kernel_is_another(self):
        self.assertNotEqual(os.uname().release, self.kept_text("kernel"))

    def test_what_it_writes_stays_only_where_that_is_asked_for(self):
        self.assertFalse((self.place / "lost").exists())

    def test_it_has_the_disks_that_were_asked_for(self):
        self.assertEqual(["1048576", "2097152"],
                         self.kept_text("disks").split())

    def test_a_limit_of_time_has_a_status_of_its_own(self):
        self.assert_ends(124, self.run_in_guest("-t", "2", "sleep", "1000"))

    def test_a_guest_that_dies_is_an_error(self):
        done = self.run_in_guest("sh", "-c", "echo c > /proc/sysrq-trigger;"
                                 " sleep 100")
        self.assertIn(b"the guest did not come up, or died", done.stderr)
        self.assert_ends(125, done)


class EmulatedTest(InGuestTest):
    """The same, where there is no User-Mode Linux, or it does not work.

    User-Mode Linux has no Landlock; distributions' kernels have.  So a device
    is used in its sandbox here.
    """

    options = ("-b", "qemu")
    command = ("env", "-C", str(TOOLS.parent), sys.executable, "-m",
               "unittest",
               "imagecache.tests.guest.test_qemu_nbd.AttachedTest"
               ".test_a_device_reads_and_writes_as_the_disk_in_a_sandbox")

    def test_a_device_is_used_in_its_sandbox(self):
        self.assertIn("\nOK", self.kept_text("test"))


class AcceleratorTest(base.TestCase):
    """KVM, where a kernel boots by it; here a script says whether one does."""

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

    def test_a_kernel_that_does_not_boot_by_kvm_is_emulated(self):
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
