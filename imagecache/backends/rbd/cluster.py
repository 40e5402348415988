# SPDX-License-Identifier: Apache-2.0
"""How a host reaches its cluster, and what its disks and bases are called."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from typing import Self

from imagecache.policy import RbdPolicy
from imagecache.tools import rbd

# A base is the volume <pool>/imagecache_base_<key>, at this snapshot of it.
_PREFIX = "imagecache_base_"
BASE_SNAPSHOT = "base"


@dataclasses.dataclass(frozen=True)
class RbdName:
    """A volume of a cluster: Ceph calls it an image in a pool."""

    pool: str
    image: str

    def __str__(self) -> str:
        return f"{self.pool}/{self.image}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the volume that ``pool/image`` names, or None."""
        pool, slash, image = text.partition("/")
        return cls(pool, image) if pool and slash and image else None

    @classmethod
    def of_base(cls, pool: str, key: str) -> Self:
        return cls(pool, _PREFIX + key)

    @property
    def base_key(self) -> str | None:
        """The key of the base that has this name; None: it is no base."""
        return self.image.removeprefix(_PREFIX) \
            if self.image.startswith(_PREFIX) else None

    @property
    def path(self) -> pathlib.Path:
        """The name as callers of this library know it: a path to show."""
        return pathlib.Path(self.pool, self.image)


def connected(policy: RbdPolicy
              ) -> contextlib.AbstractContextManager[rbd.Cluster]:
    """Yield the cluster of a host; see tools.rbd.connected()."""
    return rbd.connected(_access(policy))


def separately_connected(policy: RbdPolicy
                         ) -> contextlib.AbstractContextManager[rbd.Cluster]:
    """Yield it by a connection that no other block shares."""
    return rbd.separately_connected(_access(policy))


def _access(policy: RbdPolicy) -> rbd.Access:
    return rbd.Access(policy.conf, policy.user, policy.connect_timeout,
                      policy.timeout)
