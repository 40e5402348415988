# SPDX-License-Identifier: Apache-2.0
"""What runs the tests tells which of them failed, and why."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

from imagecache.tests import base

IT = "imagecache.tests.functional.test_it.It"
FAILED = "which counts as a failure"
RUN_TESTS = pathlib.Path(__file__).parents[3] / "tools/run_tests.py"


class RunTestsTest(base.TestCase):

    def run_tests(self, content: str) -> subprocess.CompletedProcess[str]:
        """Run a suite of this one module, in one process."""
        suite = self.root / "imagecache/tests/functional"
        suite.mkdir(parents=True)
        for package in (suite, *suite.parents[:2]):
            (package / "__init__.py").touch()
        (suite / "test_it.py").write_text(
            "import os, unittest\nclass It(unittest.TestCase):\n"
            + textwrap.indent(textwrap.dedent(content), " "))
        return subprocess.run(
            [sys.executable, RUN_TESTS, "functional", "--"],
            cwd=self.root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    def assert_ends(self, code: int, *lines: str, content: str) -> None:
        run = self.run_tests(content)
        self.assertEqual(code, run.returncode, run.stdout)
        end = run.stdout.rpartition("Totals\n")[2].splitlines()
        for line in lines:
            self.assertIn(line, end)
        self.assertEqual(lines[-1], end[-1])

    def test_what_passed_is_counted(self) -> None:
        self.assert_ends(0, "2 passed, 0 failed", content="""
            def test_a(self): pass
            def test_b(self): pass
        """)

    def test_why_a_test_failed_is_told_at_the_end(self) -> None:
        self.assert_ends(
            1, f"{IT}.test_b: fail, {FAILED}", "ValueError: this is why",
            "1 passed, 1 failed",
            content="""
                def test_a(self): pass
                def test_b(self): raise ValueError("this is why")
            """)

    def test_part_of_a_test_that_failed_fails_it(self) -> None:
        self.assert_ends(1, "AssertionError: 0 != 1", "0 passed, 1 failed",
                         content="""
            def test_a(self):
                for number in (0, 1):
                    with self.subTest(number):
                        self.assertEqual(number, 1)
        """)

    def test_skipped_test_has_failed(self) -> None:
        self.assert_ends(
            1, f"{IT}.test_a: skip, {FAILED}", "not today",
            "0 passed, 1 failed", content="""
                @unittest.skip("not today")
                def test_a(self): pass
            """)

    def test_test_that_is_never_heard_of_has_failed(self) -> None:
        self.assert_ends(
            1, f"{IT}.test_b: never reported, {FAILED}",
            "0 passed, 2 failed", content="""
                def test_a(self): os._exit(0)
                def test_b(self): pass
            """)

    def test_modules_that_cannot_be_read_have_failed(self) -> None:
        run = self.run_tests("def test_a(self) pass")
        self.assertEqual(1, run.returncode)
        self.assertIn("SyntaxError", run.stdout)
        self.assertTrue(run.stdout.endswith("0 passed, 1 failed\n"))
