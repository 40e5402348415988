# SPDX-License-Identifier: Apache-2.0
"""Runs tests against a copy of the package without a defence."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Self

from imagecache.tests.mutation import PACKAGE, Mutation

_LONGEST = 300     # seconds; tests that hang without a defence cover it
_NOT_RUN = re.compile(r"(Import|Syntax|Indentation)Error|_FailedTest")


class Copy:
    """A copy of the package, in a directory of its own."""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory()
        self._top = pathlib.Path(self._directory.name)
        shutil.copytree(PACKAGE, self._top / "imagecache")
        for each in ("doc", "etc", "examples", "hostile_images"):
            if (PACKAGE.parent / each).is_dir():
                (self._top / each).symlink_to(PACKAGE.parent / each)
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def failure(self, tests: tuple[str, ...]) -> str | None:
        """Return the output of tests if one of them fails.

        :param tests: modules of imagecache.tests
        :raises RuntimeError: the tests could not be run
        """
        modules = [f"imagecache.tests.{each}" for each in tests]
        try:
            found = subprocess.run(
                [sys.executable, "-m", "unittest", "--failfast", *modules],
                cwd=self._top, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=_LONGEST, check=False,
                env=os.environ | {"PYTHONPATH": str(self._top)})
        except subprocess.TimeoutExpired:
            return "the tests do not end"
        if _NOT_RUN.search(found.stdout) or "\nRan " not in found.stdout:
            raise RuntimeError(f"the tests did not run:\n{found.stdout}")
        return found.stdout if found.returncode else None

    @contextlib.contextmanager
    def without(self, mutation: Mutation) -> Iterator[None]:
        """Remove a defence until the block ends."""
        path = self._top / "imagecache" / mutation.module
        before = path.read_text()
        try:
            self._write(path, mutation.source)
            yield
        finally:
            self._write(path, before)

    def _write(self, path: pathlib.Path, source: str) -> None:
        path.write_text(source)
        # Python compares time in seconds and size: both may be equal.
        for each in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            each.unlink()
