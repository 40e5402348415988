# SPDX-License-Identifier: Apache-2.0
"""The promises of every sandbox, tested by a program that tries to escape."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
import resource
import signal
import socket
import sys

import fixtures

from imagecache import exception
from imagecache.model import Limits, Sandbox
from imagecache.system import execute, sandbox
from imagecache.system.sandbox import bubblewrap
from imagecache.tests import base, processes

REQUIRED = Limits(wall_clock=60, sandbox=Sandbox.REQUIRED)

TOKEN = "only the host may know this"

# The numbers of clone and clone3, by machine.
NUMBERS = {"x86_64": (56, 435), "aarch64": (220, 435), "riscv64": (220, 435),
           "ppc64le": (120, 435), "s390x": (120, 435)}

PREFACE = """
import ctypes, errno, fcntl, json, os, resource, signal, socket, sys
import threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = getattr(libc, name)(*map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
def refusal(name, *arguments):
    try:
        call(name, *arguments)
    except OSError as e:
        return errno.errorcode[e.errno]
def start_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
def detach(path):
    output = open(path, 'r+')
    fcntl.flock(output, fcntl.LOCK_EX)
    if os.fork() == 0:
        try:
            os.setsid()
            os.closerange(0, 3)
            time.sleep(60)
            output.write('changed')
        finally:
            os._exit(0)
def detach_and_wait(path):
    try:
        detach(path)
    finally:
        signal.pause()
def attempt(line):
    try:
        return str(eval(line))
    except (OSError, ValueError):
        return "no"
"""


class TestCase(base.TestCase):

    limits = REQUIRED

    def setUp(self) -> None:
        super().setUp()
        self.canary = self.file("canary", TOKEN)
        for each in (sandbox._say, bubblewrap.works):
            each.cache_clear()
            self.addCleanup(each.cache_clear)

    def file(self, name: str, content: str) -> pathlib.Path:
        path = self.root / name
        path.write_text(content)
        return path

    def attempt(self, *lines: str, reads=(), writes=(), secret=None,
                limits=None) -> list[str]:
        """Run lines of Python in the sandbox, and return their results.

        The result of a line that failed is "no".
        """
        return json.loads(execute.run(
            *self.probe(*lines), limits=limits or self.limits,
            reads=reads, writes=writes, secret=secret))

    def probe(self, *lines: str) -> list[str]:
        # The real path of Python, because its libraries are beside it.
        return [os.path.realpath(sys.executable), "-I", "-S", "-c",
                f"{PREFACE}\nprint(json.dumps([attempt(line) for line in"
                f" {list(lines)!r}]))"]

    def refuses(self, *lines: str, **files) -> None:
        self.assertEqual(dict.fromkeys(lines, "no"), dict(
            zip(lines, self.attempt(*lines, **files), strict=True)))

    def allows(self, *lines: str, **files) -> None:
        for line, result in zip(lines, self.attempt(*lines, **files),
                                strict=True):
            self.assertNotEqual("no", result, line)

    def assert_no_process_has_open(self, path: pathlib.Path) -> None:
        """Fail if a process has a file open that detach() has locked."""
        with path.open() as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self.assertEqual("", path.read_text())


class Promises:
    """The promises of Landlock with seccomp, and of bubblewrap."""

    def test_a_program_reads_only_the_files_of_its_call(self):
        given = self.file("given", "something")
        self.assertEqual(
            ["something", "no", "no"],
            self.attempt(f"open({str(given)!r}).read()",
                         f"open({str(self.canary)!r}).read()",
                         "open('/etc/passwd').read()", reads=[given]))

    def test_a_program_lists_no_directory_of_the_host(self):
        given = self.file("given", "something")
        found = self.attempt(f"os.listdir({str(self.root)!r})",
                             "os.listdir('/etc')", "os.listdir('/proc')",
                             reads=[given])
        for name in ("canary", "passwd", "self"):
            self.assertNotIn(name, str(found))

    def test_a_program_cannot_change_a_file_that_it_may_read(self):
        path = str(self.canary)
        self.refuses(f"open({path!r}, 'r+')", f"open({path!r}, 'w')",
                     f"os.truncate({path!r}, 0)", reads=[self.canary])
        self.assertEqual(TOKEN, self.canary.read_text())

    def test_a_program_can_read_and_truncate_a_file_that_it_may_write(self):
        given = self.file("given", "something")
        path = str(given)
        self.assertEqual(["something", "7", "3"], self.attempt(
            f"open({path!r}).read()", f"open({path!r}, 'w').write('another')",
            f"open({path!r}, 'r+').truncate(3)", writes=[given]))
        self.assertEqual("ano", given.read_text())

    def test_a_program_changes_no_other_file(self):
        given, path = self.file("given", ""), str(self.canary)
        new = str(self.root / "new")
        self.refuses(
            f"open({path!r}, 'r+')", f"open({path!r}, 'a')",
            f"os.truncate({path!r}, 0)", f"os.unlink({path!r})",
            f"os.rename({path!r}, {new!r})", f"os.link({path!r}, {new!r})",
            f"os.rename({str(given)!r}, {path!r})", f"os.chmod({path!r}, 0)",
            f"os.chown({path!r}, 1, 1)", f"os.utime({path!r})",
            f"os.setxattr({path!r}, 'user.x', b'y')", writes=[given])
        self.assertEqual(TOKEN, self.canary.read_text())

    def test_a_program_creates_no_file(self):
        before = list(self.root.iterdir())
        new = str(self.root / "new")
        self.refuses(f"open({new!r}, 'x')", f"os.mkdir({new!r})",
                     f"os.symlink('x', {new!r})", f"os.mkfifo({new!r})",
                     writes=[self.canary])
        self.assertEqual(before, list(self.root.iterdir()))

    def test_a_program_opens_files_with_odd_names(self):
        for name in ("a b", "a:b", "nbd:a,b=c", "json:{}", "-x", "a\nb",
                     "ä€", "%s", "#"):
            given = self.file(name, name)
            self.allows(f"open({str(given)!r}, 'r+').read()", writes=[given])

    def test_a_program_follows_a_symbolic_link_to_its_file(self):
        link = self.root / "link"
        link.symlink_to(self.canary)
        self.assertEqual([TOKEN], self.attempt(
            f"open({str(link)!r}).read()", reads=[link]))

    def test_a_relative_path_names_a_file_in_the_directory_of_the_agent(self):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.root)
        self.assertEqual([TOKEN], self.attempt(
            f"open({str(self.canary)!r}).read()",
            reads=[pathlib.Path("canary")]))

    def test_a_program_can_open_the_files_that_every_program_needs(self):
        self.allows("open('/etc/ld.so.cache', 'rb').read()",
                    "open('/dev/null', 'r+b', 0).write(b'x')",
                    "open('/dev/urandom', 'rb').read(1)")

    def test_a_program_can_open_its_secret_as_a_file(self):
        for limits in (None, dataclasses.replace(self.limits, file_size=0)):
            self.assertEqual(["a secret"], self.attempt(
                "open('/dev/stdin').read()", secret=b"a secret",
                limits=limits))

    def test_a_missing_file_does_not_keep_a_program_from_starting(self):
        gone = self.root / "gone"
        self.refuses(f"open({str(gone)!r})", reads=[gone], writes=[gone])

    def test_a_program_reaches_no_socket(self):
        path = str(self.root / "socket")
        local = self.listener(socket.AF_UNIX, path)
        net = self.listener(socket.AF_INET, ("127.0.0.1", 0))
        datagrams = self.listener(socket.AF_INET, ("127.0.0.1", 0),
                                  socket.SOCK_DGRAM)
        # In a network namespace, sending may succeed and reach no socket.
        self.attempt(
            f"socket.create_connection({net.getsockname()!r})",
            "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x',"
            f" {datagrams.getsockname()!r})",
            f"socket.socket(socket.AF_UNIX).connect({path!r})")
        for each in (local, net):
            self.assertRaises(BlockingIOError, each.accept)
        self.assertRaises(BlockingIOError, datagrams.recv, 1)

    def listener(self, family, address, kind=socket.SOCK_STREAM):
        found = socket.socket(family, kind)
        self.addCleanup(found.close)
        found.bind(address)
        if kind == socket.SOCK_STREAM:
            found.listen()
        found.setblocking(False)
        return found

    def test_a_program_sends_no_signals_to_the_agent(self):
        # In a PID namespace, this process does not exist.
        self.refuses(f"os.kill({os.getpid()}, 0)")

    def test_a_program_cannot_raise_its_limits(self):
        limits = dataclasses.replace(self.limits, file_size=1)
        self.refuses("resource.setrlimit(resource.RLIMIT_FSIZE, (2, 2))",
                     "resource.setrlimit(resource.RLIMIT_NOFILE,"
                     " (4096, 4096))", limits=limits)

    def test_a_program_gains_no_privileges(self):
        self.assertEqual(["1"], self.attempt("call('prctl', 39, 0, 0, 0, 0)"))

    def test_a_program_inherits_no_open_file(self):
        high = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1
        with self.canary.open() as f:
            for number in (100, high):
                os.dup2(f.fileno(), number, inheritable=True)
                self.addCleanup(os.close, number)
        self.refuses("os.fstat(100)", f"os.fstat({high})")

    def test_a_program_leaves_no_core_file(self):
        self.assertEqual(["(0, 0)"], self.attempt(
            "resource.getrlimit(resource.RLIMIT_CORE)"))

    def test_no_process_outlives_a_program_that_ends(self):
        output = self.file("output", "")
        self.attempt(f"detach({str(output)!r})", writes=[output])
        self.assert_no_process_has_open(output)

    def test_no_process_outlives_a_program_that_is_too_slow(self):
        output = self.file("output", "")
        with self.assertRaises(exception.CommandTimedOut):
            self.attempt(
                f"detach_and_wait({str(output)!r})", writes=[output],
                limits=dataclasses.replace(self.limits, wall_clock=1))
        self.assert_no_process_has_open(output)

    def test_a_program_starts_threads_and_no_processes(self):
        self.allows("start_thread()")
        self.refuses("os.posix_spawn('/proc/self/exe', ['x'], {})",
                     "os.forkpty()")
        clone, clone3 = NUMBERS[os.uname().machine]
        self.assertEqual(["EPERM", "EPERM", "ENOSYS"], self.attempt(
            "refusal('fork')", f"refusal('syscall', {clone}, 17, 0, 0, 0, 0)",
            f"refusal('syscall', {clone3}, 0, 0)"))

    def test_a_program_makes_no_namespaces(self):
        new_user = 0x10000000
        self.assertEqual(["EPERM"] * 2, self.attempt(
            f"refusal('unshare', {new_user})", "refusal('setns', 0, 0)"))

    def test_a_program_makes_no_memory_or_queues_that_outlive_it(self):
        self.assertEqual(["EPERM"] * 4, self.attempt(
            "refusal('shmget', 0, 4096, 0o1600)",
            "refusal('semget', 0, 1, 0o1600)", "refusal('msgget', 0, 0o1600)",
            "refusal('memfd_create', ctypes.addressof("
            "ctypes.create_string_buffer(b'x')), 0)"))

    def test_a_program_cannot_choose_to_survive_the_agent(self):
        self.assertEqual(["EPERM"], self.attempt(
            "refusal('prctl', 1, 0, 0, 0, 0)"))

    def test_the_environment_of_the_agent_stays_with_the_agent(self):
        self.useFixture(fixtures.EnvironmentVariable(
            "OS_PASSWORD", "a password"))
        [found] = self.attempt("dict(os.environ)")
        self.assertNotIn("a password", found)
        self.assertIn("'LC_ALL': 'C'", found)

    def test_a_sandboxed_program_dies_with_the_agent(self):
        note = self.file("note", "")
        parent = os.fork()
        if not parent:
            try:
                self.attempt(f"open({str(note)!r}, 'w').write('x')",
                             "signal.pause()", writes=[note])
            finally:
                os._exit(1)
        processes.wait_for(note.read_text)
        family = list(processes.below(parent))
        self.assertTrue(family)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        processes.wait_for(lambda: not any(map(processes.is_alive, family)))
