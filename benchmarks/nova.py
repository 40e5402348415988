# SPDX-License-Identifier: Apache-2.0
"""Nova's imagebackend in a process of its own, which makes one disk a time.

``python -m benchmarks.nova DIR [GROUP.OPTION=VALUE...]`` is that process: it
runs in nova's virtualenv, and reads and writes lines of JSON.  It runs nova's
code as released, warm: no database, messaging, libvirt or privileged helper is
started, and its start is not timed.  The image service is a file, copied in
pieces of 64 KiB and flushed, as nova writes its downloads; it checks no
digest, which Glance's client would.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import harness

RELEASE = "34.0.0"
TOP = pathlib.Path(__file__).resolve().parent.parent


def _python() -> pathlib.Path:
    """Return the interpreter of nova's virtualenv, which is made if missing.

    Nova has other dependencies, so it has an environment of its own: that of
    IMAGECACHE_NOVA_VENV, or .venv-nova.
    """
    venv = pathlib.Path(os.environ.get("IMAGECACHE_NOVA_VENV")
                        or TOP / ".venv-nova")
    python = venv / "bin" / "python"
    if not any(venv.glob(f"lib/python*/site-packages/nova-{RELEASE}*")):
        print(f"Installing nova {RELEASE} in {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet",
                        f"nova=={RELEASE}"], check=True)
    return python


class Nova:
    """The process of nova, which runs until the block ends.

    :param instances: nova's instances_path; its log is beside it
    :param settings: of its configuration, as GROUP.OPTION=VALUE
    :param modules: a directory of further modules for it
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
                [_python(), "-m", "benchmarks.nova", self.instances,
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
        self._process.communicate()    # the end of its input ends it

    def create_disk(self, instance: str, image: pathlib.Path, base: str,
                    image_type: str, size: int) -> harness.Run:
        """Make a disk from a qcow2 file, by the clock of its own process.

        :param base: the name that the base has or will have
        """
        assert self._process.stdin is not None
        print(json.dumps([instance, str(image), base, image_type, size]),
              file=self._process.stdin, flush=True)
        return harness.Run(**self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"nova ended:\n{self._log.read_text()}")
        return json.loads(line)


# The rest runs in nova's virtualenv: it has the standard library and nova.

def download(target: str, context: object,
             image_id: str | os.PathLike[str]) -> None:
    """Copy an image from a file, in place of Glance."""
    with open(image_id, "rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 64 * 1024)
        writer.flush()
        os.fsync(writer.fileno())


class _Instance(dict[str, str]):
    """The part of nova's instance that the image backends read."""

    __getattr__ = dict.__getitem__


class _ImageService:
    """One qcow2 image, in place of Glance."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get(self, context: object, image_id: str, **_: Any) -> dict[str, str]:
        return {"id": image_id, "disk_format": "qcow2"}

    def download(self, context: object, image_id: str, dest_path: str = "",
                 **_: Any) -> None:
        download(dest_path, context, self._path)


def _start(instances: str, settings: list[str]) -> tuple[Any, Any]:
    """Configure nova for a directory; return its modules for images."""
    load = importlib.import_module    # mypy has no nova to look at
    conf = load("nova.conf").CONF
    conf([], project="nova", default_config_files=[], default_config_dirs=[])
    conf.set_override("instances_path", instances)
    load("nova.objects").register_all()
    load("nova.privsep").sys_admin_pctxt.set_client_mode(False)
    images = load("nova.virt.images")
    for setting in settings:
        name, _, value = setting.partition("=")
        group, _, option = name.partition(".")
        conf.set_override(option, value, group)
    imagebackend = load("nova.virt.libvirt.imagebackend")
    conf.set_override("lock_path", os.path.join(instances, "locks"),
                      "oslo_concurrency")
    return images, imagebackend


def _make_disk(images: Any, imagebackend: Any, directory: str, name: str,
               image: str, base: str, image_type: str,
               size: int) -> harness.Run:
    """Make one disk, by the clock; its instance's directory is not timed."""
    images.IMAGE_API = imagebackend.IMAGE_API = _ImageService(image)
    instance = _Instance(uuid=name, name=name)
    os.makedirs(os.path.join(directory, name))
    backend = imagebackend.Backend(image_type == "qcow2")

    def fetch(target: str, context: object, image_id: str) -> None:
        images.fetch_to_raw(context, image_id, target)

    return harness.measure(
        lambda: backend.by_name(instance, "disk", image_type).cache(
            fetch, base, size=size, context=None, image_id="image"))


def main() -> None:
    instances, *settings = sys.argv[1:]
    # Text that nova or its libraries print is no answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    images, imagebackend = _start(instances, settings)
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        run = _make_disk(images, imagebackend, instances, *json.loads(line))
        print(json.dumps(dataclasses.asdict(run)), file=answers)


if __name__ == "__main__":
    main()
