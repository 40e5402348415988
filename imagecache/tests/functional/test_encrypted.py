# SPDX-License-Identifier: Apache-2.0
"""Encrypted disks in files keep the promises of their backends.

These are functional tests because qemu needs seconds to encrypt one disk.
"""

from __future__ import annotations

import pathlib
import subprocess
import tempfile

from imagecache.backends.base import Disk
from imagecache.model import MiB, whole_sectors
from imagecache.testing import conformance
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import encrypting
from imagecache.tests.encrypting import KEY, PASSPHRASE
from imagecache.tests.functional import base as functional_base
from imagecache.tests.functional import boot


class FileTestCase(encrypting.EncryptingTestCase):

    def read(self, disk: Disk) -> bytes:
        with tempfile.TemporaryDirectory() as directory:
            output = pathlib.Path(directory, "output")
            disk.extract(output, "raw")
            return self.visible(disk, output.read_bytes())

    def write(self, disk: Disk, data: bytes) -> None:
        how = "luks,key-secret=key" if disk.format == "raw" else \
            "qcow2,encrypt.format=luks,encrypt.key-secret=key"
        with tempfile.NamedTemporaryFile() as f:
            size = whole_sectors(len(data))
            f.write(data.ljust(size, b"\0"))
            f.flush()
            subprocess.run(
                ["qemu-io", "--object", "secret,id=key,file=/dev/stdin",
                 "--image-opts", f"driver={how},file.filename={disk.path}",
                 "-c", f"write -q -s {f.name} 0 {size}"],
                input=PASSPHRASE, check=True)


class EncryptedQcow2Test(FileTestCase, conformance.MakingConformance,
                         conformance.GrowingConformance,
                         conformance.GeneratingConformance,
                         conformance.ExtractingConformance,
                         conformance.RemovingConformance):
    """An encrypted overlay keeps the promises that encryption affects.

    Encryption changes each program that makes, grows or reads the disk and
    adds the record ``disk.luks``; requests are refused, and bases kept, before
    the key is used, as ``Qcow2Test`` checks.
    """

    image_type = "qcow2"


class EncryptedRawTest(FileTestCase, conformance.MakingConformance,
                       conformance.GrowingConformance,
                       conformance.GeneratingConformance,
                       conformance.ExtractingConformance,
                       conformance.RemovingConformance):
    """An encrypted copy keeps the promises that encryption affects.

    Encryption changes each program that makes, grows or reads the disk and
    adds the record ``disk.luks``; requests are refused, and bases kept, before
    the key is used, as ``RawTest`` checks.
    """

    image_type = "raw"
    noise_behind = True

    def test_extracting_copies_the_content(self) -> None:
        disk, output = self.make(), self.images.instances_path / "snapshot"
        disk.extract(output, "raw")
        self.assertTrue(self.content == output.read_bytes())


class EncryptedBootTest(functional_base.TestCase):
    """A guest boots from an encrypted disk; the guest has no key."""

    def assert_it_boots(self, image_type: str, opened_as: str) -> None:
        image = self.useFixture(boot.BootImage())
        disk = self.cache().create_disk(
            INSTANCE, str(image.path), size=128 * MiB, image_type=image_type,
            encryption=KEY)
        for times in (1, 2):
            report = image.boot(
                disk.path, opened_as, "-object",
                f"secret,id=key,data={PASSPHRASE.decode()}")
            self.assertEqual((128 * MiB, times),
                             (report.disk_bytes, report.boots))

    def test_from_qcow2(self) -> None:
        self.assert_it_boots(
            "qcow2", "qcow2,encrypt.format=luks,encrypt.key-secret=key")

    def test_from_raw(self) -> None:
        self.assert_it_boots("raw", "luks,key-secret=key")
