# SPDX-License-Identifier: Apache-2.0
"""The sandbox of Landlock and seccomp, and the choice of a sandbox."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import struct
from unittest import mock

from imagecache import exception
from imagecache.model import Limits, Sandbox
from imagecache.system import execute
from imagecache.system.sandbox import bubblewrap, kernel, landlock, seccomp
from imagecache.tests import sandboxed


class LandlockTest(sandboxed.Promises, sandboxed.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.assertTrue(landlock.version(), "this kernel has no Landlock")

    def test_landlock_starts_no_other_program(self):
        self.assertEqual([str(os.getpid())], self.attempt("os.getppid()"))

    def test_landlock_denies_listing_directories(self):
        self.refuses("os.listdir('/')", "os.listdir('/etc')",
                     f"os.listdir({str(self.root)!r})", reads=[self.canary])

    def test_seccomp_denies_every_kind_of_socket(self):
        self.refuses("socket.socket(socket.AF_UNIX)", "socket.socket()",
                     "socket.socket(socket.AF_NETLINK)",
                     "socket.socket(socket.AF_VSOCK)")

    def test_seccomp_denies_changes_of_mode_owner_times_and_attributes(self):
        path = str(self.canary)
        self.refuses(f"os.chmod({path!r}, 0o777)", f"os.utime({path!r})",
                     f"os.chown({path!r}, -1, -1)",
                     f"os.setxattr({path!r}, 'user.x', b'y')",
                     f"os.chmod(os.open({path!r}, os.O_RDWR), 0o777)",
                     writes=[self.canary])

    def test_system_calls_by_number_are_denied(self):
        self.assertIsNotNone(seccomp.program(), "not known on this machine")
        # io_uring_setup, fchmodat2, and socket by x32's numbers
        self.assertEqual(["EPERM"] * 3, self.attempt(
            "refusal('syscall', 425, 1, 0)",
            "refusal('syscall', 452, -1, 0, 0, 0)",
            "refusal('syscall', 0x40000000 | 41, 1, 1, 0)"))

    def test_a_program_cannot_act_on_another_process(self):
        """The oldest version of Landlock and this kernel's."""
        me = os.getpid()
        for version in (1, landlock.version()):
            with mock.patch.object(landlock, "version", return_value=version):
                self.refuses(
                    f"os.kill({me}, 0)", f"call('tgkill', {me}, {me}, 0)",
                    f"signal.pidfd_send_signal(os.pidfd_open({me}), 0)",
                    f"resource.prlimit({me}, resource.RLIMIT_CORE)",
                    f"os.setpriority(os.PRIO_PROCESS, {me}, 0)",
                    f"os.sched_setaffinity({me}, {{0}})",
                    f"open('/proc/{me}/environ').read()",
                    f"call('ptrace', 16, {me}, 0, 0)")

    def test_a_program_may_abort_and_read_its_limits(self):
        self.allows("resource.getrlimit(resource.RLIMIT_CPU)")
        with self.assertRaises(exception.CommandFailed) as caught:
            self.attempt("os.abort()")
        self.assertEqual(-signal.SIGABRT,
                         caught.exception.facts["exit_code"])

    def test_open_files_are_closed_by_every_build_of_python(self):
        """A build without close_range(2) would leave some open."""
        with mock.patch.object(kernel, "close_on_exec",
                               wraps=kernel.close_on_exec) as asked:
            self.attempt("1")
        asked.assert_called_once_with()

    def test_a_program_executes_no_other_program(self):
        script = self.file("script", "#!/bin/sh\n")
        script.chmod(0o755)
        self.refuses(f"os.execv({str(script)!r}, ['x'])",
                     "os.execv('/bin/sh', ['sh'])", reads=[script])

    def test_every_version_of_landlock_confines_files(self):
        """All versions up to the one of this kernel."""
        for version in range(1, landlock.version() + 1):
            with self.subTest(version), mock.patch.object(
                    landlock, "version", return_value=version):
                self.test_a_program_reads_only_the_files_of_its_call()
                self.test_a_program_changes_no_other_file()
                self.test_a_program_can_read_and_truncate_a_file_that_it_may_write()
                self.test_a_program_creates_no_file()

    def test_landlock_alone_leaves_no_network(self):
        """This machine's system calls are not known to the filter."""
        with mock.patch.object(seccomp, "program", return_value=None), \
                mock.patch.object(bubblewrap, "works", return_value=False):
            net = self.listener(sandboxed.socket.AF_INET, ("127.0.0.1", 0))
            self.refuses(
                f"socket.create_connection({net.getsockname()!r})",
                limits=dataclasses.replace(self.limits,
                                           sandbox=Sandbox.AVAILABLE))


