# SPDX-License-Identifier: Apache-2.0
"""A block device in a pool.  Ceph calls it an image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from imagecache import exception
from imagecache.model import MiB
from imagecache.tools import ceph

_NEAR = 64 * MiB

Done = Callable[[exception.HostError | None], None]


class Volume:

    def __init__(self, path: str, image: Any) -> None:
        self.path = path
        self._image = image
        _, self._rbd = ceph.bindings()

    def size(self) -> int:
        with self._doing("reading the size"):
            return int(self._image.size())

    def resize(self, size: int) -> None:
        with self._doing("resizing"):
            self._image.resize(size)

    def lock(self) -> bool:
        """Take the exclusive lock; return False if another client holds it.

        If its holder died, this waits until the cluster has noticed, which
        takes 30 seconds by default.  After that, no write of the dead holder
        can arrive.

        :raises StorageMissing: the volume was removed since it was opened
        """
        try:
            with self._doing("locking"):
                self._image.lock_acquire(self._rbd.RBD_LOCK_MODE_EXCLUSIVE)
        except exception.StorageBusy:
            return False
        except exception.StorageUnreachable as e:
            if not isinstance(e.__cause__, self._rbd.ConnectionShutdown):
                raise
            # The error also means that this client was fenced off.  Then the
            # next operation fails.
            raise exception.StorageMissing(
                what="locking", path=self.path, reason=str(e)) from e
        return True

    def is_open_for_writing(self) -> bool:
        """Say whether any client has it open, other than read-only.

        A client that died counts until Ceph misses it (30 seconds).

        :raises StorageMissing: it was removed since it was opened
        """
        with self._doing("reading the watchers"):
            return any(True for _ in self._image.watchers_list())

    def read(self, offset: int, size: int) -> bytes:
        with self._doing("reading"):
            return bytes(self._image.read(offset, size))

    def write(self, data: bytes, offset: int, done: Done) -> None:
        """Start a write; ``done`` is called in another thread."""
        with self._doing("writing"):
            self._image.aio_write(data, offset, self._reporting(done))

    def zero(self, size: int, offset: int, done: Done) -> None:
        """Start to write zeros, which take no space."""
        with self._doing("writing"):
            self._image.aio_write_zeroes(offset, size, self._reporting(done))

    def flush(self) -> None:
        """Flush all writes to the cluster."""
        with self._doing("writing"):
            self._image.flush()

    def allocated(self) -> int:
        """Return about how many bytes it uses, without those of its parent."""
        return self._allocated(0, self.size())

    def is_blank(self) -> bool:
        """Tell whether it has neither data of its own nor snapshots."""
        # Most volumes with data have some near the beginning.
        size = self.size()
        near = min(size, _NEAR)
        return not (self.snapshots() or self._allocated(0, near)
                    or self._allocated(near, size - near))

    def _allocated(self, offset: int, size: int) -> int:
        if not size:
            return 0      # librbd would abort this process
        found = 0

        def count(offset: int, size: int, exists: bool) -> None:
            nonlocal found
            found += size if exists else 0

        with self._doing("measuring"):
            self._image.diff_iterate(offset, size, None, count,
                                     include_parent=False, whole_object=True)
        return found

    def parent(self) -> tuple[str, str, str] | None:
        """Return pool, volume and snapshot of its parent, if it is a clone."""
        try:
            with self._doing("reading the parent"):
                pool, name, snapshot = self._image.parent_info()
                return pool, name, snapshot
        except exception.StorageMissing:
            return None

    def flatten(self) -> None:
        with self._doing("flattening"):
            self._image.flatten()

    def children(self, snapshot: str) -> list[str]:
        """Return the clones of a snapshot, also those in the trash."""
        with self._doing("listing the clones"):
            self._image.set_snap(snapshot)
            try:
                found = list(self._image.list_children2())
            finally:
                self._image.set_snap(None)
        return sorted(
            "/".join(filter(None, (each["pool"], each["pool_namespace"],
                                   each["image"])))
            + (" (in the trash)" if each["trash"] else "") for each in found)

    def snapshots(self) -> list[str]:
        with self._doing("listing the snapshots"):
            return [each["name"] for each in self._image.list_snaps()
                    if each["namespace"]
                    == self._rbd.RBD_SNAP_NAMESPACE_TYPE_USER]

    def is_protected(self, snapshot: str) -> bool:
        """Tell whether the snapshot exists and is protected."""
        try:
            with self._doing("reading the protection of a snapshot"):
                return bool(self._image.is_protected_snap(snapshot))
        except exception.StorageMissing:
            return False

    def create_snapshot(self, name: str) -> None:
        with self._doing("making a snapshot"):
            self._image.create_snap(name)

    def protect(self, snapshot: str) -> None:
        with self._doing("protecting a snapshot"):
            self._image.protect_snap(snapshot)

    def unprotect(self, snapshot: str) -> None:
        """:raises StorageBusy: clones need the protection"""
        with self._doing("unprotecting a snapshot"):
            self._image.unprotect_snap(snapshot)

    def remove_snapshot(self, name: str) -> None:
        with self._doing("removing a snapshot"):
            self._image.remove_snap(name)

    def roll_back(self, snapshot: str) -> None:
        with self._doing("rolling back"):
            self._image.rollback_to_snap(snapshot)

    def get_metadata(self, key: str) -> str | None:
        try:
            with self._doing("reading"):
                return str(self._image.metadata_get(key))
        except KeyError:
            return None

    def set_metadata(self, key: str, value: str) -> None:
        """Store a value in the metadata of the volume."""
        with self._doing("writing metadata"):
            self._image.metadata_set(key, value)

    def _reporting(self, done: Done) -> Callable[[Any], None]:
        def completed(completion: Any) -> None:
            code = completion.get_return_value()
            done(ceph.failure(-code, "", "writing", self.path) if code < 0
                 else None)
        return completed

    def _doing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return ceph.translated(what, self.path)
