# SPDX-License-Identifier: Apache-2.0
"""Images are inspected while they arrive, by two opinions."""

from __future__ import annotations

import pathlib
import subprocess

from imagecache import exception
from imagecache.formats import qcow2
from imagecache.formats.rules import RuleViolation, require
from imagecache.inspection.inspector import Found, Inspector, inspect
from imagecache.model import NATIVE, Format, MiB, whole_sectors
from imagecache.testing import images
from imagecache.tests import base

FOREIGN = (("vmdk", "monolithicSparse", Format.VMDK),
           ("vmdk", "streamOptimized", Format.VMDK),
           ("vpc", "dynamic", Format.VPC),
           ("vhdx", "dynamic", Format.VHDX),
           ("vhdx", "fixed", Format.VHDX),
           ("vdi", None, Format.VDI))


class InspectorTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "image"

    def make(self, format: str, options: str = "") -> pathlib.Path:
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", format,
             *(["-o", options] if options else []), self.path, "4M"],
            check=True)
        return self.path

    def refused(self, rule: str, claim: str | None = None,
                accepted: tuple[Format, ...] = NATIVE) -> str:
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            inspect(self.path, "x", claim, accepted)
        self.assertEqual(rule, caught.exception.facts["rule"])
        self.assertIn(f"rule {rule}", str(caught.exception))
        return str(caught.exception)


class InspectorTest(InspectorTestCase):

    def test_a_qcow2_image_is_recognized_with_and_without_a_claim(
            self) -> None:
        for claim in (None, "qcow2"):
            self.assertEqual(
                Found(Format.QCOW2, 4 * MiB),
                inspect(self.make("qcow2"), "x", claim, NATIVE))

    def test_an_image_without_a_known_mark_is_raw(self) -> None:
        self.path.write_bytes(b"any" * 1000)
        for claim in (None, "raw", "ami", "aki", "ari"):
            self.assertEqual(Found(Format.RAW, 3072),
                             inspect(self.path, "x", claim, NATIVE))
        self.refused("claim", "iso")

    def test_an_iso_image_is_raw_whether_claimed_as_iso_or_raw(self) -> None:
        self.path.write_bytes(images.iso())
        for claim in (None, "raw", "iso"):
            self.assertEqual(Format.RAW, inspect(
                self.path, "x", claim, NATIVE).format)

    def test_content_and_claim_must_agree(self) -> None:
        self.make("qcow2")
        for claim in ("raw", "iso", "ami"):
            self.refused("claim", claim)
        self.path.write_bytes(bytes(1024))
        self.refused("claim", "qcow2")

    def test_an_unknown_format_is_refused(self) -> None:
        self.path.write_bytes(bytes(1024))
        self.refused("claim-known", "ploop")
        self.path.write_bytes(b"QED\0" + bytes(1024))
        self.refused("format-known")

    def test_an_empty_image_is_refused(self) -> None:
        self.path.touch()
        self.refused("empty")

    def test_an_image_of_two_formats_is_refused(self) -> None:
        """The qcow2 file is an ISO 9660 file system, too."""
        content = bytearray(self.make("qcow2").read_bytes())
        content[32769:32774] = b"CD001"
        self.path.write_bytes(content)
        self.assertIn("iso", self.refused("second-opinion"))

    def test_an_inspector_that_fails_on_text_is_ignored(self) -> None:
        """The vmdk inspector of oslo.utils fails on text and other bytes."""
        text = b"#!/bin/sh\n# and an archive\n" * 99 + b"\xff" * 40960
        self.path.write_bytes(text)
        for claim in (None, "raw"):
            self.assertEqual(Found(Format.RAW, whole_sectors(len(text))),
                             inspect(self.path, "x", claim, NATIVE))

    def test_the_other_inspectors_count_if_one_fails(self) -> None:
        text = b"#!/bin/sh\n# and a disc\n" * 99 + b"\xff" * 40960
        self.path.write_bytes(text)
        self.refused("claim", "iso")
        self.path.write_bytes(text[:32769] + b"CD001" + text[32774:])
        self.assertEqual(Format.RAW, inspect(
            self.path, "x", "iso", NATIVE).format)

    def test_an_image_that_ends_too_early_is_refused_at_its_end(self) -> None:
        """Only the size of the file shows that the image is cut off."""
        content = self.make("qcow2").read_bytes()
        inspector = Inspector("x", None, NATIVE)
        inspector.feed(content[:65536])
        self.path.write_bytes(content[:65536])
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            inspector.finish(self.path)
        self.assertEqual("l1-place", caught.exception.facts["rule"])

    def test_the_size_of_pieces_does_not_change_the_result(self) -> None:
        content = self.make("qcow2", "cluster_size=512").read_bytes()
        inspector = Inspector("x", "qcow2", NATIVE)
        for start in range(0, len(content), 7):
            inspector.feed(content[start:start + 7])
        self.assertEqual(Found(Format.QCOW2, 4 * MiB),
                         inspector.finish(self.path))


