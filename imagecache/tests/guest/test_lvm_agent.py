# SPDX-License-Identifier: Apache-2.0
"""An agent that is not root, and the sudo of its host."""

from __future__ import annotations

# Loaded when they are first used, from where the agent may not read.
import concurrent.futures.thread  # noqa: F401
import os
import pathlib
import subprocess

import fixtures

from imagecache.system import execute
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE
from imagecache.tests import processes
from imagecache.tests.encrypting import KEY, PASSPHRASE
from imagecache.tests.guest import volume_group
from imagecache.tests.guest.volume_group import (
    GROUP,
    POOL,
    opened,
    run,
    volumes,
)

USER = "imagecache"
UID = 4242
SUDOERS = pathlib.Path("etc/imagecache/sudoers").absolute()
INSTALLED = pathlib.Path("/etc/sudoers.d/imagecache")


class AgentTestCase(volume_group.LvmTestCase):
    """An agent that is not root, with the sudo rules that we ship."""

    def setUp(self) -> None:
        super().setUp()
        run("useradd", "--uid", str(UID), "--no-create-home", USER)
        self.addCleanup(run, "userdel", USER)
        run("install", "--mode=0440", str(SUDOERS), str(INSTALLED))
        self.addCleanup(INSTALLED.unlink)
        os.chown(self.images.instances_path, UID, UID)
        self.images.config("image_cache", root_helper="sudo -n",
                           sandbox="available")

    def assert_works_for_the_agent(self) -> None:
        commands: list[tuple[str, ...]] = []
        genuine = execute.run

        def run_unprivileged(*command: str, **options: object) -> str:
            commands.append(command)
            return genuine(*command, **options)

        def act() -> None:
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            with fixtures.MonkeyPatch("imagecache.system.execute.run",
                                      run_unprivileged):
                self._live()
            self.assertIn("qemu-img", {each[0] for each in commands})

        self.assertEqual(0, processes.Child(act).wait())
        self.assertEqual(set(), {name for name in volumes() - {self.pool}
                                 if not name.startswith("base-")})

    def _live(self) -> None:
        """Make, grow, extract and remove a disk."""
        disk = self.make(2 * SIZE)
        self.assertFalse(os.access(disk.path, os.R_OK))
        self.assertEqual(0, disk.path.stat().st_uid)
        disk.grow(3 * SIZE)
        output = self.images.instances_path / "extracted"
        disk.extract(output, "raw")
        self.assertTrue(self.content + bytes(2 * SIZE)
                        == output.read_bytes())
        self.cache.create_ephemeral(INSTANCE, 4 * SIZE).remove()
        disk.remove()
        self.make(instance=OTHER).remove()    # one command for a thin one


class ThickAgentTest(AgentTestCase):

    def test_an_agent_needs_root_for_the_shipped_commands_only(self) -> None:
        self.assert_works_for_the_agent()

    def test_the_shipped_rules_allow_no_other_command(self) -> None:
        run("lvcreate", "--yes", "--size", "1m", "--name", "root", GROUP)
        for command in (f"lvremove --yes {GROUP}/root",
                        f"chown {UID} /dev/{GROUP}/root",
                        f"chown {UID} {os.environ['GUEST_DISK']}",
                        f"lvrename {GROUP} root a_disk",
                        f"lvrename {GROUP} --config=log{{file=a_b}} a_disk",
                        "lvs --reportformat json --units b --nosuffix"
                        " --options lv_name --select x --config log{file=x}"
                        f" {GROUP}",
                        "cat /etc/shadow"):
            done = subprocess.run(
                ["setpriv", f"--reuid={UID}", f"--regid={UID}",
                 "--clear-groups", "sudo", "-n", *command.split()],
                check=False, capture_output=True, text=True)
            self.assertEqual(1, done.returncode, command)
            self.assertIn("password is required", done.stderr)
        self.assertIn("root", volumes())


class ThinAgentTest(AgentTestCase):
    pool = POOL

    def test_an_agent_needs_root_for_the_shipped_commands_only(self) -> None:
        self.assert_works_for_the_agent()


class EncryptedAgentTest(AgentTestCase):

    def setUp(self) -> None:
        super().setUp()
        # An operator may configure sudo to record what commands read.
        self.logged = self.root / "logged"
        self.logs = pathlib.Path("/etc/sudoers.d/a-log")
        self.logs.write_text("Defaults log_input, log_output, !compress_io\n"
                             f"Defaults iolog_dir={self.logged}\n")
        self.addCleanup(self.logs.unlink)

    def _live(self) -> None:
        disk = self.make(2 * SIZE, encryption=KEY)
        self.assertFalse(os.access(disk.path, os.R_OK))
        disk.close()
        disk.open()
        disk.grow(3 * SIZE)
        output = self.images.instances_path / "extracted"
        disk.extract(output, "raw")
        self.assertTrue(self.content == output.read_bytes()[:SIZE])
        disk.remove()

    def test_an_agent_needs_root_for_the_shipped_commands_only(self) -> None:
        self.assert_works_for_the_agent()
        self.assertEqual(set(), opened())
        logs = [path for path in self.logged.rglob("*") if path.is_file()]
        self.assertIn(b"cryptsetup open", b"".join(
            path.read_bytes() for path in logs if path.name == "log"))
        for path in logs:
            self.assertNotIn(PASSPHRASE, path.read_bytes())