class KernelTest(sandboxed.TestCase):

    def in_child(self, function) -> None:
        """Run a function in a child process; fail unless it returns true."""
        child = os.fork()
        if not child:
            try:
                os._exit(0 if function() else 1)
            finally:
                os._exit(2)
        self.assertEqual((child, 0), os.waitpid(child, 0))

    def test_exec_closes_every_file_except_three(self):
        """This does not depend on Python; see kernel.close_on_exec."""
        with self.canary.open() as f:
            number = os.dup2(f.fileno(), 700, inheritable=True)
        self.addCleanup(os.close, number)

        def work() -> bool:
            kernel.close_on_exec()()
            return not os.get_inheritable(number) and all(
                os.get_inheritable(each) for each in (0, 1, 2))

        self.in_child(work)

    def test_a_parent_that_died_before_the_call_is_an_error(self):
        def work() -> bool:
            kernel.die_with(os.getppid(), 9)()
            try:
                kernel.die_with(os.getpid(), 9)()
            except ProcessLookupError:
                return True
            return False

        self.in_child(work)

    def test_a_system_call_that_fails_raises_its_error(self):
        with self.assertRaises(OSError) as caught:
            kernel.prepare("prctl", 9999, 0, 0, 0, 0)()
        self.assertEqual(errno.EINVAL, caught.exception.errno)


class SeccompTest(sandboxed.TestCase):

    ALLOW, DENY, ABSENT, KILL = 0x7fff0000, 0x50001, 0x50026, 0x80000000

    def judge(self, program: bytes, machine: int, call: int,
              arguments: tuple[int, int] = (4242, 4242)) -> int:
        """Interpret a filter like the kernel, and return its verdict."""
        code = list(struct.iter_unpack("=HBBI", program))
        first = seccomp._ARGUMENTS
        data = {0: call, 4: machine, first: arguments[0],
                first + 8: arguments[1]}
        accumulator = at = 0
        while True:
            operation, yes, no, value = code[at]
            at += 1
            match operation:
                case 0x20:
                    accumulator = data[value]
                case 0x05:
                    at += value
                case 0x15:
                    at += yes if accumulator == value else no
                case 0x35:
                    at += yes if accumulator >= value else no
                case 0x45:
                    at += yes if accumulator & value else no
                case 0x06:
                    return value

    def test_each_machine_denies_its_calls_and_allows_all_others(self):
        for name, machine in seccomp._MACHINES.items():
            special = {machine.clone, 435}
            for others in (True, False):
                program = seccomp.denying(machine, others=others)
                denied = set(machine.denied + machine.own * others)
                for call in set(range(512)) - special:
                    with self.subTest(name, call=call, others=others):
                        self.assertEqual(
                            self.DENY if call in denied else self.ALLOW,
                            self.judge(program, machine.audit, call))
                for call in range(512):
                    with self.subTest(name, call=call, others=others):
                        self.assertEqual(self.KILL, self.judge(
                            program, machine.audit ^ 1, call))
                        self.assertEqual(self.DENY, self.judge(
                            program, machine.audit, 1 << 30 | call))

    def test_each_machine_starts_threads_and_no_processes(self):
        # SIGCHLD, as of fork(), and the flags of a thread of glibc's
        fork, thread = 0x11, 0x3d0f00
        for name, machine in seccomp._MACHINES.items():
            program = seccomp.denying(machine)
            for flags, expected in ((fork, self.DENY), (thread, self.ALLOW)):
                found = [thread, thread]
                found[machine.flags] = flags
                with self.subTest(name, flags=flags):
                    self.assertEqual(expected, self.judge(
                        program, machine.audit, machine.clone, tuple(found)))
            self.assertEqual(self.ABSENT, self.judge(
                program, machine.audit, 435))

    def test_no_machine_lets_a_program_survive_the_agent(self):
        for machine in seccomp._MACHINES.values():
            program = seccomp.denying(machine)
            for option, expected in ((1, self.DENY), (15, self.ALLOW)):
                self.assertEqual(expected, self.judge(
                    program, machine.audit, machine.prctl, (option, 0)))

    def test_a_process_may_name_itself_in_calls_about_processes(self):
        for machine in seccomp._MACHINES.values():
            program = bytearray(seccomp.denying(machine))
            struct.pack_into("=I", program, len(program) + seccomp.PROCESS,
                             7)
            for call in machine.own:
                for process in (0, 7):
                    self.assertEqual(self.ALLOW, self.judge(
                        bytes(program), machine.audit, call, (process, 0)))
                self.assertEqual(self.DENY, self.judge(
                    bytes(program), machine.audit, call, (8, 0)))


