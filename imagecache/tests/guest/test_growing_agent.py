# SPDX-License-Identifier: Apache-2.0
"""File systems in qcow2 disks, grown by an agent that is not root."""

from __future__ import annotations

# Loaded when they are first used, from where the agent may not read.
import concurrent.futures.thread  # noqa: F401
import os
import pathlib
import sys

from imagecache import exception
from imagecache.model import Sandbox
from imagecache.testing.conformance import INSTANCE
from imagecache.tests.functional import processes
from imagecache.tests.guest import devices
from imagecache.tests.guest.test_growing import SIZE, GrowingTestCase

USER, UID = "imagecache", 4242
ETC = pathlib.Path(__file__).parents[3] / "etc/imagecache"
INSTALLED = pathlib.Path("/etc/sudoers.d/imagecache")


class AgentTestCase(GrowingTestCase):

    def setUp(self) -> None:
        super().setUp()
        devices.run("useradd", "--uid", UID, "--no-create-home", USER)
        self.addCleanup(devices.run, "userdel", USER)
        os.chown(self.images.instances_path, UID, UID)

    def install(self, rules: pathlib.Path, root_helper: str) -> None:
        devices.run("install", "--mode=0440", rules, INSTALLED)
        self.addCleanup(INSTALLED.unlink)
        self.images.config("image_cache", root_helper=root_helper)

    def assert_grows_for_the_agent(self) -> None:
        """At first boot, and with the disk; then all is root's again."""
        content = self.filesystem()
        disk = self.images.cache.disk(INSTANCE)
        for act, size in ((lambda: self.make(content), SIZE),
                          (lambda: disk.grow(2 * SIZE), 2 * SIZE)):
            self.assertEqual(0, self.as_the_agent(act))
            self.assert_size(size, disk)
            self.assertEqual(UID, disk.path.stat().st_uid)
            self.assertEqual({0}, {
                each.stat().st_uid for each in pathlib.Path("/dev").glob(
                    "nbd*")})

    def as_the_agent(self, act) -> int:
        def be_the_agent() -> None:
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            act()

        return processes.Child(be_the_agent, exception.CommandFailed).wait()


class SudoTest(AgentTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.install(ETC / "sudoers", "sudo -n")

    def test_the_shipped_rules_are_all_it_needs(self) -> None:
        self.assert_grows_for_the_agent()

    def test_it_does_so_in_a_sandbox(self) -> None:
        self.images.config("image_cache", sandbox=Sandbox.AVAILABLE.value)
        self.assert_grows_for_the_agent()

    def test_without_them_there_is_no_disk(self) -> None:
        INSTALLED.write_text("# nobody may do anything\n")
        content = self.filesystem()
        self.assertEqual(processes.REFUSED, self.as_the_agent(
            lambda: self.make(content)))
        self.assertFalse(self.images.cache.disk(INSTANCE).exists())


class RootwrapTest(AgentTestCase):

    def test_the_shipped_filters_are_all_it_needs(self) -> None:
        wrapper = pathlib.Path(sys.executable).parent / "oslo-rootwrap"
        conf = self.root / "rootwrap.conf"
        conf.write_text("[DEFAULT]\nexec_dirs = /usr/sbin,/usr/bin\n"
                        f"filters_path = {ETC / 'rootwrap.d'}\n")
        rules = self.root / "sudoers"
        rules.write_text(
            f"{USER} ALL = (root) NOPASSWD: {wrapper} {conf} *\n")
        self.install(rules, f"sudo -n {wrapper} {conf}")
        self.assert_grows_for_the_agent()
