# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.metadata
import os
import pathlib
import pty
import re
import subprocess
import sys
import termios

import fixtures

from imagecache import exception
from imagecache.cmd import errors
from imagecache.image_cache import ImageCache
from imagecache.model import MiB
from imagecache.testing import images, web
from imagecache.tests.command import CommandTestCase, Terminal

_START = "import sys; from imagecache.cmd.main import main;"


class TestExitCodes(CommandTestCase):

    def test_everything_raised_on_purpose_says_who_must_act(self) -> None:
        kinds = [exception.ImageCacheError]
        for kind in kinds:
            kinds += kind.__subclasses__()
        for kind in kinds[1:]:
            if kind.__module__ == exception.__name__:
                with self.subTest(kind.__name__):
                    self.assertNotEqual(errors.UNEXPECTED,
                                        errors.exit_code(kind("text")))

    def test_help_explains_every_code(self) -> None:
        out = self.succeed("--help").out
        for code in (0, errors.UNEXPECTED, *errors.EXIT_CODES.values()):
            self.assertRegex(out, rf"\n  {code}  ")

    def test_2_the_command_line_is_wrong(self) -> None:
        for argv, words in (
                ([], "a command is missing"),
                (["disk", "show"], "--instance"),
                (["disk", "list", "--nonsense"], "--nonsense"),
                (["disk", "grow", "--instance", "a", "--size", "20Gb"],
                 "'20Gb' is not a size"),
                (["help", "nonsense"], "there is no command 'nonsense'"),
                (["--log-file", "/missing/log", "disk", "list"],
                 "--log-file")):
            with self.subTest(argv):
                done = self.run_command(*argv)
                self.assertEqual((2, ""), (done.code, done.out))
                self.assertIn(words, done.err.splitlines()[-1])

    def test_2_a_command_that_does_not_exist(self) -> None:
        done = self.run_command("dsik", "list")
        self.assertEqual(2, done.code)
        self.assertIn("Did you mean", done.out)

    def test_3_the_image_is_at_fault(self) -> None:
        self.assertIn("/missing could not be found", self.fails(
            3, "disk", "create", "--image", "/missing", "--instance", "a"))

    def test_4_the_image_store_is_at_fault(self) -> None:
        self.assertIn("Connection refused", self.fails(
            4, "disk", "create", "--image", "http://127.0.0.1:1/image",
            "--instance", "a"))

    def test_5_the_host_is_at_fault(self) -> None:
        self.instances = self.root / "file" / "instances"
        self.instances.parent.touch()
        self.assertIn("Not a directory", self.fails(
            5, "disk", "create", "--image", self.image(), "--instance", "a"))

    def test_5_a_program_is_missing(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable("PATH", "/missing"))
        self.assertIn("qemu-img is not installed", self.fails(
            5, "disk", "create", "--blank", "--size", "1MiB",
            "--instance", "a"))

    def test_5_what_the_system_refuses(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.image_cache.ImageCache.bases", _refused))
        self.assertIn("Permission denied: '/secret'",
                      self.fails(5, "base", "list"))

    def test_7_the_call_makes_no_sense(self) -> None:
        self.assertIn("'a/b' cannot be used", self.fails(
            7, "disk", "show", "--instance", "a/b"))

    def test_130_it_was_interrupted(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.image_cache.ImageCache.bases", _interrupted))
        self.assertEqual(130, self.run_command("base", "list").code)


class TestDefects(CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.image_cache.ImageCache.bases", _defective))

    def test_a_defect_is_one_line_and_exit_code_1(self) -> None:
        self.assertEqual(
            "imagecache: error: KeyError: 'lost' (a defect of this program;"
            " --debug prints the traceback)\n", self.fails(1, "base", "list"))

    def test_an_error_of_many_lines_becomes_one(self) -> None:
        self.assertEqual(
            "cp failed with exit code 1: cp: no cp: never",
            errors.explain(exception.CommandFailed(
                command="cp", exit_code=1, stderr="cp: no\n  cp: never")))

    def test_debug_shows_where_errors_of_several_are(self) -> None:
        done = self.run_command("--debug", "base", "fetch", "/missing")
        self.assertEqual(3, done.code)
        self.assertIn("Traceback", done.err)

    def test_debug_shows_where_it_is(self) -> None:
        done = self.run_command("--debug", "base", "list")
        self.assertEqual(1, done.code)
        self.assertIn("Traceback", done.err)
        self.assertIn("in _defective", done.err)


class TestConfiguration(CommandTestCase):

    def configure(self, name: str, text: str) -> pathlib.Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def directory(self, *argv: object) -> str:
        """Return the directory in which the command looks for bases."""
        done = self.run_command_as_is(*argv, "base", "show", "x")
        self.assertEqual(7, done.code, done.err)
        return re.search(r" in (\S+);", done.err)[1]

    def test_without_any_there_are_defaults(self) -> None:
        self.assertEqual("/var/lib/imagecache/instances/_base",
                         self.directory())

    def test_a_file_can_be_named(self) -> None:
        file = self.configure("a.conf", "[DEFAULT]\ninstances_path = /a\n")
        self.assertEqual("/a/_base", self.directory("--config-file", file))

    def test_of_several_files_the_last_has_the_last_word(self) -> None:
        one = self.configure(
            "1.conf", "[DEFAULT]\ninstances_path = /a\n"
            "[image_cache]\nsubdirectory_name = bases\n")
        two = self.configure("2.conf", "[DEFAULT]\ninstances_path = /b\n")
        self.assertEqual("/b/bases", self.directory(
            "--config-file", one, "--config-file", two))

    def test_the_users_own_file_is_found(self) -> None:
        self.configure(".imagecache/imagecache.conf",
                       "[DEFAULT]\ninstances_path = /home\n")
        self.assertEqual("/home/_base", self.directory())

    def test_the_command_line_overrides_the_file(self) -> None:
        file = self.configure("a.conf", "[DEFAULT]\ninstances_path = /a\n")
        self.assertEqual("/b/_base", self.directory(
            "--instances-path", "/b", "--config-file", file))

    def test_an_agents_log_files_are_left_alone(self) -> None:
        log = self.root / "agent.log"
        file = self.configure("a.conf", f"[DEFAULT]\nlog_file = {log}\n"
                                        "debug = true\n")
        self.succeed("--config-file", file, "base", "list")
        self.assertFalse(log.exists())

    def test_6_a_file_that_cannot_be_used(self) -> None:
        for text, words in ((None, "1.conf"), ("nonsense", "1.conf"),
                            ("[image_cache]\ndownload_retries = few\n",
                             "download_retries"),
                            ("[libvirt]\nimages_type = floppy\n", "floppy")):
            with self.subTest(text):
                file = self.root / "1.conf"
                if text is not None:
                    file.write_text(text)
                self.assertIn(words, self.fails(
                    6, "--config-file", file, "disk", "show",
                    "--instance", "a"))


class TestOptions(CommandTestCase):

    def test_an_option_of_a_command_is_no_short_form_of_ours(self) -> None:
        self.succeed("disk", "create", "--blank", "--size", "1MiB",
                     "--instance", "a")
        self.assertTrue((self.instances / "a" / "disk").exists())

    def test_help_after_a_command_is_about_the_command(self) -> None:
        self.assertIn("usage: imagecache disk grow",
                      self.succeed("disk", "grow", "--help").out)

    def test_v_shows_each_step(self) -> None:
        image = self.image("image.qcow2")
        done = self.succeed("-v", "disk", "create", "--image", image,
                            "--instance", "a")
        self.assertEqual(
            ["miss", "download", "verified", "validated", "convert",
             "committed", "created"],
            [line.split()[2] for line in done.err.splitlines()])
        done = self.succeed("disk", "create", "-v", "--image", image,
                            "--instance", "b")
        self.assertEqual(
            ["hit", "created"],
            [line.split()[2] for line in done.err.splitlines()])

    def test_vv_shows_what_the_library_logs(self) -> None:
        done = self.succeed("-vv", "disk", "create", "--instance", "a",
                            "--blank", "--size", "1MiB")
        self.assertIn("imagecache: debug: Running cmd", done.err)

    def test_quiet_leaves_warnings(self) -> None:
        argv = ("-q", "disk", "create", "--instance", "a", "--blank",
                "--size", "1MiB")
        self.assertEqual("", self.succeed(*argv).err)
        self.assertIn("was there already", self.succeed(*argv).err)

    def test_quiet_has_no_bars(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.cmd.console._BAR_DELAY", 0))
        self.stderr = Terminal
        images = [self.image("a.raw"), self.image("b.raw")]
        self.assertIn("%", self.succeed("base", "fetch", images[0]).err)
        self.assertEqual("", self.succeed("-q", "base", "fetch",
                                          images[1]).err)

    def test_a_log_file_has_everything(self) -> None:
        log = self.root / "log"
        self.succeed("--log-file", log, "disk", "create", "--instance", "a",
                     "--blank", "--size", "1MiB")
        self.assertIn("created", log.read_text())

    def test_a_retry_is_a_warning(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.bases.download._FIRST_PAUSE", 0))
        with web.WebServer() as server:
            page = server.add("/image.raw", images.content())
            page.once(cut=1000)
            done = self.succeed("base", "fetch", page.url)
        self.assertRegex(done.err, r"^imagecache: warning: retry: .*; going"
                                   r" on after 1000 bytes\n$")


class TestProcess(CommandTestCase):
    """As a user starts it: the real program in a process of its own."""

    def command(self, *argv: object) -> list[str]:
        program = pathlib.Path(sys.executable).parent / "imagecache"
        return [str(program), "--instances-path", str(self.instances),
                *map(str, argv)]

    def start(self, *argv: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*argv), capture_output=True,
                              text=True)

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code],
                              capture_output=True, text=True)

    def test_it_knows_its_version(self) -> None:
        version = importlib.metadata.version("imagecache")
        self.assertEqual(f"imagecache {version}\n",
                         self.start("--version").stdout)

    def test_a_disk_is_made(self) -> None:
        done = self.start("disk", "create", "--image", self.image(),
                          "--instance", "a", "-f", "value", "-c", "path")
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.assertTrue(pathlib.Path(done.stdout.strip()).exists())

    def test_an_error_ends_the_process_with_its_code(self) -> None:
        done = self.start("disk", "show", "--instance", "a")
        self.assertEqual((7, ""), (done.returncode, done.stdout))
        self.assertEqual(1, done.stderr.count("\n"))

    def test_the_shell_can_complete_it(self) -> None:
        script = self.start("complete").stdout
        done = subprocess.run(["bash", "-c", script + _COMPLETE],
                              capture_output=True, text=True)
        self.assertEqual("create extract grow list remove show",
                         done.stdout.strip(), done.stderr)

    def test_a_reader_that_leaves_is_no_error(self) -> None:
        # What is written at once is lost at once, and handled by cliff.
        self.useFixture(fixtures.EnvironmentVariable("PYTHONUNBUFFERED"))
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(self.command("disk", "list"), stdout=write,
                              stderr=subprocess.PIPE, text=True)
        os.close(write)
        self.assertEqual((141, ""), (done.returncode, done.stderr))

    def test_without_its_extra_it_says_how_to_install_it(self) -> None:
        for name in ("cliff", "tqdm"):
            done = self.python(f"{_START} sys.modules[{name!r}] = None;"
                               " sys.exit(main(['--version']))")
            self.assertEqual((1, ""), (done.returncode, done.stdout))
            self.assertEqual(
                f"imagecache: error: the command needs {name}: pip install"
                " imagecache[cli]\n", done.stderr)

    def test_what_is_not_needed_is_not_loaded(self) -> None:
        done = self.python(
            f"{_START} main(['--instances-path', {str(self.instances)!r},"
            " 'disk', 'create', '--instance', 'a', '--image',"
            f" {str(self.image())!r}]); print('loaded:', *(name for name in"
            " ('glanceclient', 'tqdm', 'cmd2') if name in sys.modules))")
        self.assertIn("| disk", done.stdout)
        self.assertEqual("loaded:", done.stdout.splitlines()[-1])

    def test_bars_are_drawn_on_a_terminal(self) -> None:
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        termios.tcsetwinsize(theirs, (24, 80))
        with web.WebServer() as server:
            page = server.add("/image.raw", images.content(4 * MiB))
            page.always(pause=0.15, piece=MiB)   # too slow to need no bar
            done = subprocess.run(
                self.command("base", "fetch", page.url, "-f", "json"),
                stdout=subprocess.PIPE, stderr=theirs, check=True)
        os.close(theirs)
        self.assertRegex(os.read(ours, 64 * 1024).decode(),
                         r"\rdownload: +[0-9]+%")
        self.assertNotIn(b"%", done.stdout)


_COMPLETE = """
_get_comp_words_by_ref() { cur=""; words=(imagecache disk ""); }
_imagecache
echo "${COMPREPLY[@]}"
"""


def _defective(cache: ImageCache) -> object:
    return {}["lost"]


def _refused(cache: ImageCache) -> object:
    raise PermissionError(13, "Permission denied", "/secret")


def _interrupted(cache: ImageCache) -> object:
    raise KeyboardInterrupt
