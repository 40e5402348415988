# SPDX-License-Identifier: Apache-2.0
"""A process that outlives qemu-img and still has its output open.

The sandbox prevents such a process.  Here qemu-img is made to leave one, as if
there were no sandbox or as if it had failed.
"""

from __future__ import annotations

import pathlib
import subprocess

import fixtures

from imagecache import exception, fixture
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import base
from imagecache.tools import qemu_img

# It opens a file for writing, says so, and waits.
WRITER = 'exec 3<>"$1"; echo; exec sleep 60'


class OpenOutputTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.image = self.images.add(images.qcow2(images.content(MiB)),
                                     "qcow2")
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.system.leases._PATIENCE", 0.05))

    def leave_a_writer(self) -> None:
        convert = qemu_img.convert

        def leaving(source: pathlib.Path, source_format: object,
                    output: pathlib.Path, *options: object,
                    **more: object) -> None:
            convert(source, source_format, output, *options, **more)
            writer = subprocess.Popen(
                ["sh", "-c", WRITER, "sh", output], stdout=subprocess.PIPE)
            self.addCleanup(writer.communicate)
            self.addCleanup(writer.kill)
            writer.stdout.readline()

        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.tools.qemu_img.convert", leaving))

    def assert_refused(self, caught: object) -> None:
        self.assertIn("open for writing", str(caught.exception))

    def test_a_base_that_a_process_can_still_change_is_not_committed(
            self) -> None:
        self.leave_a_writer()
        with self.assertRaises(exception.StorageFailed) as caught:
            self.images.cache.create_disk(INSTANCE, self.image)
        self.assert_refused(caught)
        self.assertEqual([], list(self.images.cache.bases()))
        self.assertFalse(self.images.cache.disk(INSTANCE).exists())

    def test_a_file_that_a_process_can_still_change_is_not_extracted(
            self) -> None:
        disk = self.images.cache.create_disk(INSTANCE, self.image)
        self.leave_a_writer()
        output = self.root / "output"
        for output_format in ("raw", "qcow2", "vdi"):
            with self.assertRaises(exception.StorageFailed) as caught:
                disk.extract(output, output_format)
            self.assert_refused(caught)
        self.assertEqual([], list(self.root.iterdir()))
