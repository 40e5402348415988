# SPDX-License-Identifier: Apache-2.0
"""The table of backends; a new one is a file and a line here.

Backends of other projects are found by their entry points, in the namespace
``imagecache.backends``; the names of this table are not theirs to take.
"""

from __future__ import annotations

from typing import Any

import stevedore.exception
from stevedore import driver

from imagecache import exception
from imagecache.backends.base import Disk, FileDisk
from imagecache.backends.lvm import Lvm
from imagecache.backends.qcow2 import Qcow2
from imagecache.backends.raw import Raw
from imagecache.backends.rbd import Rbd
from imagecache.policy import Policy

__all__ = ["BACKENDS", "Disk", "FileDisk", "Lvm", "Qcow2", "Raw", "Rbd",
           "backend_for"]

BACKENDS: dict[str, type[Disk]] = {
    "flat": Raw,
    "lvm": Lvm,
    "qcow2": Qcow2,
    "raw": Raw,
    "rbd": Rbd,
}

NAMESPACE = "imagecache.backends"


def backend_for(policy: Policy, image_type: str | None = None) -> type[Disk]:
    """Return the class of a type's disks.

    :param image_type: a name of the table or of an entry point; None for
        what is configured.  ``default`` asks ``use_cow_images``.
    :raises InvalidConfiguration: no backend has this name, or the one that
        has it cannot work as things are configured
    """
    found = _named(image_type or policy.images_type, policy)
    found.require(policy)
    return found


def _named(name: str, policy: Policy) -> type[Disk]:
    if name == "default":
        name = "qcow2" if policy.use_cow else "raw"
    if name in BACKENDS:
        return BACKENDS[name]
    try:
        manager: Any = driver.DriverManager(NAMESPACE, name)
    except stevedore.exception.NoMatches as e:
        raise exception.InvalidConfiguration(
            f"Unknown image_type={name}: there are default, "
            + ", ".join(BACKENDS), option="images_type", value=name) from e
    found: type[Disk] = manager.driver
    return found
