# SPDX-License-Identifier: Apache-2.0
"""The architecture: which room may import from which."""

from __future__ import annotations

import ast
import contextlib
import functools
import graphlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from unittest import mock

from oslo_config import cfg

import imagecache
from imagecache import fixture, imagebackend
from imagecache.backends import BACKENDS, Disk
from imagecache.host import Host
from imagecache.image_cache import ImageCache
from imagecache.imagebackend import Backend
from imagecache.policy import Policy
from imagecache.sources.file import FileStore
from imagecache.sources.http import HttpStore
from imagecache.sources.registry import ImageStores
from imagecache.tests import base

# The rooms: the packages and modules of ``imagecache``, from the top down.  A
# room imports only from itself and from the rooms below it.
ROOMS = {
    "cmd": "the command",
    "fixture": "a promised name; see testing",
    "testing": "for the tests of backends and of embedding programs",
    "imagebackend": "nova's API",
    "image_cache": "the API for new code",
    "provision": "how one disk is made, on one page",
    "backends": "the kinds of disk: file, lvm, rbd",
    "host": "wires policy, locks and base caches together",
    "bases": "the base cache: fetch once, keep, lease",
    "sources": "where the bytes of images come from",
    "inspection": "is an image, or a disk, what it claims to be?",
    "opts": "oslo.config options, read into a policy",
    "imagemodel": "a promised name; see guest",
    "guest": "describes a disk to libvirt",
    "tools": "one module for each outside program",
    "formats": "the parsers of image formats, and their rules",
    "system": "processes, durable files, locks, the sandbox",
    "policy": "the settings, frozen",
    "encryption": "the key of a disk",
    "events": "what the library tells an observer",
    "model": "value types",
    "exception": "the tree of errors",
    "text": "makes text from outside printable",
}
ORDER = list(reversed(ROOMS))
# The kinds of storage: one folder each, and none imports another.
STORAGE = ("backends.file", "backends.lvm", "backends.rbd")

# Libraries that only some modules may import, and these modules.
RESTRICTED = {
    "oslo_concurrency.processutils": {"system.execute"},
    "subprocess": {"system.execute", "system.sandbox.bubblewrap", "testing"},
    "oslo_concurrency.lockutils": {"system.locks"},
    "rados": {"tools"},
    "rbd": {"tools"},
    "oslo_config": {"opts", "sources.registry", "sources.key_manager",
                    "sources.glance", "image_cache", "imagebackend",
                    "testing.fixture", "cmd"},
    "oslo_log": {"events", "cmd"},
    "requests": {"sources.http", "sources.wire", "sources.glance",
                 "sources.transport"},
    "glanceclient": {"sources.glance"},
    "keystoneauth1": {"sources.glance", "opts.glance",
                      "sources.key_manager"},
    "cursive": {"inspection.signatures"},
    "cryptography": {"inspection.signatures"},
    "castellan": {"sources.key_manager"},
    "cliff": {"cmd"},
    "tqdm": {"cmd"},
    "fixtures": {"testing"},
}
# Libraries that are imported only when they are needed, because it takes long.
SLOW = ("requests", "glanceclient", "keystoneauth1", "cursive", "castellan",
        "cliff", "tqdm", "lxml")

TOP = pathlib.Path(imagecache.__file__).parent


