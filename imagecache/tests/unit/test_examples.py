# SPDX-License-Identifier: Apache-2.0
"""The examples' own tests pass, where the examples are as users have them."""

from __future__ import annotations

import importlib
import pathlib
import sys
import tomllib

import fixtures

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "examples"


def load(directory, name):
    """Return the module of an example, which can import its neighbours."""
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(directory))


class Installed(fixtures.Fixture):
    """The example backend as it is where pip has installed it."""

    def _setUp(self):
        site = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        project = tomllib.loads(
            (EXAMPLES / "backend" / "pyproject.toml").read_text())["project"]
        info = site / f"example-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Name: example\nVersion: {project['version']}\n")
        with (info / "entry_points.txt").open("w") as f:
            for group, points in project["entry-points"].items():
                f.write(f"[{group}]\n")
                f.writelines(f"{k} = {v}\n" for k, v in points.items())
        self.useFixture(fixtures.MonkeyPatch(
            "sys.path", [*sys.path, str(site), str(EXAMPLES / "backend")]))
        # Whatever was found before is not looked for again.
        self.useFixture(fixtures.MonkeyPatch(
            "stevedore.extension.ExtensionManager.ENTRY_POINT_CACHE", {}))


class AgentTest(load(EXAMPLES, "test_agent").AgentTest):
    """Whoever copies the test of the example finds that it passes."""


class StandaloneTest(
        load(EXAMPLES / "backend", "test_standalone").StandaloneTest):

    def setUp(self):
        self.useFixture(Installed())
        super().setUp()

    def test_the_entry_point_names_the_class(self):
        self.assertEqual("standalone.Standalone", ".".join(
            (type(self.make()).__module__, type(self.make()).__name__)))

    def test_a_disk_has_no_base(self):
        self.assertIsNone(self.make().base_key())
