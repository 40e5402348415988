# SPDX-License-Identifier: Apache-2.0
"""Nova's imagebackend as a peer: one process, asked for one disk at a time."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.timing import Run
from imagecache.model import MiB

RELEASE = "34.0.0"
# Names a virtualenv with nova in it; without one, .venv-nova is made.
VARIABLE = "IMAGECACHE_NOVA_VENV"

# What a run measures beside its time: see blocks.written().
WRITTEN = "host's disk MiB"

TOP = pathlib.Path(__file__).resolve().parent.parent

_VERSION = "from importlib import metadata; print(metadata.version('nova'))"


def nova_python() -> pathlib.Path:
    """Return the interpreter of nova's virtualenv, which is made if need be.

    Nova's dependencies are not ours, so it has an environment of its own.
    """
    venv = pathlib.Path(os.environ.get(VARIABLE) or TOP / ".venv-nova")
    python = venv / "bin" / "python"
    if not _has_nova(python):
        print(f"Installing nova {RELEASE} in {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet",
                        f"nova=={RELEASE}"], check=True)
    return python


def _has_nova(python: pathlib.Path) -> bool:
    if not python.exists():
        return False
    asked = subprocess.run([python, "-c", _VERSION], capture_output=True,
                           text=True, check=False)
    return asked.stdout.strip() == RELEASE


class Nova:
    """A nova_peer.py that runs until the block ends.

    :param instances: nova's instances_path
    :param log: a file for what it says beside its answers
    :param settings: of its configuration, as GROUP.OPTION=VALUE
    :param modules: where it finds more modules, which no index has
    """

    def __init__(self, instances: pathlib.Path, log: pathlib.Path,
                 settings: Sequence[str] = (),
                 modules: pathlib.Path | None = None) -> None:
        self.instances = instances
        self._log = log
        self._settings = settings
        self._modules = modules

    def __enter__(self) -> Nova:
        python = nova_python()
        with self._log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.nova_peer", self.instances,
                 *self._settings],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                text=True, cwd=TOP, env=os.environ | (
                    {"PYTHONPATH": str(self._modules)}
                    if self._modules else {}))
        try:
            self._answer()    # it is ready
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()    # its input ends, and so does it

    def create_disk(self, instance: str, image: pathlib.Path, *,
                    base: str, image_type: str, size: int) -> Run:
        """Make a disk from a qcow2 file, by the clock of its own process.

        :param base: the name the base has or will have
        """
        order = {"instance": instance, "image": str(image),
                 "disk_format": "qcow2", "base": base, "type": image_type,
                 "size": size}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Run(answer["seconds"], tuple(answer["started"]),
                   measured={WRITTEN: answer["written"] / MiB})

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"nova ended:\n{self._log.read_text()}")
        return json.loads(line)
