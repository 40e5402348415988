# SPDX-License-Identifier: Apache-2.0
"""The fixture of the tests that run the command ``imagecache``."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import pathlib
import sys
from typing import Any

import fixtures

from imagecache.cmd import main
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base


@dataclasses.dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal(io.StringIO):

    def isatty(self) -> bool:
        return True


class _OwnLogging(fixtures.Fixture):
    """Restores the logging, which the command sets up for the process."""

    def _setUp(self) -> None:
        for name in ("", "stevedore"):
            logger = logging.getLogger(name)
            self.addCleanup(logger.setLevel, logger.level)
        root = logging.getLogger()
        self.addCleanup(setattr, root, "handlers", root.handlers)
        root.handlers = []
        self.addCleanup(_close_handlers)


def _close_handlers() -> None:
    for handler in logging.getLogger().handlers:
        handler.close()


class CommandTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        # The imagecache.conf of a developer must not change a test.
        self.useFixture(fixtures.EnvironmentVariable("HOME", str(self.root)))
        self.useFixture(_OwnLogging())
        self.instances = self.root / "instances"
        self.stderr: type[io.StringIO] = io.StringIO

    def run_command(self, *argv: object) -> Done:
        """Run the command with a directory of instances for this test."""
        return self.run_command_as_is("--instances-path", self.instances,
                                      *argv)

    def run_command_as_is(self, *argv: object) -> Done:
        """Run the command within this process, with these options only."""
        out, err = io.StringIO(), self.stderr()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _code_of([str(each) for each in argv])
        return Done(code, out.getvalue(), err.getvalue())

    def succeed(self, *argv: object) -> Done:
        done = self.run_command(*argv)
        self.assertEqual(0, done.code, done.err)
        return done

    def fails(self, code: int, *argv: object) -> str:
        """Run a command that must fail; return its one line of errors."""
        done = self.run_command(*argv)
        self.assertEqual(code, done.code, done)
        self.assertEqual("", done.out)
        self.assertEqual(1, done.err.count("\n"), done.err)
        self.assertTrue(done.err.startswith("imagecache: error: "), done.err)
        return done.err

    def image(self, name: str = "image.raw", size: int = MiB) -> pathlib.Path:
        """Make an image in a file: qcow2 if the name says so, or raw."""
        data = images.content(size)
        if name.endswith(".qcow2"):
            data = images.qcow2(data)
        path = self.root / name
        path.write_bytes(data)
        return path


def _code_of(argv: list[str]) -> int:
    try:
        return main.main(argv)
    except SystemExit as e:
        return int(e.code or 0)
    finally:
        sys.stdout.flush()
