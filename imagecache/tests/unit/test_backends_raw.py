# SPDX-License-Identifier: Apache-2.0
"""A flat copy of the base, in a file of its own."""

from __future__ import annotations

from imagecache.testing import file_conformance


class RawTest(file_conformance.FileDiskConformance):

    image_type = "raw"
