# SPDX-License-Identifier: Apache-2.0
"""How to write a backend: a kind of disk.

Subclass Disk, implement its abstract methods, declare ``capabilities``, and
have a test inherit ``imagecache.testing.conformance``.  In this tree, add a
line to backends.BACKENDS; elsewhere, an entry point in the namespace
``imagecache.backends``.

    absent --create/generate--> present --grow*--> present --remove--> absent

The worked example is ``examples/backend``: a whole backend, its test and its
entry point, which need only promised names.

Constructors only remember their arguments: a Disk may describe a disk that
does not exist, and describing one changes nothing.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import ClassVar, Protocol, runtime_checkable

from imagecache import events, exception, sources
from imagecache.bases import resize
from imagecache.bases.cache import BaseCache
from imagecache.events import Name
from imagecache.host import Host
from imagecache.model import Base, Capabilities, Format, Limits
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import qemu_img

# The formats a disk can be extracted to, and qemu's words for them.
EXTRACTS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi",
            "vhd": "vpc", "vhdx": "vhdx"}
# An extracted file holds a guest's data, in the clear.
_EXTRACTED_MODE = 0o600
# A file system takes 255 bytes, and the name of an unfinished file is longer.
_LONGEST_NAME = 200


def _require_name(output: pathlib.Path) -> None:
    """:raises InvalidName: no new file can have this path"""
    try:
        path, name = os.fsencode(output), os.fsencode(output.name)
    except UnicodeEncodeError:
        path = name = b"\0"
    if not name or b"\0" in path or len(name) > _LONGEST_NAME:
        raise exception.InvalidName(
            name=str(output), what="the path of a file",
            reason=f"its name must have 1 to {_LONGEST_NAME} bytes, none of"
            " them zero")


class Disk(abc.ABC):
    """One disk of one instance on one host.

    :param name: of the disk within its instance, such as ``disk``
    :param path: of the disk; None: it follows from the names
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    # A disk on record in another format belongs to another backend.
    formats: ClassVar[Collection[Format]] = tuple(Format)
    encrypts: ClassVar[bool] = False

    def __init__(self, host: Host, instance: str, name: str,
                 path: pathlib.Path | None = None) -> None:
        self.host = host
        self.instance = instance
        self.name = name
        self._path = path

    @classmethod    # noqa: B027  (most have nothing to refuse)
    def require(cls, policy: Policy) -> None:
        """Refuse a configuration with which no such disk can be made.

        :raises InvalidConfiguration: an option or a library is missing
        """

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        """Return the cache of the bases that such disks are made from."""
        return host.directory_cache

    @classmethod
    def listed(cls, host: Host, instance: str | None = None
               ) -> Iterator[Disk]:
        """Yield the disks of one instance, or of all, that are not files.

        Disks that are files are found by the records in the directories of
        their instances.
        """
        return iter(())

    @functools.cached_property
    def cache(self) -> BaseCache:
        """The cache of the bases that the disk can be made from."""
        return self.cache_of(self.host)

    @property
    @abc.abstractmethod
    def path(self) -> pathlib.Path:
        """Where the hypervisor finds it: a file, a device, pool/name."""

    @property
    @abc.abstractmethod
    def format(self) -> Format:
        """The format in which the hypervisor must read it.

        It comes from a record, and is never detected.
        """

    def recorded(self) -> Format | None:
        """Return the format on record; None: there is no record."""
        return None

    def is_encrypted(self) -> bool:
        """Return whether the disk is on record as encrypted."""
        return False

    def session(self) -> contextlib.AbstractContextManager[object]:
        """Keep the connection to the disk's storage open during the block."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def exists(self) -> bool:
        """Return True once create() or generate() has succeeded."""

    @abc.abstractmethod
    def create(self, base: Base, size: int | None) -> None:
        """Make the disk from ``base``; leave nothing behind on failure.

        :param size: bytes the guest must see; None or 0: what the base has
        :raises DiskExists: another process has made the disk meanwhile
        """

    def open(self) -> None:
        """Activate the disk, for example after a reboot of the host.

        Most kinds of disks need no activation.

        :raises KeyRequired, WrongKey: it is encrypted
        """
        return

    @abc.abstractmethod
    def size(self) -> int:
        """Return the bytes the guest sees.

        :raises DiskNotFound: there is no disk
        """

    @abc.abstractmethod
    def grow(self, size: int) -> None:
        """Grow to ``size`` bytes; do nothing if it is that large already.

        No guest may be running on the disk: its file system may grow as well.

        :raises DiskNotFound: there is no disk
        :raises StorageBusy: a process has it open for writing, where that can
            be known; the disk is unchanged
        """

    @abc.abstractmethod
    def remove(self) -> None:
        """Delete the disk; do nothing if there is none."""

    def allocated(self) -> int:
        """Return the bytes of storage the disk occupies.

        :raises DiskNotFound: there is no disk
        """
        return self.size()

    def base_key(self) -> str | None:
        """Return the key of the base it reads from; None: it has none.

        :raises DiskNotFound: there is no disk
        """
        return None

    def base_format(self) -> Format | None:
        """Return the format in which it reads that base; None: either.

        :raises DiskNotFound: there is no disk
        """
        return None

    def lease(self, source: sources.Source, size: int | None
              ) -> contextlib.AbstractContextManager[Base]:
        """Lease the base that the disk is to be made from.

        :raises ImageError, SourceError, HostError: there is none
        """
        return self.cache.lease(source, size)

    def clone(self, source: sources.Source, size: int | None) -> bool:
        """Make the disk a clone of the image itself, without a base.

        :return: False if the disk cannot be a clone; then nothing has changed
        :raises ImageError: the image is refused
        """
        return False

    def generate(self, template: sources.Template,
                 size: int | None) -> None:
        """Have a template fill the disk; only if ``generates_in_place``."""
        raise NotImplementedError

    def _extract(self, output: pathlib.Path, output_format: str,
                 backing: pathlib.Path | None = None) -> None:
        """Copy the content into a new file, which appears complete."""
        if output_format not in EXTRACTS:
            raise exception.InvalidDiskFormat(disk_format=output_format)
        compress = output_format == Format.QCOW2 \
            and self.host.policy.compress_snapshots
        _require_name(output)
        with durable.translated("extracting a disk", output), \
                durable.staged(output.parent, output.name) as new:
            # What a killed extract() left; its process has ended.
            durable.clear_staged(output.parent, output.name, but_alive=True)
            durable.create_file(new, _EXTRACTED_MODE)
            with durable.written(new):
                self._copy_out(new, EXTRACTS[output_format], backing,
                               compress)
            os.rename(new, output)
            durable.fsync_directory(output.parent)
        self._observe(Name.EXTRACTED, output=str(output))

    def _copy_out(self, new: pathlib.Path, output_format: str,
                  backing: pathlib.Path | None, compress: bool) -> None:
        qemu_img.convert(self.path, self.format, new, output_format,
                         limits=self._limits_of_a_copy, backing=backing,
                         compress=compress, progress=self._extracting)

    @property
    def _limits_of_a_copy(self) -> Limits:
        return self.host.policy.conversion.writing(
            qemu_img.most(self.size()))

    def _extracting(self, done: int) -> None:
        # The total is unknown: part of the base is read as well.
        self._observe(Name.CONVERT, done=done, total=None)

    def _grow_filesystem(self, path: pathlib.Path) -> None:
        """Let an unpartitioned ext file system fill a raw disk."""
        reason = resize.grow_filesystem(path, self.host.policy)
        if reason:
            self._observe(Name.FILESYSTEM_NOT_RESIZED, reason=reason)

    def _observe(self, name: str, **facts: object) -> None:
        """Send the observer an event about the disk; see imagecache.events."""
        self.host.observe(events.Event(name, str(self.path), facts))


@runtime_checkable
class Extractor(Protocol):
    """A disk whose content can be copied out, into another format."""

    def extract(self, output: pathlib.Path, output_format: str) -> None: ...


@runtime_checkable
class Flattener(Protocol):
    """A disk that can be made independent of its base."""

    def flatten(self) -> None: ...


@runtime_checkable
class Rebaser(Flattener, Protocol):
    """A disk that can also be moved to another base."""

    def rebase(self, base: Base) -> None: ...
