# SPDX-License-Identifier: Apache-2.0
"""File systems in qcow2 disks, grown by an agent that is not root."""

from __future__ import annotations

# Imported now: the agent may not read the directory of these modules.
import concurrent.futures.thread  # noqa: F401
import os
import pathlib
import sys

from imagecache import exception
from imagecache.model import Sandbox
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import processes
from imagecache.tests.guest import devices
from imagecache.tests.guest.growing_case import (
    SIZE,
    GrowingTestCase,
    filesystem,
)

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
        """Check that the agent grows a new disk and one that exists.

        Afterwards the devices belong to root again.
        """
        content = filesystem()
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

    def test_the_shipped_sudo_rules_are_all_that_the_agent_needs(
            self) -> None:
        self.images.config("image_cache", sandbox=Sandbox.AVAILABLE.value)
        self.assert_grows_for_the_agent()

    def test_without_sudo_rules_no_disk_is_made(self) -> None:
        INSTALLED.write_text("# no rules\n")
        content = filesystem()
        self.assertEqual(processes.REFUSED, self.as_the_agent(
            lambda: self.make(content)))
        self.assertFalse(self.images.cache.disk(INSTANCE).exists())


class RootwrapTest(AgentTestCase):

    def test_the_shipped_rootwrap_filters_are_all_that_the_agent_needs(
            self) -> None:
        wrapper = pathlib.Path(sys.executable).parent / "oslo-rootwrap"
        conf = self.root / "rootwrap.conf"
        conf.write_text("[DEFAULT]\nexec_dirs = /usr/sbin,/usr/bin\n"
                        f"filters_path = {ETC / 'rootwrap.d'}\n")
        rules = self.root / "sudoers"
        rules.write_text(
            f"{USER} ALL = (root) NOPASSWD: {wrapper} {conf} *\n")
        self.install(rules, f"sudo -n {wrapper} {conf}")
        self.assert_grows_for_the_agent()
