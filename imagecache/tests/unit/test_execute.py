# SPDX-License-Identifier: Apache-2.0
"""Programs that execute.run starts."""

from __future__ import annotations

import logging
import os
import signal
import tracemalloc

import fixtures
from oslo_concurrency import processutils

from imagecache import exception
from imagecache.model import Limits, MiB
from imagecache.system import execute
from imagecache.tests import base, processes

SOME = Limits(cpu_time=100)


class RunTest(base.TestCase):

    def test_it_returns_what_the_program_printed(self) -> None:
        for limits in (Limits(), SOME):
            self.assertEqual("a b\n", execute.run("echo", "a b",
                                                  limits=limits))

    def test_no_shell_interprets_the_arguments(self) -> None:
        self.assertEqual("$HOME `id` ; *\n", execute.run(
            "echo", "$HOME", "`id`", ";", "*", limits=SOME))

    def test_an_agent_that_is_not_root_uses_the_root_helper(self) -> None:
        for user, expected in ((0, "it\n"), (1000, "root echo it\n")):
            with fixtures.MonkeyPatch("os.geteuid", lambda user=user: user):
                self.assertEqual(expected, execute.run(
                    "echo", "it", root_helper="echo root"))

    def test_a_secret_is_in_no_log_and_no_error(self) -> None:
        with fixtures.FakeLogger(level=logging.DEBUG) as log:
            for limits in (Limits(), SOME):
                self.assertEqual("a \xff secret", execute.run(
                    "cat", limits=limits, secret=b"a \xff secret").encode(
                        errors="surrogateescape").decode("latin-1"))
                with self.assertRaises(exception.CommandFailed) as caught:
                    execute.run("sh", "-c", "cat; exit 1", limits=limits,
                                secret=b"a secret")
                self.assertNotIn("secret", f"{caught.exception.facts}")
        self.assertNotIn("secret", log.output)

    def test_a_failure_has_the_exit_code_and_the_message_of_the_program(
            self) -> None:
        with self.assertRaises(exception.CommandFailed) as caught:
            execute.run("sh", "-c", "echo oh no >&2; exit 3", limits=SOME)
        self.assertEqual(3, caught.exception.facts["exit_code"])
        self.assertEqual("oh no", caught.exception.facts["stderr"])
        # The command of the caller, without anything that limits it.
        self.assertTrue(str(caught.exception).startswith("sh -c "))

    def test_other_exit_codes_may_mean_success(self) -> None:
        execute.run("sh", "-c", "exit 3", exit_codes=(0, 3))
        self.assertRaises(exception.CommandFailed, execute.run, "true",
                          exit_codes=(3,))

    def test_a_missing_program_is_named(self) -> None:
        for limits in (Limits(), SOME):
            with self.assertRaises(exception.CommandNotFound) as caught:
                execute.run("no-such-program", "x", limits=limits)
            self.assertEqual("no-such-program",
                             caught.exception.facts["command"])

    def test_exit_code_127_does_not_mean_a_missing_program(self) -> None:
        with self.assertRaises(exception.CommandFailed) as caught:
            execute.run("sh", "-c", "exit 127")
        self.assertNotIsInstance(caught.exception, exception.CommandNotFound)

    def test_a_program_that_cannot_be_started_is_a_failure(self) -> None:
        plain = self.root / "plain"
        plain.touch()
        for limits in (Limits(), SOME):
            self.assertRaises(exception.CommandFailed, execute.run,
                              str(plain), limits=limits)
        self.assertRaises(exception.CommandFailed, execute.run,
                          "echo", "x" * 4 * MiB)

    def test_a_full_file_system_raises_no_space(self) -> None:
        with self.assertRaises(exception.NoSpace) as caught:
            execute.run("dd", "if=/dev/zero", "of=/dev/full", "count=1")
        self.assertIn("dd", str(caught.exception))

    def test_a_killed_program_is_a_failure(self) -> None:
        with self.assertRaises(exception.CommandFailed) as caught:
            execute.run("sh", "-c", "kill -9 $$", limits=SOME)
        self.assertEqual(-signal.SIGKILL,
                         caught.exception.facts["exit_code"])

    def test_messages_of_programs_are_in_english(self) -> None:
        for name in ("LANG", "LC_ALL", "LANGUAGE"):
            self.useFixture(fixtures.EnvironmentVariable(name, "de_DE.UTF-8"))
        self.assertEqual("C C C\n", execute.run(
            "sh", "-c", "echo $LANG $LC_ALL $LANGUAGE"))

    def test_programs_in_the_sbin_directories_are_found(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable(
            "PATH", os.environ["PATH"].replace("sbin", "nothing")))
        execute.run("mke2fs", "-V")

    def test_unprintable_output_is_escaped(self) -> None:
        execute.run("printf", r"\377\376")
        with self.assertRaises(exception.CommandFailed) as caught:
            execute.run("sh", "-c",
                        r"printf 'a\377\33[2Jb\r\nc\303\244' >&2; exit 1")
        self.assertEqual("a\\udcff\\x1b[2Jb\\r\nc\xe4",
                         caught.exception.facts["stderr"])
        str(caught.exception).encode()    # as for a log, or a database


