# SPDX-License-Identifier: Apache-2.0
"""What a place must offer to hold bases: one small protocol.

    absent --stage, commit--> committed --remove--> absent

A directory is one such place; a pool or a volume group can be another.  No
method takes a lock: BaseCache calls each of them under the lock of its key.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from imagecache.model import Base, Entry, Record, Validated
from imagecache.tools import qemu_img


class Staging(Protocol):
    """Room for one attempt; what is not committed vanishes with it."""

    @property
    def download(self) -> pathlib.Path:
        """The file that the source's bytes go to; there is nothing yet."""

    @property
    def keeps_files(self) -> bool:
        """Whether the download can be committed as it is.

        Where it cannot, a base is always raw, and written by writing().
        """

    @property
    def output(self) -> pathlib.Path:
        """What writing() writes to, as the store names it."""

    def writing(self, size: int, needed: int
                ) -> contextlib.AbstractContextManager[qemu_img.Output]:
        """Make a raw output, and yield what qemu-img may write it to.

        It reads as zeros until it is written.  When the block ends, all of
        it survives a power failure.

        :param size: bytes a guest will see
        :param needed: bytes of them that will hold data
        :raises NoSpace: the store cannot take as many
        :raises StorageFailed: something did not arrive there
        """

    def head(self, size: int) -> bytes:
        """Return the first bytes of the output."""


class BaseStore(Protocol):
    """``str()`` of one says to people where it is."""

    def lookup(self, key: str) -> Entry | None:
        """Return the committed base, or None."""

    def stage(self, key: str, *, in_place: bool = False
              ) -> contextlib.AbstractContextManager[Staging]:
        """Make room for one attempt to fetch, and clear away dead ones.

        Where several hosts share a store, this waits until no other is at
        it; so the base may be there when the wait is over.

        :param in_place: ``download`` is to be the base's own path; until
            the commit, lookup() does not see it
        """

    def commit(self, key: str, validated: Validated, record: Record) -> Base:
        """Make a staged, validated base visible.

        It survives a power failure from then on.
        """

    def record(self, key: str, record: Record) -> Base:
        """Write down what was validated of a base that is there already."""

    def touch(self, key: str) -> None:
        """Remember that the base was used now."""

    def entries(self) -> Iterator[Entry]:
        """Yield every committed base, in the order of their keys."""

    def in_use(self, key: str) -> Sequence[str]:
        """Return the disks that are made of a base, as people name them."""

    def remove(self, key: str) -> None:
        """Delete a base and its record."""
