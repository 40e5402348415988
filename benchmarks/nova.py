# SPDX-License-Identifier: Apache-2.0
"""Nova's imagebackend in a process of its own: asked for a disk at a time."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Run

RELEASE = "34.0.0"
TOP = pathlib.Path(__file__).resolve().parent.parent

_VERSION = "from importlib import metadata; print(metadata.version('nova'))"


def _python() -> pathlib.Path:
    """Return the interpreter of nova's virtualenv, which is made if need be.

    Nova's dependencies are not ours, so it has an environment of its own:
    that of IMAGECACHE_NOVA_VENV, or .venv-nova.
    """
    venv = pathlib.Path(os.environ.get("IMAGECACHE_NOVA_VENV")
                        or TOP / ".venv-nova")
    python = venv / "bin" / "python"
    if not python.exists() or subprocess.run(
            [python, "-c", _VERSION], capture_output=True, text=True,
            check=False).stdout.strip() != RELEASE:
        print(f"Installing nova {RELEASE} in {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet",
                        f"nova=={RELEASE}"], check=True)
    return python


class Nova:
    """A nova_peer.py that runs until the block ends.

    :param instances: nova's instances_path; its log is beside it
    :param settings: of its configuration, as GROUP.OPTION=VALUE
    :param modules: where it finds more modules, which no index has
    """

    def __init__(self, instances: pathlib.Path, settings: Sequence[str] = (),
                 modules: pathlib.Path | None = None) -> None:
        self.instances = instances
        self._log = instances.with_suffix(".log")
        self._settings = settings
        self._environment = os.environ | (
            {"PYTHONPATH": str(modules)} if modules else {})

    def __enter__(self) -> Nova:
        with self._log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [_python(), "-m", "benchmarks.nova_peer", self.instances,
                 *self._settings],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                text=True, cwd=TOP, env=self._environment)
        try:
            self._answer()    # it is ready
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()    # its input ends, and so does it

    def create_disk(self, instance: str, image: pathlib.Path, base: str,
                    image_type: str, size: int) -> Run:
        """Make a disk from a qcow2 file, by the clock of its own process.

        :param base: the name the base has or will have
        """
        assert self._process.stdin is not None
        json.dump({"instance": instance, "image": str(image),
                   "disk_format": "qcow2", "base": base, "type": image_type,
                   "size": size}, self._process.stdin)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Run(**self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"nova ended:\n{self._log.read_text()}")
        return json.loads(line)
