# SPDX-License-Identifier: Apache-2.0
"""A fuzzer feeds the parsers for some seconds.

Its inputs are the same each time; those of ``tox -e fuzz`` are random.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

from imagecache.model import GiB
from imagecache.tests import base

FUZZ = pathlib.Path(__file__).resolve().parents[3] / "fuzz"


class FuzzTest(base.TestCase):

    def test_no_input_breaks_a_parser_or_gets_past_it(self) -> None:
        corpus = self.root / "corpus"
        shutil.copytree(FUZZ / "corpus", corpus)
        self._fuzz("formats.py", 100_000, corpus)

    def test_no_input_breaks_or_deceives_the_inspector(self) -> None:
        self._fuzz("inspector.py", 20_000)

    def _fuzz(self, harness: str, runs: int, *corpus: pathlib.Path) -> None:
        # libFuzzer's own limit counts what this process had at its largest.
        done = subprocess.run(
            ["prlimit", f"--as={2 * GiB}", sys.executable, FUZZ / harness,
             f"-runs={runs}", "-seed=1", "-timeout=10", "-rss_limit_mb=0",
             "-max_len=512", *corpus],
            cwd=self.root, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False, timeout=300)
        self.assertEqual(0, done.returncode, done.stdout[-5000:])
        self.assertIn(f"Done {runs} runs", done.stdout)
