# SPDX-License-Identifier: Apache-2.0
"""A cache that encrypts every disk, for the tests of encrypted disks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import fixtures

from imagecache import Encryption, ImageCache, exception, fixture
from imagecache.backends.base import Disk
from imagecache.model import MiB
from imagecache.system import execute
from imagecache.testing import conformance, images
from imagecache.testing.conformance import INSTANCE, SIZE
from imagecache.tests import base

PASSPHRASE = b"not to be seen anywhere: 3d9a7c"
KEY = Encryption(PASSPHRASE, iter_time=10)
ODD_KEY = Encryption("gehéim, 3d9a7c".encode(), iter_time=10)
WRONG = Encryption(b"another", iter_time=10)
CONTENT = images.content(MiB)


class EncryptingCache(ImageCache):
    """An ImageCache that passes ``KEY`` with every call that takes a key.

    :raises AssertionError: from each call, if the disk is not encrypted
    """

    def disk(self, *arguments: Any, **options: Any) -> Disk:
        return encrypted(super().disk(*arguments, **with_key(options)))

    def create_disk(self, *arguments: Any, **options: Any) -> Disk:
        return encrypted(super().create_disk(*arguments, **with_key(options)))

    def create_blank(self, *arguments: Any, **options: Any) -> Disk:
        return encrypted(super().create_blank(*arguments,
                                              **with_key(options)))

    def create_swap(self, *arguments: Any, **options: Any) -> Disk:
        return encrypted(super().create_swap(*arguments, **with_key(options)))

    def create_ephemeral(self, *arguments: Any, **options: Any) -> Disk:
        return encrypted(super().create_ephemeral(*arguments,
                                                  **with_key(options)))


class FixedIterations(fixtures.Fixture):
    """Has cryptsetup(8) stretch a passphrase by a fixed count of iterations.

    Otherwise it measures the processor for two seconds to find the count.
    """

    def _setUp(self) -> None:
        run = execute.run

        def run_fixed(*command: str, **options: Any) -> str:
            words = [*command]
            if words[0] == "cryptsetup" and "--iter-time" in words:
                at = words.index("--iter-time")
                words[at:at + 2] = ["--pbkdf-force-iterations", "1000"]
            return run(*words, **options)

        self.useFixture(fixtures.MonkeyPatch("imagecache.system.execute.run",
                                             run_fixed))


def with_key(options: dict[str, Any]) -> dict[str, Any]:
    return {"encryption": KEY} | options


def encrypted(disk: Disk) -> Disk:
    assert disk.encrypts, f"{disk.path} is not encrypted"
    return disk


class EncryptingTestCase(conformance.DiskTestCase):
    """A DiskTestCase whose disks are all encrypted."""

    # True if space that no program has written reads as noise, not as zeros.
    noise_behind = False

    @property
    def cache(self) -> ImageCache:
        return EncryptingCache(self.images.conf, glance=self.images.store,
                               observe=self.images.events.append)

    def visible(self, disk: Disk, content: bytes) -> bytes:
        """Return what a guest reads, with zeros in place of noise."""
        if self.noise_behind and disk.name == "disk":
            return content[:SIZE] + bytes(len(content[SIZE:]))
        return content


class FileDiskTestCase(base.TestCase):
    """Disks in files, encrypted with ODD_KEY; it sees programs and logs."""

    image_type: str

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("libvirt", images_type=self.image_type)
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        self.commands: list[tuple[str, ...]] = []
        run = execute.run

        def recording(*command: str, **options: object) -> str:
            self.commands.append(command)
            return run(*command, **options)

        self.useFixture(fixtures.MonkeyPatch("imagecache.system.execute.run",
                                             recording))

    def make(self, size: int | None = None) -> Disk:
        image = self.images.add(images.qcow2(CONTENT), "qcow2")
        return self.images.cache.create_disk(INSTANCE, image, size=size,
                                             encryption=ODD_KEY)

    def described(self, encryption: Encryption | None = None) -> Disk:
        return self.images.cache.disk(INSTANCE, encryption=encryption)

    def content(self, disk: Disk) -> bytes:
        output = self.root / "output"
        disk.extract(output, "raw")
        return output.read_bytes()

    def assert_no_secret_is_seen(self) -> None:
        """Look for the key in arguments of programs, in logs and in files."""
        self.assertNotIn("3d9a7c", f"{self.commands} {self.log.output}"
                                   f" {self.images.events}")
        for path in self.images.instances_path.rglob("*"):
            if path.is_file():
                self.assertNotIn(ODD_KEY.passphrase, path.read_bytes())

    def assert_asks_for_its_key(self, *acts: Callable[..., object]) -> None:
        (self.root / "output").unlink()
        for encryption, error in ((None, exception.KeyRequired),
                                  (WRONG, exception.WrongKey)):
            disk = self.described(encryption)
            for act in acts:
                with self.assertRaises(error):
                    act(disk)
            self.assertFalse((self.root / "output").exists())