class VersionsTest(sandboxed.TestCase):

    def test_every_right_of_a_version_of_landlock_is_denied(self):
        for version, expected in {
                1: (0x1fff, 0, 0), 2: (0x3fff, 0, 0), 3: (0x7fff, 0, 0),
                4: (0x7fff, 3, 0), 5: (0xffff, 3, 0), 6: (0xffff, 3, 3),
                7: (0xffff, 3, 3), 99: (0xffff, 3, 3)}.items():
            self.assertEqual(expected, landlock.handled(version), version)


class ChoiceTest(sandboxed.TestCase):

    def run_in(self, mode: Sandbox) -> str:
        return execute.run("cat", str(self.canary), limits=dataclasses.replace(
            self.limits, sandbox=mode))

    def without_landlock(self) -> None:
        patch = mock.patch.object(landlock, "version", return_value=0)
        patch.start()
        self.addCleanup(patch.stop)

    def without_bubblewrap(self) -> None:
        patch = mock.patch.object(bubblewrap, "works", return_value=False)
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_required_or_available_sandbox_confines_the_program(self):
        for mode in (Sandbox.REQUIRED, Sandbox.AVAILABLE):
            self.assertRaises(exception.CommandFailed, self.run_in, mode)

    def test_a_program_without_a_sandbox_reads_every_file(self):
        self.assertEqual(sandboxed.TOKEN, self.run_in(Sandbox.NEVER))

    def test_a_required_sandbox_on_a_host_without_one_names_what_is_missing(
            self):
        self.without_landlock()
        self.without_bubblewrap()
        with self.assertRaises(exception.InvalidConfiguration) as caught:
            self.run_in(Sandbox.REQUIRED)
        for word in ("[image_cache] sandbox", "CONFIG_SECURITY_LANDLOCK",
                     "bubblewrap"):
            self.assertIn(word, str(caught.exception))

    def test_an_optional_sandbox_on_a_host_without_one_is_a_warning(self):
        self.without_landlock()
        self.without_bubblewrap()
        with self.assertLogs("imagecache.system.sandbox", "WARNING"):
            self.assertEqual(sandboxed.TOKEN, self.run_in(Sandbox.AVAILABLE))

    def test_landlock_without_seccomp_is_no_required_sandbox(
            self):
        self.without_bubblewrap()
        with mock.patch.object(seccomp, "program", return_value=None):
            with self.assertRaises(exception.InvalidConfiguration) as caught:
                self.run_in(Sandbox.REQUIRED)
            self.assertIn(os.uname().machine, str(caught.exception))
            with self.assertLogs("imagecache.system.sandbox",
                                 "WARNING") as logs:
                self.assertRaises(exception.CommandFailed, self.run_in,
                                  Sandbox.AVAILABLE)
        self.assertIn("bubblewrap", logs.records[0].getMessage())

    def test_a_program_that_reads_no_tenant_data_has_no_sandbox(self):
        self.without_landlock()
        self.without_bubblewrap()
        with self.assertNoLogs("imagecache.system.sandbox"):
            self.assertEqual("x\n", execute.run("echo", "x", limits=Limits(
                file_size=1)))

    def test_the_choice_of_a_sandbox_is_logged_once(self):
        with self.assertLogs("imagecache.system.sandbox", "INFO") as logs:
            for _ in range(2):
                self.assertRaises(exception.CommandFailed, self.run_in,
                                  Sandbox.REQUIRED)
        self.assertEqual(1, len(logs.records))
        self.assertIn("Landlock", logs.records[0].getMessage())

    def test_a_missing_program_is_named(self):
        with self.assertRaises(exception.CommandNotFound) as caught:
            execute.run("no-such-program", limits=self.limits)
        self.assertEqual("no-such-program",
                         caught.exception.facts["command"])

    def test_a_program_that_cannot_be_confined_is_not_started(self):
        note = self.root / "note"
        with mock.patch.object(
                landlock.kernel, "drop_capabilities",
                return_value=lambda: 1 / 0), \
                self.assertRaises(exception.CommandFailed) as caught:
            execute.run("touch", str(note), limits=self.limits)
        self.assertIn("not started", str(caught.exception))
        self.assertFalse(note.exists())

    def test_bubblewrap_that_is_not_installed_does_not_work(self):
        self.assertFalse(bubblewrap.works(str(self.root)))
