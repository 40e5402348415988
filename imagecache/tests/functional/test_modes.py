# SPDX-License-Identifier: Apache-2.0
"""The modes of files, the order of flushes, and the cost in system calls."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import textwrap

import imagecache
from imagecache import exception, fixture
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import base, processes
from imagecache.tests.functional import recorded

SIZE = 2 * MiB
NOBODY = 65534
AGENT = NOBODY if os.geteuid() == 0 else os.geteuid()


class ModesTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.root.chmod(0o755)
        self.content = images.content(SIZE)
        self.image = self.root / "image.qcow2"
        self.image.write_bytes(images.qcow2(self.content))

    def fixture(self, name: str, **options: object
                ) -> fixture.ImageCacheFixture:
        """Return a host whose instances are in a directory of this name."""
        found = self.useFixture(fixture.ImageCacheFixture(**options))
        found.config(instances_path=str(self.root / name))
        return found

    def make_all(self, cache: imagecache.ImageCache) -> None:
        for kind, instance in (("qcow2", INSTANCE), ("raw", OTHER)):
            cache.create_disk(instance, str(self.image), size=2 * SIZE,
                              image_type=kind)
            cache.create_swap(instance, MiB, image_type=kind)
            cache.create_ephemeral(instance, MiB, image_type=kind)


class UmaskTest(ModesTestCase):

    def test_the_umask_decides_nothing(self) -> None:
        modes = [self.modes(umask) for umask in (0o22, 0, 0o77)]
        for other in modes[1:]:
            self.assertEqual(modes[0], other)
        self.assertEqual(
            {"directory": {0o755}, "record": {0o644}, "base": {0o444},
             "disk": {0o644}}, modes[0])

    def modes(self, umask: int) -> dict[str, set[int]]:
        """Return the mode of each kind of file, made under a umask."""
        root = self.root / f"{umask:o}"
        self.addCleanup(os.umask, os.umask(umask))
        self.make_all(self.fixture(root.name).cache)
        found: dict[str, set[int]] = {}
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                kind = "directory"
            elif path.name == "disk.info" or path.suffix == ".json":
                kind = "record"
            elif path.parent.name == "_base":
                kind = "base"
            elif path.parent.name == "locks":
                continue
            else:
                kind = "disk"
            found.setdefault(kind, set()).add(path.stat().st_mode & 0o777)
        return found


class OtherUserTest(ModesTestCase):

    def test_the_hypervisor_reads_disks_as_another_user(self) -> None:
        cache = self.fixture("instances").cache
        self.make_all(cache)
        for instance in (INSTANCE, OTHER):
            disk = cache.disk(instance)
            output = self.root / f"copy-{instance}"
            output.write_bytes(bytes(2 * SIZE))
            output.chmod(0o666)
            processes.as_root(
                "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}",
                "--clear-groups", "qemu-img", "convert", "-n", "-f",
                disk.format, "-O", "raw", disk.path, output)
            self.assertTrue(output.read_bytes()
                            == self.content + bytes(SIZE))

    def test_no_other_user_may_write(self) -> None:
        self.make_all(self.fixture("instances").cache)
        for path in (self.root / "instances").rglob("*"):
            if path.parent.name != "locks":
                self.assertFalse(path.stat().st_mode & 0o22, path)

    def test_an_agent_need_not_be_root(self) -> None:
        instances = self.root / "instances"
        instances.mkdir()
        self.own(AGENT, instances)
        cache = self.fixture("instances").cache

        def act() -> None:
            become_the_agent()
            self.make_all(cache)
            for instance in (INSTANCE, OTHER):
                disk = cache.disk(instance)
                disk.grow(3 * SIZE)
                disk.extract(instances / "output", "qcow2")
                disk.remove()

        self.assertEqual(0, processes.Child(act).wait())

    def test_a_base_of_another_user_is_used(self) -> None:
        """The agent may have run as that user before."""
        cache = self.fixture("instances").cache
        cache.fetch(str(self.image))
        instances = self.root / "instances"
        self.own(0, "-R", instances)
        self.own(AGENT, instances)
        self.own(AGENT, "-R", instances / "locks")

        def act() -> None:
            become_the_agent()
            cache.create_disk(INSTANCE, str(self.image))

        self.assertEqual(0, processes.Child(act).wait())
        self.assertTrue(cache.disk(INSTANCE).exists())

    def test_a_directory_that_may_not_be_written_is_the_hosts_fault(
            self) -> None:
        cache = self.fixture("instances").cache
        cache.fetch(str(self.image))
        self.own(0, "-R", self.root / "instances")

        def act() -> None:
            become_the_agent()
            try:
                cache.create_disk(INSTANCE, str(self.image))
            except exception.HostError as e:
                os._exit(42 if "instances" in str(e) else 1)

        self.assertEqual(42, processes.Child(act).wait())

    def own(self, user: int, *what: object) -> None:
        self.addCleanup(processes.as_root, "chown", "-R", os.geteuid(),
                        self.root)
        processes.as_root("chown", f"{user}:{user}", *what)


class TraceTest(ModesTestCase):
    """The system calls of a disk, by strace(1)."""

    def test_a_warm_overlay_starts_one_program_in_one_process(self) -> None:
        calls = self.trace("qcow2", OTHER)
        programs = [call for call in calls if call.startswith("execve(")
                    and call.endswith("= 0")]
        self.assertEqual(1, len(programs), programs)
        self.assertIn('qemu-img"', programs[0])
        started = [call for call in calls
                   if re.match(r"(clone|clone3|fork|vfork)\(", call)
                   and "CLONE_THREAD" not in call]
        self.assertEqual(1, len(started), started)

    def test_a_base_is_on_disk_before_it_has_its_name(self) -> None:
        calls = self.trace(None, INSTANCE)
        name = re.escape(f"{self.root}/instances/_base/") + "[0-9a-f]+"
        commit = self.find(calls, rf'rename\(.*, "{name}"\)')
        staged = re.match(r'rename\("([^"]+)"', calls[commit])[1]
        flushed = self.find(calls, rf"fsync\(\d+<{re.escape(staged)}>\)")
        record = self.find(calls, rf'rename\(.*, "{name}\.json"\)')
        written = self.find(calls, r"fsync\(\d+<.*\.json\.[^>]*>\)")
        directory = self.find(calls, r"fsync\(\d+<.*/_base>\)")
        self.assertLess(flushed, commit)
        self.assertLess(commit, record)
        self.assertLess(written, record)
        self.assertLess(record, directory)

    def test_a_disk_is_on_disk_before_it_has_its_name(self) -> None:
        for kind in ("qcow2", "raw"):
            calls = self.trace(kind, OTHER)
            path = self.root / "instances" / OTHER / "disk"
            commit = self.find(calls, rf'link\(.*, "{path}"\)')
            staged = re.match(r'link\("([^"]+)"', calls[commit])[1]
            flushed = self.find(
                calls, rf"f(data)?sync\(\d+<{re.escape(staged)}>\)")
            record = self.find(calls, r'rename\(.*, ".*/disk\.info"\)')
            directory = self.find(
                calls, rf"fsync\(\d+<{re.escape(str(path.parent))}>\)")
            self.assertLess(flushed, commit, kind)
            self.assertLess(record, commit, kind)
            self.assertLess(commit, directory, kind)
            self.fixture("instances").cache.disk(OTHER).remove()

    def test_no_program_is_asked_what_a_base_is(self) -> None:
        """A base is validated once."""
        calls = self.trace("qcow2", OTHER)
        self.assertEqual([], [
            call for call in calls if call.startswith("open")
            and "/_base/" in call and ".json" not in call])

    def find(self, calls: list[str], pattern: str) -> int:
        """Return where the first such call is."""
        for i, call in enumerate(calls):
            if re.match(pattern, call):
                return i
        raise AssertionError(f"{pattern} is not among\n" + "\n".join(calls))

    def trace(self, kind: str | None, instance: str) -> list[str]:
        """Return the calls of a disk made of a base that is there.

        :param kind: of the disk; None for those of the base before it
        """
        script = textwrap.dedent(f"""
            import os, imagecache
            from oslo_config import cfg
            conf = cfg.ConfigOpts()
            conf([], project="x", default_config_files=[])
            cache = imagecache.ImageCache(conf)
            conf.set_override("instances_path", {str(self.root)!r}
                              + "/instances")
            cache = imagecache.ImageCache(conf)
            begin = lambda: os.path.exists("/begin")
            if {kind is None}:
                begin()
                cache.fetch({str(self.image)!r})
            else:
                cache.create_disk("warm", {str(self.image)!r},
                                  image_type={kind!r})
                begin()
                cache.create_disk({instance!r}, {str(self.image)!r},
                                  image_type={kind!r})
            os.path.exists("/end")
            """)
        output = self.root / "trace"
        subprocess.run(
            ["strace", "-f", "-y", "-qq", "-o", output, "-e",
             "trace=%process,%file,%desc", "-e", "signal=none",
             sys.executable, "-c", script], check=True,
            cwd=pathlib.Path(imagecache.__file__).parents[1])
        calls = recorded.joined(output.read_text())
        begin, end = (next(i for i, call in enumerate(calls)
                           if f'"/{mark}"' in call)
                      for mark in ("begin", "end"))
        return calls[begin:end]


def become_the_agent() -> None:
    if os.geteuid() != AGENT:
        os.setgroups([])
        os.setgid(AGENT)
        os.setuid(AGENT)
