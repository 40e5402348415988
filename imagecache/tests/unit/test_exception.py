# SPDX-License-Identifier: Apache-2.0
"""Errors: one tree, drawn in its module; every class can be pickled."""

from __future__ import annotations

import ast
import copy
import multiprocessing.pool
import pathlib
import pickle
import re
import string
from collections.abc import Iterator

import ddt

import imagecache
from imagecache import exception
from imagecache.tests import base

# The facts that nova passes to the classes of these names.  Code that raises
# a class of this library in place of nova's must still work.
NOVAS_FACTS = {
    "ImageUnacceptable": {"image_id", "reason"},
    "CertificateValidationFailed": {"cert_uuid", "reason"},
    "ImageNotFound": {"image_id"},
    "ImageNotActive": {"image_id"},
    "FlavorDiskTooSmall": set(),
    "FlavorDiskSmallerThanImage": {"flavor_size", "image_size"},
    "FlavorDiskSmallerThanMinDisk": {"flavor_size", "image_min_disk"},
    "InvalidDiskInfo": {"reason"},
    "DiskInfoReadWriteFail": {"reason"},
    "DiskNotFound": {"location"},
    "InvalidDiskFormat": {"disk_format"},
    "InvalidDevicePath": {"path"},
    "SnapshotNotFound": {"snapshot_id"},
    "UnsupportedImageModel": {"image"},
}


def classes(root: type = exception.ImageCacheError) -> Iterator[type]:
    yield root
    for each in root.__subclasses__():
        if each.__module__ == exception.__name__:
            yield from classes(each)


def facts(kind: type) -> set[str]:
    """Return the names of the facts in the message of a class."""
    return {name for _, name, _, _ in string.Formatter().parse(kind.msg_fmt)
            if name}


def raise_it(kind: type) -> None:
    raise kind(**dict.fromkeys(facts(kind), "x"))


@ddt.ddt
class ExceptionTest(base.TestCase):

    @ddt.data(*sorted(set(classes()), key=lambda each: each.__name__))
    def test_every_class_says_its_facts(self, kind: type) -> None:
        given = {name: f"<{name}>" for name in facts(kind)}
        error = kind(**given)
        for name, value in given.items():
            self.assertIn(value, str(error))
            self.assertEqual(value, error.facts[name])
        self.assertEqual(str(error), error.message)
        self.assertEqual(str(error), error.format_message())
        self.assertIs(error.facts, error.kwargs)

    @ddt.data(*sorted(set(classes()), key=lambda each: each.__name__))
    def test_every_class_survives_pickling(self, kind: type) -> None:
        error = kind(**dict.fromkeys(facts(kind), "x"), more=[1])
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            self.assertIs(kind, type(again))
            self.assertEqual(str(error), str(again))
            self.assertEqual(error.facts, again.facts)

    def test_a_message_of_the_caller_survives_pickling(self) -> None:
        error = exception.StorageFailed("It burns", path="/dev/sda")
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual("It burns", str(again))
        self.assertEqual({"path": "/dev/sda"}, again.facts)

    def test_an_error_passes_from_a_worker_process_to_the_caller(self) -> None:
        with multiprocessing.pool.Pool(1) as pool:
            self.assertRaises(
                exception.InvalidConfiguration, pool.apply, raise_it,
                (exception.InvalidConfiguration,))

    def test_classes_with_names_of_nova_take_the_facts_of_nova(self) -> None:
        for name, given in NOVAS_FACTS.items():
            kind = getattr(exception, name)
            self.assertLessEqual(facts(kind) - {"status"}, given, name)

    def test_unknown_image_type_is_a_runtime_error_as_in_nova(self) -> None:
        self.assertTrue(issubclass(exception.InvalidConfiguration,
                                   RuntimeError))

    def test_the_drawing_shows_the_real_tree(self) -> None:
        drawn: list[tuple[str, str]] = []
        above = ["ImageCacheError"]
        for line in exception.__doc__.splitlines():
            found = re.match(r"    ((?:[│ ]   )*)[├└]── (\w+)", line)
            if found:
                depth = len(found[1]) // 4
                del above[depth + 1:]
                drawn.append((found[2], above[-1]))
                above.append(found[2])
        real = [(kind.__name__, parent.__name__) for parent in classes()
                for kind in parent.__subclasses__() if kind in set(classes())]
        self.assertEqual(sorted(real), sorted(drawn))

    def test_the_middle_classes_name_the_party_that_must_act(self) -> None:
        self.assertEqual(
            {"ImageError", "SourceError", "HostError", "InvalidConfiguration",
             "CallerError"},
            {each.__name__ for each
             in exception.ImageCacheError.__subclasses__()})

    def test_every_raise_statement_gives_the_facts_of_its_class(self) -> None:
        top = pathlib.Path(imagecache.__file__).parent
        for path in top.rglob("*.py"):
            if "tests" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                name = raised(node)
                if name is None or node.args or any(
                        each.arg is None for each in node.keywords):
                    continue
                with self.subTest(f"{path.name}:{node.lineno}"):
                    self.assertLessEqual(
                        facts(getattr(exception, name)),
                        {each.arg for each in node.keywords})


def raised(node: ast.AST) -> str | None:
    """Return the name of the exception that a call makes, or None."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) \
            and isinstance(node.func.value, ast.Name) \
            and node.func.value.id == "exception" \
            and node.func.attr in vars(exception):
        return node.func.attr
    return None
