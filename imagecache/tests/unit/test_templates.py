# SPDX-License-Identifier: Apache-2.0
"""What this host makes itself."""

from __future__ import annotations

import re
import subprocess

import ddt

from imagecache import exception
from imagecache.model import GiB, MiB
from imagecache.sources import Template, templates
from imagecache.tests import base


@ddt.ddt
class TemplatesTest(base.TestCase):

    def write(self, template: Template) -> dict[str, str]:
        """Return what blkid finds in what a template wrote, and its size."""
        path = self.root / template.key
        template.write(path)
        found = subprocess.run(["blkid", "-p", "-o", "export", path],
                               stdout=subprocess.PIPE, text=True).stdout
        return {"size": path.stat().st_size, **dict(
            line.split("=", 1) for line in found.splitlines())}

    def test_blank_is_zeros_that_take_no_space(self) -> None:
        self.assertEqual({"size": GiB}, self.write(templates.blank(GiB)))
        path = self.root / f"blank_{GiB}"
        self.assertEqual(0, path.stat().st_blocks)

    def test_swap_is_swap_space_of_whole_mebibytes(self) -> None:
        for size in (2 * MiB, 2 * MiB - 1, MiB + 1):
            template = templates.swap(size)
            self.assertEqual("swap_2", template.key)
            found = self.write(template)
            self.assertEqual((2 * MiB, "swap"),
                             (found["size"], found["TYPE"]))

    @ddt.data(("ext2", MiB), ("ext3", 16 * MiB), ("ext4", 4 * MiB),
              ("vfat", MiB), ("xfs", 300 * MiB))
    @ddt.unpack
    def test_ephemeral_is_a_labelled_file_system(self, fs_type: str,
                                                 size: int) -> None:
        found = self.write(templates.ephemeral(size, fs_type, "eph0"))
        self.assertEqual((size, fs_type, "eph0"), (
            found["size"], found["TYPE"], found["LABEL"]))

    def test_a_size_that_no_file_system_takes_is_the_hosts_fault(
            self) -> None:
        for template in (templates.blank(2**62), templates.swap(2**62)):
            self.assertRaises(exception.HostError, template.write,
                              self.root / "template")

    def test_keys_have_the_shapes_nova_knows(self) -> None:
        for size, expected in ((GiB, 1), (2 * GiB, 2), (GiB + 1, 2)):
            key = templates.ephemeral(size, "ext4", "x").key
            self.assertTrue(re.fullmatch(
                rf"ephemeral_{expected}_[0-9a-f]{{7}}", key), key)

    def test_the_key_says_all_that_decides_the_content(self) -> None:
        made = [templates.ephemeral(*each).key for each in (
            (GiB, "ext4", "a"), (GiB, "ext4", "b"), (GiB, "ext3", "a"),
            (GiB - 1, "ext4", "a"), (GiB, "xfs", "a"))]
        made += [templates.blank(size).key for size in (0, 1, MiB)]
        made += [templates.swap(size).key for size in (MiB, 2 * MiB)]
        self.assertEqual(len(made), len(set(made)))

    def test_the_same_template_has_the_same_key(self) -> None:
        self.assertEqual(templates.ephemeral(GiB, "ext4", "a").key,
                         templates.ephemeral(GiB, "ext4", "a").key)

    @ddt.data("ext5", "", "../x", "swap; id")
    def test_an_unknown_file_system_is_refused(self, fs_type: str) -> None:
        self.assertRaises(exception.InvalidDiskFormat, templates.ephemeral,
                          MiB, fs_type, "x")

    @ddt.data(("ext4", ""), ("ext4", "x" * 17), ("ext4", "ä" * 9),
              ("vfat", "x" * 12), ("xfs", "x" * 13), ("ext4", "a\0b"))
    @ddt.unpack
    def test_a_label_it_cannot_have_is_refused(self, fs_type: str,
                                               label: str) -> None:
        self.assertRaises(exception.InvalidName, templates.ephemeral,
                          MiB, fs_type, label)

    def test_a_label_is_no_option(self) -> None:
        found = self.write(templates.ephemeral(4 * MiB, "ext4", "-n"))
        self.assertEqual("-n", found["LABEL"])
