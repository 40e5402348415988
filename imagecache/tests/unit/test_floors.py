# SPDX-License-Identifier: Apache-2.0
"""The architecture: who may know whom."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

from oslo_config import cfg

import imagecache
from imagecache import fixture
from imagecache.backends import BACKENDS, Disk, FileDisk
from imagecache.host import Host
from imagecache.image_cache import ImageCache
from imagecache.imagebackend import Backend
from imagecache.policy import Policy
from imagecache.sources.file import FileStore
from imagecache.sources.http import HttpStore
from imagecache.sources.registry import ImageStores
from imagecache.tests import base

# From the ground up.  A module may import those of the floors below, and
# those to its left on its own; a package is one module here.
FLOORS = (
    ("exception", "model", "events", "policy", "encryption"),
    ("system.sandbox", "system.execute", "system.durable", "system.locks",
     "formats", "tools"),
    ("inspection.backing", "inspection.inspector", "inspection.signatures", "sources", "sources.templates", "bases.download",
     "inspection.verify", "bases.resize", "bases.store", "bases.disk_info", "bases.record",
     "bases.directory", "backends.rbd.store",
     "backends.lvm.volumes", "backends.lvm.removal", "backends.lvm.thin_store", "bases.pipeline", "bases.cache",
     "host", "provision",
     "backends.rbd.glance_images", "backends.rbd.publish", "backends.rbd.clones"),
    ("backends", "imagemodel", "guest"),
    ("opts.lvm", "opts.rbd",
     "opts", "observers", "sources.registry", "sources.key_manager", "image_cache",
     "imagebackend"),
    ("testing.memory", "fixture"),
    ("cmd", "testing"),
)
ORDER = [name for floor in FLOORS for name in floor]

# For an optional piece, its library; for a seam, who may cut it.
DOORS = {
    "oslo_concurrency.processutils": {"system.execute"},
    "subprocess": {"system.execute", "testing"},
    "oslo_concurrency.lockutils": {"system.locks"},
    "rados": {"tools"},
    "rbd": {"tools"},
    "oslo_config": {"opts", "opts.lvm", "opts.rbd",
                    "sources.registry", "sources.key_manager", "image_cache",
                    "imagebackend", "fixture", "cmd", "opts.glance",
                    "sources.glance"},
    "oslo_log": {"observers", "cmd"},
    "requests": {"sources.http", "sources.wire", "sources.glance"},
    "glanceclient": {"sources.glance"},
    "keystoneauth1": {"sources.glance", "opts.glance",
                      "sources.key_manager"},
    "cursive": {"inspection.signatures"},
    "cryptography": {"inspection.signatures"},
    "castellan": {"sources.key_manager"},
    "cliff": {"cmd"},
    "tqdm": {"cmd"},
    "fixtures": {"fixture", "testing"},
}
# What takes longer to import than to use.
SLOW = ("requests", "glanceclient", "keystoneauth1", "cursive", "castellan",
        "cliff", "tqdm", "lxml")

TOP = pathlib.Path(imagecache.__file__).parent


class FloorsTest(base.TestCase):

    def test_every_module_is_on_a_floor(self) -> None:
        self.assertEqual([], [name for name in modules()
                              if place(name) is None])

    def test_every_place_is_taken(self) -> None:
        taken = {place(name) for name in modules()}
        self.assertEqual([], [name for i, name in enumerate(ORDER)
                              if i not in taken])

    def test_a_module_imports_from_below_only(self) -> None:
        for name, path in modules().items():
            for other in imports(path):
                found = own(other)
                if found is None or place(name) == place(found):
                    continue
                with self.subTest(f"{name} imports {other}"):
                    self.assertLess(place(found), place(name))

    def test_what_is_behind_a_door_is_reached_through_it(self) -> None:
        for name, path in modules().items():
            for other in imports(path):
                for library, allowed in DOORS.items():
                    if within(other, library):
                        with self.subTest(f"{name} imports {other}"):
                            self.assertTrue(any(
                                within(name, each) for each in allowed))

    def test_no_module_catches_everything(self) -> None:
        for name, path in modules().items():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ExceptHandler):
                    with self.subTest(f"{name}:{node.lineno}"):
                        self.assertIsNotNone(node.type)
                        self.assertNotEqual("Exception",
                                            ast.unparse(node.type))

    def test_files_end_where_a_few_screens_do(self) -> None:
        for name, path in modules().items():
            with self.subTest(name):
                self.assertLessEqual(len(path.read_text().splitlines()), 350)

    def test_functions_fit_a_screen(self) -> None:
        for name, path in modules().items():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    with self.subTest(f"{name}.{node.name}"):
                        self.assertLessEqual(
                            node.end_lineno - node.lineno + 1, 40)

    def test_every_module_says_what_it_is(self) -> None:
        for name, path in modules().items():
            source = path.read_text()
            if source:
                with self.subTest(name):
                    self.assertTrue(source.startswith(
                        "# SPDX-License-Identifier: Apache-2.0\n"))
                    self.assertTrue(ast.get_docstring(ast.parse(source)))

    def test_importing_the_library_imports_nothing_slow(self) -> None:
        found = subprocess.run(
            [sys.executable, "-c", "import sys, imagecache;"
             "print(*(sys.modules.keys() & set(sys.argv[1:])))", *SLOW],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        self.assertEqual("\n", found)


class ConstructorsTest(base.TestCase):
    """They remember what they are told, and leave the world alone."""

    def test_constructors_do_not_touch_the_world(self) -> None:
        conf = self.useFixture(fixture.ImageCacheFixture()).conf
        self._construct(conf)   # imports what it needs
        self.assertEqual([], touched(lambda: self._construct(conf)))

    def test_constructors_believe_in_places_that_are_not_there(self) -> None:
        host = Host(Policy(self.root / "no" / "such" / "place"))
        for kind in files():
            self.assertFalse(kind(host, "instance", "disk").exists())
        self.assertEqual([], list(host.directory_cache.entries()))
        self.assertEqual([], list(self.root.iterdir()))

    def _construct(self, conf: cfg.ConfigOpts) -> None:
        host = Host(Policy(self.root / "instances"))
        for kind in BACKENDS.values():
            kind(host, "instance", "disk")
        host.disk_info(self.root)
        FileStore()
        HttpStore()
        ImageStores(conf)
        ImageCache(conf)
        Backend(conf=conf).by_name({"uuid": "instance"}, "disk")


def files() -> Iterator[type[Disk]]:
    """Yield the backends whose disks need no service to be looked for."""
    yield from (kind for kind in BACKENDS.values()
                if issubclass(kind, FileDisk))


def touched(action: Callable[[], None]) -> list[tuple[str, object]]:
    """Return what an action asked of the operating system, and of whom."""
    found: list[tuple[str, object]] = []
    _LISTENERS.append(found)
    try:
        action()
    finally:
        _LISTENERS.remove(found)
    return found


_LISTENERS: list[list[tuple[str, object]]] = []
_WORLD = ("open", "os.", "shutil.", "socket.", "subprocess.", "tempfile.")


def _listen(event: str, arguments: object) -> None:
    if _LISTENERS and event.startswith(_WORLD):
        _LISTENERS[-1].append((event, arguments))


sys.addaudithook(_listen)    # for good: there is no way to remove one


def modules() -> dict[str, pathlib.Path]:
    """Return every module of the library by its name in the package."""
    found = {".".join(path.relative_to(TOP).with_suffix("").parts)
             .removesuffix(".__init__"): path for path in TOP.rglob("*.py")}
    return {name: path for name, path in found.items()
            if not within(name, "tests") and name != "__init__"
            and len(ast.parse(path.read_text()).body) > 1}   # no code


def imports(path: pathlib.Path) -> Iterator[str]:
    """Yield the full name of all a module imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has relative imports"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def own(name: str) -> str | None:
    """Return the module of this library that an imported name is of."""
    package, _, rest = name.partition(".")
    if package != "imagecache":
        return None
    while rest and place(rest) is None:
        rest = rest.rpartition(".")[0]
    return rest or None


def place(name: str) -> int | None:
    fitting = [each for each in ORDER if within(name, each)]
    return ORDER.index(max(fitting, key=len)) if fitting else None


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")
