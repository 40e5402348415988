# SPDX-License-Identifier: Apache-2.0
"""A thin overlay on the base."""

from __future__ import annotations

from imagecache.testing import file_conformance


class Qcow2Test(file_conformance.FileDiskConformance):

    image_type = "qcow2"
