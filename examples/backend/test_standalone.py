# SPDX-License-Identifier: Apache-2.0
"""Standalone keeps the promises of all backends whose disks are files."""

from __future__ import annotations

from imagecache.testing import file_conformance


class StandaloneTest(file_conformance.FileDiskConformance):
    image_type = "standalone"