class RoomsTest(base.TestCase):

    def test_every_module_is_in_a_room_and_every_room_has_one(self) -> None:
        self.assertEqual(set(ROOMS), {room(name) for name in modules()})

    def test_a_room_imports_only_from_rooms_below_it(self) -> None:
        for name, path in modules().items():
            for other in own_imports(path):
                with self.subTest(f"{name} imports {other}"):
                    self.assertLessEqual(ORDER.index(room(other)),
                                         ORDER.index(room(name)))

    def test_no_modules_import_each_other_in_a_circle(self) -> None:
        graphlib.TopologicalSorter({
            name: [each for each in own_imports(path) if each != name]
            for name, path in modules().items()}).prepare()

    def test_no_kind_of_storage_imports_another(self) -> None:
        for name, path in modules().items():
            for other in own_imports(path):
                pair = {backend(name), backend(other)} - {None}
                if backend(name):
                    with self.subTest(f"{name} imports {other}"):
                        self.assertEqual(1, len(pair))

    def test_only_the_named_modules_import_a_restricted_library(self) -> None:
        for name, path in modules().items():
            for other in imports(path):
                for library, allowed in RESTRICTED.items():
                    if within(other, library):
                        with self.subTest(f"{name} imports {other}"):
                            self.assertTrue(any(
                                within(name, each) for each in allowed))

    def test_no_module_catches_every_exception(self) -> None:
        for name, path in modules().items():
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.ExceptHandler):
                    with self.subTest(f"{name}:{node.lineno}"):
                        self.assertIsNotNone(node.type)
                        self.assertNotEqual("Exception",
                                            ast.unparse(node.type))

    def test_a_file_has_at_most_350_lines(self) -> None:
        for name, path in modules().items():
            with self.subTest(name):
                self.assertLessEqual(len(path.read_text().splitlines()), 350)

    def test_a_function_has_at_most_40_lines(self) -> None:
        for name, path in modules().items():
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.FunctionDef):
                    with self.subTest(f"{name}.{node.name}"):
                        self.assertLessEqual(
                            node.end_lineno - node.lineno + 1, 40)

    def test_every_module_has_a_docstring(self) -> None:
        for name, path in modules().items():
            source = path.read_text()
            if source:
                with self.subTest(name):
                    self.assertTrue(source.startswith(
                        "# SPDX-License-Identifier: Apache-2.0\n"))
                    self.assertTrue(ast.get_docstring(ast.parse(source)))

    def test_importing_the_library_imports_no_slow_library(self) -> None:
        found = subprocess.run(
            [sys.executable, "-c", "import sys, imagecache;"
             "print(*(sys.modules.keys() & set(sys.argv[1:])))", *SLOW],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        self.assertEqual("\n", found)


class ConstructorsTest(base.TestCase):
    """Constructors only store their arguments."""

    def test_constructors_use_no_files_or_processes(self) -> None:
        conf = self.useFixture(fixture.ImageCacheFixture()).conf
        self._construct(conf)   # imports what it needs
        self.assertEqual([], touched(lambda: self._construct(conf)))

    def test_constructors_accept_paths_that_do_not_exist(self) -> None:
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
        Backend(conf=conf)
        for image in (imagebackend.Lvm, imagebackend.Qcow2, imagebackend.Raw,
                      imagebackend.Rbd):
            image({"uuid": "instance"}, "disk", host=host)


def files() -> Iterator[type[Disk]]:
    """Yield the backends whose disks can be described without a service."""
    yield from (kind for kind in BACKENDS.values()
                if kind.capabilities.file)


def touched(action: Callable[[], None]) -> list[tuple[str, object]]:
    """Return the calls of the operating system that an action makes."""
    found: list[tuple[str, object]] = []
    _LISTENERS.append(found)
    try:
        with contextlib.ExitStack() as stack:
            for name in _NOT_AUDITED:
                stack.enter_context(_recorded(name, found))
            action()
    finally:
        _LISTENERS.remove(found)
    return found


@contextlib.contextmanager
def _recorded(name: str, found: list[tuple[str, object]]) -> Iterator[None]:
    """Record the calls of a function of ``os`` during the block."""
    function = getattr(os, name)

    def record(*args: object, **options: object) -> object:
        found.append((f"os.{name}", args))
        return function(*args, **options)

    with mock.patch.object(os, name, record):
        yield


_LISTENERS: list[list[tuple[str, object]]] = []
# These raise no audit event.
_NOT_AUDITED = ("access", "lstat", "stat")
_WORLD = ("open", "os.", "shutil.", "socket.", "subprocess.", "tempfile.")


def _listen(event: str, arguments: object) -> None:
    if _LISTENERS and event.startswith(_WORLD):
        _LISTENERS[-1].append((event, arguments))


sys.addaudithook(_listen)    # for good: there is no way to remove one


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """Return every module of the library by its name in the package."""
    found = {".".join(path.relative_to(TOP).with_suffix("").parts)
             .removesuffix(".__init__"): path for path in TOP.rglob("*.py")}
    return {name: path for name, path in found.items()
            if not within(name, "tests") and name != "__init__"
            and len(tree(path).body) > 1}   # has code


def imports(path: pathlib.Path) -> Iterator[str]:
    """Yield the full names of all imports of a module, also in functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has relative imports"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


@functools.cache
def own_imports(path: pathlib.Path) -> set[str]:
    """Return the modules of this library that a module imports."""
    found = set()
    for name in imports(path):
        package, _, rest = name.partition(".")
        while package == "imagecache" and rest and rest not in modules():
            rest = rest.rpartition(".")[0]
        if package == "imagecache" and rest:
            found.add(rest)
    return found


def room(name: str) -> str:
    return name.partition(".")[0]


def backend(name: str) -> str | None:
    """Return the kind of storage that a module belongs to, or None."""
    return next((each for each in STORAGE if within(name, each)), None)


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")