class ForeignTest(InspectorTestCase):

    def test_foreign_formats_are_refused_by_default(self) -> None:
        for name, subformat, _ in FOREIGN:
            self.make(name, f"subformat={subformat}" if subformat else "")
            self.assertIn("accepted_formats", self.refused("format-accepted"))

    def test_foreign_formats_are_recognized_where_they_are_accepted(
            self) -> None:
        claims = {Format.VPC: "vhd"}
        for name, subformat, found in FOREIGN:
            self.make(name, f"subformat={subformat}" if subformat else "")
            size = inspect(self.path, "x", claims.get(found, found),
                           (*NATIVE, found)).virtual_size
            self.assertTrue(4 * MiB <= size < 5 * MiB, (name, size))

    def test_a_vmdk_that_names_other_files_is_refused(self) -> None:
        for subformat in ("monolithicFlat", "twoGbMaxExtentSparse"):
            self.make("vmdk", f"subformat={subformat}")
            with self.assertRaises(exception.ImageUnacceptable):
                inspect(self.path, "x", None, (*NATIVE, Format.VMDK))
            self.path.unlink()


class RulesTest(InspectorTestCase):
    """Each rule of qcow2 refuses what breaks that rule alone."""

    def test_every_rule_of_qcow2_can_be_broken_alone(self) -> None:
        content = self.make("qcow2").read_bytes()
        broken = {
            "data-file": [(79, b"\4")],
            "backing-file": [(8, (600).to_bytes(8)), (16, (1).to_bytes(4)),
                             (600, b"a")],
            "virtual-size": [(24, bytes(8))],
            "features": [(79, b"\x40")],
            "compression": [(104, b"\1")],
            "extended-l2": [(20, (13).to_bytes(4)), (79, b"\x10")],
            "refcount-order": [(96, (7).to_bytes(4))],
            "encryption": [(32, (2).to_bytes(4))],
            "l1-size": [(36, (0).to_bytes(4))],
            "l1-place": [(40, (2**40).to_bytes(8))],
            "refcount-size": [(56, (0).to_bytes(4))],
            "refcount-place": [(48, (2**40).to_bytes(8))],
            "snapshots": [(60, (1).to_bytes(4))],
        }
        names = {rule.name for rule in qcow2.SELF_CONTAINED} - {"whole"}
        self.assertEqual(names, set(broken))
        for rule, patches in broken.items():
            patched = bytearray(content)
            for offset, data in patches:
                patched[offset:offset + len(data)] = data
            with self.assertRaises(RuleViolation) as caught:
                require(qcow2.SELF_CONTAINED,
                        qcow2.parse(bytes(patched), len(content)))
            self.assertEqual(rule, caught.exception.rule)


class CutTest(InspectorTestCase):
    """An image with all its tables, and without all its data."""

    def test_an_image_without_its_last_data_is_refused(self) -> None:
        data = self.root / "data"
        data.write_bytes(b"x" * 4 * MiB)
        for options in ("compat=0.10", "cluster_size=512", "refcount_bits=1",
                        "refcount_bits=64", "extended_l2=on"):
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2",
                            "-o", options, data, self.path], check=True)
            self.assertEqual(
                4 * MiB, inspect(self.path, "x", None, NATIVE).virtual_size)
            with self.path.open("r+b") as f:
                f.truncate(3 * MiB)
            self.refused("all-data")
