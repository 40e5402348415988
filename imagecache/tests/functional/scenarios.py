# SPDX-License-Identifier: Apache-2.0
"""The base class of the tests of the documented scenarios.

A scenario is a set of options.  Its test publishes an image in Glance, lets an
agent make a disk of it, and compares the programs and renames of the agent
with those that the scenario states.  Then it checks every file that is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import struct
import subprocess
import sys
import uuid

from oslo_config import cfg

from imagecache import ImageCache, imagebackend, opts
from imagecache.backends import Disk
from imagecache.model import SECTOR, GiB, MiB
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tests.functional import glance_server, recorded

TOKEN = "jo:ours:member,reader"
IMAGE_SIZE = 64 * MiB    # of every image here
SIZE = GiB               # of the disks, unless a scenario says otherwise
COMMAND = "import sys; from imagecache.cmd import main; sys.exit(main.main())"
MAPPING = {"bus": "virtio", "dev": "vda", "type": "disk"}

FETCH = [
    "write download",
    "qemu-img info --force-share --output=json -f qcow2 download"]
COMMIT = ["mv base.json.new base.json"]
# The steps of force_raw_images.
FETCH_RAW = [
    *FETCH,
    "qemu-img measure --force-share --output=json -f qcow2 -O qcow2 download",
    "qemu-img convert -q -n --target-is-zero -W -T writeback -t writeback"
    " -f qcow2 -O raw download output",
    "rm download",
    "mv output base",
    *COMMIT]
# That of force_raw_images=False.
KEEP = ["mv download base", *COMMIT]
CHECK = "qemu-img check -q --force-share -f qcow2 download"
READ_ALL = ("qemu-img convert -q --force-share -n --target-image-opts"
            f" -f qcow2 download driver=null-co,size={IMAGE_SIZE}")
READ_HEAD = ("qemu-img convert -q --force-share -f raw -O raw"
             " 512-bytes-of-download head")
FETCH_AS_IT_IS = [*FETCH, CHECK, READ_HEAD, *KEEP]
# Compressed clusters must inflate, so all of them are read.
FETCH_COMPRESSED = [*FETCH, CHECK, READ_ALL, READ_HEAD, *KEEP]
COPY = "cp --reflink=auto --sparse=auto -- base disk.new"
GROW = ["dumpe2fs -h disk.new", "e2fsck -f -p disk.new", "resize2fs disk.new"]
APPEAR = ["mv disk.info.new disk.info", "ln disk.new disk"]


def overlay(base_format: str, size: int = SIZE, of: str = "base",
            cluster_size: int | None = None) -> str:
    """Return the command that makes a qcow2 disk."""
    clusters = f" -o cluster_size={cluster_size}" if cluster_size else ""
    return (f"qemu-img create -q -f qcow2 -u -b {of} -F {base_format}"
            f"{clusters} disk.new {size}")


class ScenarioTestCase(base.TestCase):

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = glance_server.GlanceServer()
        cls.server.setUp()
        cls.addClassCleanup(cls.server.cleanUp)

    def setUp(self) -> None:
        super().setUp()
        self.instances = self.root / "instances"
        self.config = self.root / "agent.conf"
        self.image = ""
        self.key = ""

    # An image, and a disk of it.

    def publish(self, path: pathlib.Path, disk_format: str = "qcow2") -> None:
        client = self.server.client(TOKEN)
        self.image = client.images.create(
            name=self.id(), disk_format=disk_format,
            container_format="bare").id
        client.images.upload(self.image, io.BytesIO(path.read_bytes()))
        self.key = hashlib.sha1(self.image.encode()).hexdigest()

    def filesystem(self, kind: str = "ext4", size: int = IMAGE_SIZE
                   ) -> pathlib.Path:
        """Make a raw disk that is one file system."""
        path = self.root / f"{kind}.raw"
        (self.root / "files").mkdir(exist_ok=True)
        (self.root / "files/hello").write_bytes(images.content(4 * MiB))
        with path.open("wb") as f:
            f.truncate(size)
        run(f"mkfs.{kind}", "-q", "-F", "-d", self.root / "files", path)
        return path

    def partitioned(self) -> pathlib.Path:
        """Make a raw disk with one partition that is a file system.

        An older file system without partitions has left its superblock.
        """
        path = self.root / "partitioned.raw"
        before = self.filesystem().read_bytes()[SECTOR:MiB]
        inner = self.filesystem(size=IMAGE_SIZE - MiB).read_bytes()
        start, length = MiB // SECTOR, len(inner) // SECTOR
        entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0x83,
                            b"\xff" * 3, start, length)
        table = bytes(446) + entry + bytes(48) + b"\x55\xaa"
        path.write_bytes(table + before + inner)
        return path

    def qcow2(self, raw: pathlib.Path, *arguments: str) -> pathlib.Path:
        path = raw.with_suffix(".qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *arguments,
            raw, path)
        return path

    def configure(self, **options: object) -> None:
        """Write the agent's configuration; ``group__name`` is in a group."""
        groups: dict[str, list[str]] = {
            "DEFAULT": [f"instances_path = {self.instances}"],
            "glance": ["auth_type = admin_token", f"token = {TOKEN}",
                       f"endpoint = {self.server.url}"]}
        for option, value in options.items():
            group, _, name = option.rpartition("__")
            groups.setdefault(group or "DEFAULT", []).append(
                f"{name} = {value}")
        self.config.write_text("".join(
            f"[{group}]\n" + "\n".join(lines) + "\n"
            for group, lines in groups.items()))

    def make(self, size: int = SIZE, api: str = "ImageCache",
             instance: str | None = None) -> recorded.Outcome:
        """Have an agent make a disk; check that it releases its locks."""
        self.instance = instance or str(uuid.uuid4())
        outcome = recorded.run(self.config, api, self.instance, self.image,
                               size)
        self.assertEqual([], outcome.locks)
        return outcome

    def assert_made(self, steps: list[str], **how: object) -> list[str]:
        """Make a disk; check that these are its steps; return its events."""
        outcome = self.make(**how)
        self.assertIsNone(outcome.error, outcome.log)
        self.assertEqual(steps, outcome.steps)
        return [name for name, _ in outcome.events]

    # What is there now.

    def conf(self) -> cfg.ConfigOpts:
        conf = cfg.ConfigOpts()
        opts.register_opts(conf)
        conf([], project="x", default_config_files=[str(self.config)])
        return conf

    def disk(self) -> Disk:
        return ImageCache(self.conf()).disk(self.instance)

    def base(self, suffix: str = "") -> pathlib.Path:
        return self.instances / "_base" / (self.key + suffix)

    def assert_disk(self, format: str, chain: list[tuple[str, str]],
                    size: int = SIZE) -> None:
        """Check a disk, and that all APIs describe it in the same way.

        :param chain: names and formats of what it is read through
        """
        path = self.instances / self.instance / "disk"
        found = json.loads(run(
            "qemu-img", "info", "-U", "--output=json", "--backing-chain",
            "-f", format, path))
        self.assertEqual(size, found[0]["virtual-size"])
        self.assertEqual([("disk", format), *chain], [
            (self.named(each["filename"]), each["format"])
            for each in found])
        self.assertEqual([f for _, f in chain], [
            each["backing-filename-format"] for each in found[:-1]])
        self.assertEqual({str(path): format}, json.loads(
            (path.parent / "disk.info").read_bytes()))
        self.assertEqual((path, format, size), (
            self.disk().path, self.disk().format, self.disk().size()))
        self._assert_nova_says_so(path, format, size)
        shown = json.loads(run(
            sys.executable, "-c", COMMAND, "--config-file", self.config,
            "disk", "show", "--instance", self.instance, "-f", "json"))
        self.assertEqual((str(path), format, size), (
            shown["path"], shown["format"], shown["size"]))

    def _assert_nova_says_so(self, path: pathlib.Path, format: str,
                                   size: int) -> None:
        image = imagebackend.Backend(conf=self.conf()).by_name(
            {"uuid": self.instance}, "disk", disk_info_mapping=MAPPING)
        element = image.libvirt_info("none", {}).format_dom()
        self.assertEqual(
            (format, format, format, str(path), size), (
                image.driver_format, element.find("driver").get("type"),
                image.get_model(None).format,
                element.find("source").get("file"),
                image.get_disk_size(image.path)))

    def assert_files(self, *bases: str, disks: int = 1) -> None:
        """Check which files there are."""
        expected = sorted([
            *(f"_base/{name}{end}" for name in bases
              for end in ("", ".json")),
            *["disk", "disk.info"] * disks])
        found = [path for path in self.instances.rglob("*")
                 if path.is_file() and path.parent.name != "locks"]
        self.assertEqual(expected, sorted(
            str(path.relative_to(self.instances)).replace(self.key, "base")
            if path.parent.name == "_base" else path.name for path in found))
        self.assertEqual([], list(self.instances.glob("_base/.staged/*")))

    def content(self) -> pathlib.Path:
        """Return what a guest reads from the disk, as a raw file."""
        path = self.root / "content"
        run("qemu-img", "convert", "-f", self.disk().format, "-O", "raw",
            self.disk().path, path)
        return path

    def assert_filesystem(self, size: int) -> None:
        """Check the size of the file system, which e2fsck must accept."""
        path = self.content()
        self.assertEqual(size, images.ext_size(path))
        run("e2fsck", "-f", "-n", path)
        run("debugfs", "-R", f"dump /hello {self.root}/hello", path)
        self.assertTrue(images.content(4 * MiB)
                        == (self.root / "hello").read_bytes())

    def assert_content(self, image: pathlib.Path) -> None:
        """Check that a disk begins as its image, and has zeros after that."""
        content = self.content()
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, content)

    def named(self, path: str) -> str:
        return recorded.named(path, self.key, self.instance)


def run(*command: object) -> str:
    try:
        return subprocess.run(
            [str(word) for word in command], check=True, text=True,
            capture_output=True).stdout
    except subprocess.CalledProcessError as e:
        e.add_note(e.stdout + e.stderr)
        raise
