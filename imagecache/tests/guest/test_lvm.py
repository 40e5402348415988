# SPDX-License-Identifier: Apache-2.0
"""Disks that are logical volumes, on a real volume group."""

from __future__ import annotations

from imagecache.tests.guest import volume_group
from imagecache.tests.guest.volume_group import POOL


class ThickTest(volume_group.LvmConformance):
    pass


class ThinTest(volume_group.LvmConformance):
    pool = POOL
