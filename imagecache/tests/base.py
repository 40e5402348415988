# SPDX-License-Identifier: Apache-2.0
"""The fixture of every test: a directory of its own, and no proxies."""

from __future__ import annotations

import pathlib
import unittest

import fixtures


class TestCase(fixtures.TestWithFixtures, unittest.TestCase):

    maxDiff = None

    def setUp(self) -> None:
        super().setUp()
        self.root = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path).resolve()
        # The environment of a developer must not change a test.
        for name in ("http_proxy", "https_proxy", "all_proxy",
                     "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            self.useFixture(fixtures.EnvironmentVariable(name))
