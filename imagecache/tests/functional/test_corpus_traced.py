# SPDX-License-Identifier: Apache-2.0
"""No process reaches for what a hostile image names, as strace sees it.

One kind of host gets all samples.  The other kinds get one sample of each
rule, and all that no rule refuses.
"""

from __future__ import annotations

import json
import pathlib
import secrets
import subprocess
import sys

import hostile_images as corpus
from imagecache.tests import base

RUN = pathlib.Path(__file__).with_name("corpus_run.py")


class TracedTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        # A call that names the canary by any path has this in it.
        self.mark = f"canary-{secrets.token_hex(8)}"
        self.canary = self.enterContext(corpus.Canary(self.root / self.mark))
        self.images = self.root / "images"
        self.images.mkdir()

    def test_no_process_reaches_for_the_canary(self) -> None:
        claims = {}
        everywhere = {each.id for each in (*corpus.of_each_rule(),
                                           *corpus.odds())}
        for i, sample in enumerate((*corpus.refused(), *corpus.odds())):
            name = f"{i}-{sample.id}".replace("/", "-")
            (self.images / name).write_bytes(
                sample.build(self.canary.sentinel))
            claims[name] = {"claim": sample.claim,
                            "everywhere": sample.id in everywhere}
        (self.images / "claims.json").write_text(json.dumps(claims))
        self.assertEqual([], self.canary.complaints())
        outcome, reached = self._trace(sys.executable, str(RUN),
                                       str(self.images))
        self.assertEqual([], reached)
        self.assertEqual([], self.canary.complaints())
        found = list(json.loads(outcome).values())
        self.assertEqual([len(claims)] + 3 * [len(everywhere)],
                         [len(each) for each in found])
        accepted = [name for name, what in found[0].items()
                    if what == "accepted"]
        self.assertLess(len(accepted), len(claims) / 5)

    def test_the_trace_shows_programs_that_reach_for_the_canary(self) -> None:
        """Otherwise the first test would pass without reason."""
        _, reached = self._trace("cat", str(self.canary.sentinel.path))
        self.assertNotEqual([], reached)
        _, reached = self._trace(
            sys.executable, "-c", "import socket; socket.create_connection("
            f"('127.0.0.1', {self.canary.sentinel.port}))")
        self.assertNotEqual([], reached)

    def _trace(self, *command: str) -> tuple[str, list[str]]:
        """Return what a program printed, and the odd system calls it made.

        Odd are the calls that name the canary, and the calls that use a
        network.
        """
        log = self.root / "log"
        printed = subprocess.run(
            ["strace", "--follow-forks", "--seccomp-bpf", "--quiet=all",
             "--string-limit=4096", "--trace=%file,connect,sendto,sendmsg",
             "--output", log, *command],
            check=True, text=True, stdout=subprocess.PIPE).stdout
        with log.open(errors="replace") as lines:
            return printed, [line for line in lines
                             if self.mark in line or "sa_family=AF_INET"
                             in line]