class LimitsTest(base.TestCase):

    def test_limits_hold(self) -> None:
        for limits, flag, expected in (
                (Limits(address_space=64 * MiB), "-v", 64 * 1024),
                (Limits(cpu_time=7), "-t", 7),
                (Limits(file_size=MiB), "-f", MiB // 512)):
            self.assertEqual(f"{expected}\n", execute.run(
                "sh", "-c", f"ulimit {flag}", limits=limits))

    def test_endless_messages_of_a_program_are_not_kept(self) -> None:
        """An image of a few KiB can make qemu-img print gigabytes."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.assertRaises(exception.CommandFailed) as caught:
            execute.run("sh", "-c", "yes oh no | head -c 64M >&2; exit 3",
                        limits=SOME)
        self.assertLess(tracemalloc.get_traced_memory()[1], 16 * MiB)
        self.assertEqual(3, caught.exception.facts["exit_code"])
        self.assertIn("oh no", str(caught.exception))
        self.assertLess(len(str(caught.exception)), 5000)

    def test_endless_output_of_a_program_is_an_error(self) -> None:
        self.assertEqual(MiB - 1, len(execute.run(
            "head", "-c", str(MiB - 1), "/dev/zero", limits=SOME)))
        with self.assertRaises(exception.CommandFailed) as caught:
            execute.run("head", "-c", "64M", "/dev/zero", limits=SOME)
        self.assertIn("printed more than", str(caught.exception))

    def test_a_limit_of_zero_is_a_limit(self) -> None:
        self.assertRaises(exception.CommandFailed, execute.run, "dd",
                          "if=/dev/zero", f"of={self.root / 'x'}", "count=1",
                          limits=Limits(file_size=0))

    def test_limits_need_no_process_between_the_agent_and_the_program(
            self) -> None:
        self.assertEqual(f"{os.getpid()}\n", execute.run(
            "sh", "-c", "echo $PPID", limits=SOME))

    def test_a_slow_program_is_stopped(self) -> None:
        started: list[execute.Running] = []
        with self.assertRaises(exception.CommandTimedOut) as caught:
            execute.run("sleep", "1000", limits=Limits(wall_clock=0.01),
                        started=started.append)
        self.assertEqual("sleep 1000", caught.exception.facts["command"])
        self.assertEqual(-signal.SIGKILL, started[0].process.returncode)


class OrphanTest(base.TestCase):

    def test_an_interrupted_call_leaves_no_process(self) -> None:
        started: list[execute.Running] = []

        def give_up(running: execute.Running) -> None:
            started.append(running)
            raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, execute.run, "sleep", "1000",
                          limits=SOME, started=give_up)
        self.assertEqual(-signal.SIGKILL, started[0].process.returncode)

    def test_a_program_dies_with_the_process_that_started_it(self) -> None:
        """An orphan could write for hours."""
        note = self.root / "note"
        parent = os.fork()
        if not parent:
            try:
                execute.run("sh", "-c", f"echo $$ > {note}; exec sleep 1000",
                            limits=SOME)
            finally:
                os._exit(1)
        pid = int(processes.wait_for(
            lambda: note.exists() and note.read_text().strip()))
        self.assertTrue(processes.is_alive(pid))
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        processes.wait_for(lambda: not processes.is_alive(pid))


class WithoutForkTest(base.TestCase):
    """A program without limits is started without a fork."""

    def test_a_replaced_processutils_gets_every_call(self) -> None:
        seen: list[tuple[str, ...]] = []

        def recording(*command: str, **options: object) -> tuple[str, str]:
            seen.append(command)
            return genuine(*command, **options)

        genuine = processutils.execute
        self.useFixture(fixtures.MonkeyPatch(
            "oslo_concurrency.processutils.execute", recording))
        self.assertEqual("x\n", execute.run("echo", "x"))
        self.assertEqual([("echo", "x")], seen)

    def test_programs_with_and_without_limits_raise_the_same_errors(
            self) -> None:
        said = []
        for limits in (Limits(), Limits(cpu_time=60)):
            with self.assertRaises(exception.CommandFailed) as caught:
                execute.run("ls", "/nowhere", limits=limits)
            said.append((str(caught.exception),
                         caught.exception.facts["exit_code"]))
            self.assertRaises(exception.CommandNotFound, execute.run,
                              "no-such-program", limits=limits)
            self.assertEqual("1 2\n", execute.run(
                "sh", "-c", "echo 1 2; exit 3", limits=limits,
                exit_codes=(0, 3)))
        self.assertEqual(said[0], said[1])

    def test_a_program_does_not_read_the_input_of_the_agent(self) -> None:
        self.assertEqual("", execute.run("cat"))
