# SPDX-License-Identifier: Apache-2.0
"""The example agent, run as its documentation says."""

from __future__ import annotations

import collections
import pathlib
import subprocess
import sys

from imagecache.model import GiB
from imagecache.tests import base
from imagecache.tests.functional import boot

AGENT = pathlib.Path(__file__).resolve().parents[3] / "examples" / "agent.py"


class AgentTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.image = self.useFixture(boot.BootImage())
        self.instances = self.root / "instances"
        self.config = self.root / "agent.conf"
        self.config.write_text(
            f"[DEFAULT]\ninstances_path = {self.instances}\n")

    def agent(self, *arguments, image=None):
        """Run the agent to its end; return the code, stdout and stderr."""
        done = subprocess.run(
            [sys.executable, AGENT, "--config-file", self.config,
             "--image", image or self.image.path,
             "--kernel", self.image.path.with_name("vmlinuz"),
             "--initrd", self.image.path.with_name("initrd"), *arguments],
            capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def disks(self):
        """Return the directories of instances."""
        return [path for path in self.instances.glob("*")
                if path.name not in ("_base", "locks")]

    def test_two_guests_boot_from_one_image_and_leave_only_its_base(self):
        code, said, complaints = self.agent("--count", "2", "--gib", "1")
        self.assertEqual((0, ""), (code, complaints))
        counts = collections.Counter(
            line.split()[0] for line in said.splitlines() if line.strip())
        self.assertEqual(
            (1, 1, 2, 2), (counts["committed"], counts["hit"],
                           counts["BOOT-OK"], counts["removed"]))
        self.assertEqual(2, said.count(f"disk_bytes={GiB}"))
        self.assertEqual([], self.disks())
        self.assertEqual(1, len(list(self.instances.glob("_base/*.json"))))

    def test_the_next_guest_finds_the_base(self):
        self.agent()
        code, said, complaints = self.agent()
        self.assertEqual((0, ""), (code, complaints))
        self.assertIn("hit ", said)
        self.assertNotIn("miss ", said)

    def test_a_disk_is_removed_though_its_guest_never_ends(self):
        code, said, complaints = self.agent("--timeout", "1")
        self.assertEqual(1, code)
        self.assertIn("did not run to its end", complaints)
        self.assertIn("removed ", said)
        self.assertEqual([], self.disks())

    def test_an_error_says_who_must_act_and_leaves_nothing(self):
        big = self.root / "big.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", big, "2G"],
                       check=True)
        for image, fate in ((big, "refused, no host will take this image"),
                            ("http://127.0.0.1:1/disk", "try again later")):
            code, _, complaints = self.agent(image=image)
            self.assertEqual(1, code)
            self.assertIn(fate, complaints)
            self.assertEqual([], self.disks())
