# SPDX-License-Identifier: Apache-2.0
"""The contract of a place that holds bases: one small protocol.

    absent --stage, commit--> committed --remove--> absent

A directory is one such place (``bases.directory``); a thin pool and a pool
of Ceph are others.  No method takes a lock: BaseCache calls each of them
under the lock of its key.  A store holds no state between two calls: what one
attempt has open belongs to its Staging.

The worked example is ``imagecache.testing.folder_store``.  The test of a store
inherits ``imagecache.testing.base_stores``.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from imagecache.model import Base, Entry, Output, Record, Validated


class Staging(Protocol):
    """One attempt at a base; it vanishes if it is not committed."""

    @property
    def download(self) -> pathlib.Path:
        """The file to which the source's bytes go; it does not exist yet."""

    @property
    def keeps_files(self) -> bool:
        """Whether the download can be committed as it is.

        If not, a base is always raw, and written by writing().
        """

    @property
    def output(self) -> pathlib.Path:
        """What writing() writes to, as the store names it."""

    def writing(self, size: int, needed: int
                ) -> contextlib.AbstractContextManager[Output]:
        """Make a raw output, and yield what qemu-img may write it to.

        It reads as zeros until it is written.  When the block ends, all of
        it survives a power failure.

        :param size: bytes a guest will see
        :param needed: bytes of them that will hold data
        :raises NoSpace: the store has no room for ``needed`` bytes
        :raises StorageFailed: some bytes did not arrive there
        """

    def head(self, size: int) -> bytes:
        """Return the first bytes of the output."""

    def commit(self, validated: Validated, record: Record) -> Base:
        """Make this attempt the base of its key, visible to all.

        The base survives a power failure from then on.

        :param validated: the download or the output, which is flushed
        """


class BaseStore(Protocol):
    """``str()`` of a store tells people where it is."""

    def lookup(self, key: str) -> Entry | None:
        """Return the committed base, or None."""

    def stage(self, key: str, *, in_place: bool = False
              ) -> contextlib.AbstractContextManager[Staging]:
        """Begin an attempt at a base, and clear away abandoned attempts.

        Where several hosts share a store, this waits until no other host
        makes the same base; the base may exist when the wait is over.

        :param in_place: ``download`` is to be the base's own path; until
            the commit, lookup() does not see it
        """

    def attempts(self) -> Iterable[str]:
        """Return the keys of the attempts that this host has not ended."""

    def clear(self, key: str) -> None:
        """Remove this host's abandoned attempts at a base."""

    def record(self, key: str, record: Record) -> Base:
        """Keep the record of a base that exists already."""

    def require(self, key: str) -> None:
        """Make sure of a base after making a disk of it has failed.

        An interrupted remove() is undone.

        :raises BaseNotFound: the base is gone
        """

    def touch(self, key: str) -> None:
        """Remember that the base was used now."""

    def entries(self) -> Iterator[Entry]:
        """Yield every committed base, in the order of their keys."""

    def in_use(self, key: str) -> Sequence[str]:
        """Return the names, for people, of the disks made of a base."""

    def remove(self, key: str) -> None:
        """Delete a base and its record."""
