# SPDX-License-Identifier: Apache-2.0
"""The names and signatures that other people's code is written against."""

from __future__ import annotations

import ast
import inspect
import pathlib
import re
import types
from collections.abc import Callable, Iterator

import imagecache
from imagecache import backends, events, exception, fixture, imagebackend, opts
from imagecache.tests import base

# Those that nova has, too.
NOVA = ("CertificateValidationFailed", "DiskInfoReadWriteFail",
        "DiskNotFound", "FlavorDiskSmallerThanImage",
        "FlavorDiskSmallerThanMinDisk", "FlavorDiskTooSmall", "Forbidden",
        "ImageNotActive", "ImageNotFound", "ImageUnacceptable",
        "InvalidDevicePath", "InvalidDiskFormat", "InvalidDiskInfo",
        "SnapshotNotFound", "UnsupportedImageModel")

OURS = ("BaseInUse", "BaseNotFound", "BaseNotVerified", "CallerError",
        "CommandFailed",
        "CommandNotFound", "CommandTimedOut", "DiskExists",
        "DownloadStalled", "DownloadTooSlow", "DownloadTruncated", "HostError",
        "ImageCacheError", "ImageChanged", "ImageDigestMismatch",
        "ImageError", "ImageSignatureInvalid", "ImageSizeMismatch",
        "ImageTooLarge", "InvalidConfiguration", "InvalidImageRef",
        "InvalidName", "KeyManagerFailed", "KeyRequired",
        "NbdUnavailable", "NoSpace", "NothingWritten",
        "SizeRequired", "SourceError", "SourceMisbehaved",
        "SourceUnreachable", "StorageBusy", "StorageExists",
        "StorageFailed", "StorageForbidden", "StorageMissing",
        "StorageUnreachable", "UnsafeDisk", "WrongKey")


class PublicNamesTest(base.TestCase):

    def test_the_package_offers_the_door_and_its_words(self) -> None:
        self.assertEqual({"Digest", "Encryption", "Format", "ImageCache"},
                         set(imagecache.__all__))
        for name in imagecache.__all__:
            self.assertTrue(hasattr(imagecache, name))

    def test_every_name_of_all_is_there(self) -> None:
        for module in (backends, imagebackend):
            for name in module.__all__:
                self.assertTrue(hasattr(module, name), name)

    def test_exceptions_have_novas_names_and_ours(self) -> None:
        found = {name for name, value in vars(exception).items()
                 if isinstance(value, type)
                 and issubclass(value, exception.ImageCacheError)}
        self.assertEqual({*NOVA, *OURS}, found)

    def test_options_are_registered_by_one_call(self) -> None:
        self.assertEqual(["conf"], names(opts.register_opts))
        self.assertEqual([], names(opts.list_opts))

    def test_the_fixture_is_where_driver_authors_look(self) -> None:
        self.assertTrue(inspect.isclass(fixture.ImageCacheFixture))

    def test_the_door_for_new_code(self) -> None:
        cls = imagecache.ImageCache
        self.assertEqual(
            ["conf", "*", "glance", "context", "observe"],
            names(cls.__init__))
        self.assertEqual(
            ["instance", "image_ref", "name", "size", "image_type", "*",
             "disk_format", "digest", "trusted_certs",
             "encryption"],
            names(cls.create_disk))
        self.assertEqual(
            ["image_ref", "*", "image_type", "disk_format", "digest",
             "trusted_certs"],
            names(cls.fetch))
        self.assertEqual(
            ["instance", "name", "image_type", "*", "encryption"],
            names(cls.disk))
        self.assertEqual(
            {"base", "bases", "create_blank", "create_disk",
             "create_ephemeral", "create_swap", "disk", "disks", "fetch",
             "remove_base", "users"}, methods(cls))

    def test_the_door_for_novas_code(self) -> None:
        cls = imagebackend.Backend
        self.assertEqual(
            ["instance", "name", "image_type", "disk_info_mapping"],
            names(cls.by_name))
        self.assertEqual(["instance", "path", "image_type"],
                         names(cls.by_libvirt_path))
        self.assertEqual(["fetch_func", "filename", "size", "safe"],
                         names(imagebackend.Image.cache))

    def test_what_every_disk_offers(self) -> None:
        for kind in backends.BACKENDS.values():
            self.assertLessEqual(
                {"exists", "create", "generate", "size", "grow", "remove",
                 "extract", "allocated", "base_key"}, methods(kind))
            for name in ("path", "format"):
                self.assertIsInstance(inspect.getattr_static(kind, name),
                                      property)

    def test_every_event_is_in_the_table_of_events(self) -> None:
        tables = re.findall(r"^([a-z_]+)  +\S", events.__doc__, re.MULTILINE)
        self.assertEqual(sorted(events.Name), sorted(tables))

    def test_an_event_is_sent_by_a_name_and_every_name_is_used(self) -> None:
        top = pathlib.Path(imagecache.__file__).parent
        sent = {name for path in top.rglob("*.py")
                if not {"tests", "testing"} & set(path.parts)
                for name in sent_by(ast.parse(path.read_text()))}
        self.assertEqual({f"Name.{name.name}" for name in events.Name}, sent)

    def test_the_table_of_backends(self) -> None:
        self.assertEqual(["flat", "lvm", "qcow2", "raw", "rbd"],
                         sorted(backends.BACKENDS))


def names(function: Callable[..., object]) -> list[str]:
    """Return the parameters, and where those by name alone begin."""
    found: list[str] = []
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is each.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
            found.append(name)
    return [name for name in found if name != "self"]


def sent_by(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the events that a module sends, as it writes them.

    A variable is left out: it stands for what a caller named.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args \
                and ast.unparse(node.func).endswith(("Event", "_observe")) \
                and not isinstance(node.args[0], ast.Name):
            yield ast.unparse(node.args[0]).removeprefix("events.")


def methods(cls: type) -> set[str]:
    return {name for name, value in inspect.getmembers(cls)
            if isinstance(value, types.FunctionType)
            and not name.startswith("_")}
