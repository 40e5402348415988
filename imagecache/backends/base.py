# SPDX-License-Identifier: Apache-2.0
"""How to write a backend: a kind of disk.

Subclass Disk, implement its abstract methods, declare ``capabilities``, and
have a test inherit ``imagecache.testing.conformance``.  In this tree, add a
line to backends.BACKENDS; elsewhere, an entry point in the namespace
``imagecache.backends``.

    absent --create/generate--> present --grow*--> present --remove--> absent

Constructors only remember their arguments: a Disk may describe a disk that
does not exist, and describing one changes nothing.
"""

from __future__ import annotations

import abc
import contextlib
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import ClassVar, Protocol, runtime_checkable

from imagecache import (
    durable,
    events,
    exception,
    overlay,
    resizing,
    sources,
)
from imagecache.base_cache import BaseCache
from imagecache.disk_info import FILE_NAME, DiskInfo
from imagecache.formats import qcow2
from imagecache.host import Host, require_plain
from imagecache.model import Base, Capabilities, Format
from imagecache.policy import Policy
from imagecache.tools import allocation, qemu_img

_DISK_MODE = 0o644   # the hypervisor runs as another user

# The formats a disk can be extracted to, and qemu's words for them.
EXTRACTS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi",
            "vhd": "vpc", "vhdx": "vhdx"}


