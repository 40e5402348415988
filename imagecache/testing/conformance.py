# SPDX-License-Identifier: Apache-2.0
"""The promises of every backend, as tests to inherit.

The test of a backend inherits all of them and names the backend::

    class LvmTest(conformance.DiskConformance):
        image_type = "lvm"

A test class of the backend adds only the promises that no other backend makes.

A backend may have variants: configurations that change a part of what it does,
such as thin volumes.  One test class of the backend inherits
``DiskConformance``.  The class of a variant inherits only the subjects that
the difference can affect, and its docstring says why::

    class ThinTest(conformance.MakingConformance,
                   conformance.GrowingConformance):
        \"\"\"A thin volume is allocated and extended by other commands.\"\"\"

=========================  ==================================================
``MakingConformance``      content and size of a new disk
``RefusingConformance``    a refused request leaves nothing
``GrowingConformance``     growing, and never shrinking
``GeneratingConformance``  swap, file systems and blank disks
``ExtractingConformance``  copies of the content
``RemovingConformance``    removal of a disk
``BaseConformance``        the base that disks share
=========================  ==================================================
"""

from __future__ import annotations

from imagecache.testing.disk_case import INSTANCE, OTHER, SIZE, DiskTestCase
from imagecache.testing.disk_promises import (
    BaseConformance,
    ExtractingConformance,
    GeneratingConformance,
    GrowingConformance,
    MakingConformance,
    RefusingConformance,
    RemovingConformance,
)

__all__ = ("INSTANCE", "OTHER", "SIZE", "BaseConformance", "DiskConformance",
           "DiskTestCase", "ExtractingConformance", "GeneratingConformance",
           "GrowingConformance", "MakingConformance", "RefusingConformance",
           "RemovingConformance")


class DiskConformance(MakingConformance, RefusingConformance,
                      GrowingConformance, GeneratingConformance,
                      ExtractingConformance, RemovingConformance,
                      BaseConformance):
    """All promises.  Inherit this class and set ``image_type``.

    The test of a backend whose disks are not files also overrides the
    methods of ``DiskTestCase`` that read, write and list disks.
    """
