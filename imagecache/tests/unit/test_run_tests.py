# SPDX-License-Identifier: Apache-2.0
"""The runner of the tests says which tests failed, and why."""

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

    def run_tests(self, content: str, *options: str, others: str = "",
                  ) -> subprocess.CompletedProcess[str]:
        """Run a suite of one module.

        :param content: of its class It
        :param others: what is in the module after that
        """
        suite = self.root / "imagecache/tests/functional"
        suite.mkdir(parents=True)
        for package in (suite, *suite.parents[:2]):
            (package / "__init__.py").touch()
        (suite / "test_it.py").write_text(
            "import os, subprocess, time, unittest\n"
            "class It(unittest.TestCase):\n"
            + textwrap.indent(textwrap.dedent(content), " ")
            + textwrap.dedent(others))
        return subprocess.run(
            [sys.executable, RUN_TESTS, *options, "functional", "--"],
            cwd=self.root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    def assert_ends(self, code: int, *lines: str, content: str) -> None:
        run = self.run_tests(content)
        self.assertEqual(code, run.returncode, run.stdout)
        end = run.stdout.rpartition("The slowest")[2].splitlines()
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

    def test_every_part_of_a_test_that_failed_is_told(self) -> None:
        self.assert_ends(1, "AssertionError: 5 != 1", "AssertionError: 6 != 1",
                         "0 passed, 1 failed", content="""
            def test_a(self):
                for number in (1, 5, 6):
                    with self.subTest(number):
                        self.assertEqual(number, 1)
        """)

    def test_a_test_that_ends_its_process_fails_alone(self) -> None:
        self.assert_ends(
            1, f"{IT}.test_b: fail, {FAILED}",
            "Its process ended with 7.  The limit of a test is 900 seconds.",
            "2 passed, 1 failed", content="""
                def test_a(self): pass
                def test_b(self): os._exit(7)
                def test_c(self): pass
            """)

    def test_what_hangs_fails_alone_with_a_stack(self) -> None:
        run = self.run_tests("""
            def test_a(self): pass
            def test_b(self): time.sleep(1000)
            def test_c(self): pass
            def test_d(self): pass
        """, "--limit", "2", others="""
            class Other(unittest.TestCase):
                @classmethod
                def setUpClass(cls): time.sleep(1000)
                def test_a(self): pass
                def test_b(self): pass
        """)
        other = f"{IT.rpartition('.')[0]}.Other"
        for test, function in ((f"{IT}.test_b", "test_b"),
                               (f"{other}.test_a", "setUpClass"),
                               (f"{other}.test_b", "setUpClass")):
            reason = run.stdout.partition(f"\n{test}: fail, {FAILED}\n")[2]
            stack = reason.partition("\n\n")[0]
            self.assertIn(f" in {function}\n", stack)
        self.assertEqual("3 passed, 3 failed", run.stdout.splitlines()[-1])

    def test_a_class_whose_set_up_fails_has_failed(self) -> None:
        self.assert_ends(
            1, "ValueError: this is why",
            f"{IT}.test_a: never reported, {FAILED}", "0 passed, 2 failed",
            content="""
                @classmethod
                def setUpClass(cls): raise ValueError("this is why")
                def test_a(self): pass
            """)

    def test_what_a_test_prints_is_told_if_it_fails(self) -> None:
        run = self.run_tests("""
            def test_a(self): subprocess.run(["echo", "printed by a"])
            def test_b(self):
                subprocess.run(["echo", "printed by b"])
                self.fail()
        """)
        self.assertNotIn("printed by a", run.stdout)
        self.assertEqual(1, run.stdout.count("\nprinted by b\n"))

    def test_a_child_of_a_test_runs_no_other_test(self) -> None:
        self.assert_ends(0, "2 passed, 0 failed", content="""
            def test_a(self):
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
                else:
                    raise ValueError("in the child")
            def test_b(self): pass
        """)

    def test_modules_that_cannot_be_read_have_failed(self) -> None:
        run = self.run_tests("def test_a(self) pass")
        self.assertEqual(1, run.returncode)
        self.assertIn("SyntaxError", run.stdout)
        self.assertTrue(run.stdout.endswith("0 passed, 1 failed\n"))