class Disk(abc.ABC):
    """One disk of one instance on one host.

    :param name: of the disk within its instance, such as ``disk``
    :param path: where the disk is, if that does not follow from the names
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    # On record as anything else, a disk is another backend's.
    formats: ClassVar[Collection[Format]] = tuple(Format)

    def __init__(self, host: Host, instance: str, name: str,
                 path: pathlib.Path | None = None) -> None:
        self.host = host
        self.instance = instance
        self.name = name
        self._path = path

    @classmethod
    def require(cls, policy: Policy) -> None:
        """Refuse what such disks can never be made with.

        :raises InvalidConfiguration: an option is missing, or a library
        """

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        """Where the bases are that such disks are made from."""
        return host.directory_cache

    @classmethod
    def listed(cls, host: Host, instance: str | None = None
               ) -> Iterator[Disk]:
        """Yield the disks of one instance, or of all, that are no files.

        Those that are have a record in their instance's directory.
        """
        return iter(())

    @property
    def cache(self) -> BaseCache:
        return self.cache_of(self.host)

    @property
    @abc.abstractmethod
    def path(self) -> pathlib.Path:
        """Where the hypervisor finds it: a file, a device, pool/name."""

    @property
    @abc.abstractmethod
    def format(self) -> Format:
        """What the hypervisor must read it as; on record, never probed."""

    def recorded(self) -> Format | None:
        """Return the format on record; None where nobody keeps records."""
        return None

    @abc.abstractmethod
    def exists(self) -> bool:
        """Return True once create() or generate() has succeeded."""

    @abc.abstractmethod
    def create(self, base: Base, size: int | None) -> None:
        """Make the disk from ``base``; leave nothing behind on failure.

        :param size: bytes the guest must see; None or 0: what the base has
        """

    @abc.abstractmethod
    def size(self) -> int:
        """Return the bytes the guest sees.

        :raises DiskNotFound: there is no disk
        """

    @abc.abstractmethod
    def grow(self, size: int) -> None:
        """Grow to ``size`` bytes; do nothing if it is that large already.

        No guest may be running on the disk: its file system may grow too.

        :raises DiskNotFound: there is no disk
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
        """Return the key of the base it is read through, if there is one.

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
        """Make the disk straight from where its image is, without a base.

        :return: False if that cannot be done; then nothing has changed
        :raises ImageError: the image is there, and will not do
        """
        return False

    def generate(self, template: sources.Template,
                 size: int | None) -> None:
        """Let a template fill the disk; only if ``generates_in_place``."""
        raise NotImplementedError

    def _extract(self, output: pathlib.Path, output_format: str,
                 backing: pathlib.Path | None = None) -> None:
        """Copy the content into a new file, which appears whole."""
        if output_format not in EXTRACTS:
            raise exception.InvalidDiskFormat(disk_format=output_format)
        compress = output_format == Format.QCOW2 \
            and self.host.policy.compress_snapshots
        with durable.staged(output.parent, output.name) as new, \
                durable.translated("extracting a disk", output):
            qemu_img.convert(self.path, self.format, new,
                             EXTRACTS[output_format],
                             limits=self.host.policy.conversion.writing(
                                 qemu_img.most(self.size())),
                             backing=backing,
                             compress=compress,
                             progress=self._extracting)
            durable.fsync_file(new)
            os.rename(new, output)
            durable.fsync_directory(output.parent)
        self._observe("extracted", output=str(output))

    def _extracting(self, done: int) -> None:
        # Of how much, nobody knows: the base is read as well.
        self._observe("convert", done=done, total=None)

    def _grow_filesystem(self, path: pathlib.Path) -> None:
        """Let an unpartitioned ext file system fill a raw disk."""
        def complain(reason: str) -> None:
            self._observe("filesystem kept", reason=reason)

        resizing.grow_filesystem(path, self.host.policy, complain)

    def _observe(self, name: str, **facts: object) -> None:
        self.host.observe(events.Event(name, str(self.path), facts))


@runtime_checkable
class Extractor(Protocol):
    """A disk whose content can be copied out, into another format."""

    def extract(self, output: pathlib.Path, output_format: str) -> None: ...


@runtime_checkable
class Flattener(Protocol):
    """A disk that can do without the base it was made from."""

    def flatten(self) -> None: ...


@runtime_checkable
class Rebaser(Flattener, Protocol):
    """A disk that can change the base it was made from, as well."""

    def rebase(self, base: Base) -> None: ...


class FileDisk(Disk):
    """A disk that is one file in the directory of its instance."""

    # Without a record it is raw: the reading in which nothing that a guest
    # may have written to it means anything to the host.
    unrecorded: ClassVar[Format] = Format.RAW

    @property
    def format(self) -> Format:
        return self.recorded() or self.unrecorded

    def recorded(self) -> Format | None:
        return self._record.format_of(self.path)

    @property
    def path(self) -> pathlib.Path:
        if self._path is not None:
            return self._path
        if self.name == FILE_NAME:
            raise exception.InvalidName(
                name=self.name, what="the name of a disk",
                reason="the record of formats has it")
        return self.host.instance_directory(self.instance) \
            / require_plain(self.name, "a disk")

    def exists(self) -> bool:
        return self.path.exists()

    def allocated(self) -> int:
        try:
            return self.path.stat().st_blocks * 512
        except FileNotFoundError:
            raise exception.DiskNotFound(location=self.path) from None

    def remove(self) -> None:
        """Delete the disk, and the instance's directory if it is empty."""
        directory = self.path.parent
        if not directory.is_dir():
            return
        self._record.formats()    # damaged, it is to be mended first
        with durable.translated("removing a disk", self.path):
            self.path.unlink(missing_ok=True)
            durable.clear_staged(directory, self.path.name)
            self._record.forget(self.path)
            durable.clear_staged(directory, FILE_NAME, but_alive=True)
            with contextlib.suppress(OSError):   # it holds something else
                directory.rmdir()
        self._observe("removed")

    def extract(self, output: pathlib.Path, output_format: str) -> None:
        """Copy the disk's content into a new file.

        :param output_format: raw, qcow2, vmdk, vdi, vhd or vhdx
        :raises DiskNotFound: there is no disk
        :raises InvalidDiskFormat: the output format is none of these
        """
        self._require()
        self._extract(output, output_format,
                      self._backing(self.path, self.format))

    def _backing(self, path: pathlib.Path,
                 format: Format) -> pathlib.Path | None:
        """The base that a file is read through, whose header is judged.

        :raises UnsafeDisk: no program may open the file
        """
        if format is not Format.QCOW2:
            return None
        return overlay.base_of(path, self.host.policy.bases)

    @property
    def _record(self) -> DiskInfo:
        return self.host.disk_info(self.path.parent)

    def _require(self) -> None:
        """Refuse what is not there, or is a disk of another backend."""
        if not self.exists():
            raise exception.DiskNotFound(location=self.path)
        if self.format not in self.formats:
            raise exception.InvalidDiskFormat(
                f"{self.path} is on record as {self.format}: it is no"
                f" {type(self).__name__} disk", disk_format=self.format)

    @contextlib.contextmanager
    def _new(self, format: Format) -> Iterator[pathlib.Path]:
        """Yield where to make the disk; it appears when the block ends.

        Its format is on record before anybody can see it, and it survives a
        power failure.
        """
        directory, name = self.path.parent, self.path.name
        with durable.translated("creating a disk", self.path), \
                durable.directory_for(directory), \
                durable.staged(directory, name) as new:
            durable.clear_staged(directory, name, but_alive=True)
            yield new
            new.chmod(_DISK_MODE)    # whatever the umask
            with self._record.recording(self.path, format):
                self._commit(new)
            durable.fsync_directory(directory)
        self._observe("created")

    def _commit(self, new: pathlib.Path) -> None:
        try:
            os.link(new, self.path)    # a rename would replace a disk
        except FileExistsError:
            raise exception.DiskExists(location=self.path) from None

    def _preallocate(self, path: pathlib.Path, size: int,
                     format: Format) -> None:
        """Take the space now that a guest who fills ``size`` bytes needs."""
        if not self.host.policy.preallocate:
            return
        if format is Format.QCOW2:
            # Tables take space as well, and again when they move to grow.
            size += 2 * (qemu_img.measure(
                size, format, qcow2.read_header(path).cluster_size) - size)
        if not allocation.preallocate(path, size):
            self._observe("unpreallocated")
