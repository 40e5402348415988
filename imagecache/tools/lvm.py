# SPDX-License-Identifier: Apache-2.0
"""lvm(8): one method for each command that this library needs.

Every command runs as root.  Reports are read as JSON.  LVM executes each
command as one transaction, under its own lock: the command has its full effect
or none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from imagecache import exception
from imagecache.model import whole_sectors
from imagecache.system import durable, execute

_CHARACTERS = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*")
# LVM reserves these names for the parts of its volumes.
_RESERVED = re.compile(
    r"\.\.?|(snapshot|pvmove).*|.*_([crtv]data|[cimrt]meta|[ci]orig|cvol"
    r"|[mr]image|mlog|pmspare|vorigin|wcorig).*")
# device-mapper allows 127 bytes for group and volume together.  Hyphens are
# doubled, and the suffixes of an attempt and of a pool's parts need room.
_LONGEST = 93

_VOLUME = ("lv_name", "lv_size", "lv_tags", "lv_active", "lv_device_open",
           "origin", "pool_lv", "data_percent", "thin_count")
# The columns of a thin pool, in addition.
_POOL = ("lv_metadata_size", "metadata_percent", "chunk_size", "zero")


@dataclasses.dataclass(frozen=True)
class Volume:
    name: str
    size: int                # bytes
    tags: tuple[str, ...]
    active: bool             # the volume has a device
    open: bool               # a process has its device open
    origin: str | None       # the volume it is a snapshot of
    pool: str | None         # the thin pool it is in
    allocated: int | None    # bytes; None: unknown, as it is inactive
    volumes: int | None      # in a thin pool; None: it is no thin pool


@dataclasses.dataclass(frozen=True)
class Pool:
    """A thin pool."""

    name: str
    size: int                # bytes for data
    used: float              # per cent of them
    metadata_size: int       # bytes
    metadata_used: float     # per cent of them
    chunk_size: int          # bytes
    zeroes: bool             # a new chunk reads as zeros
    volumes: int

    @property
    def free(self) -> int:
        return int(self.size * (100 - self.used) / 100)


@dataclasses.dataclass(frozen=True)
class VolumeGroup:
    """One volume group; the methods keep no state."""

    name: str
    root_helper: str = ""    # runs a command as root; unused if this is root

    def device(self, volume: str) -> pathlib.Path:
        return pathlib.Path("/dev", self.name, volume)

    # Reading.

    def space(self) -> tuple[int, int]:
        """Return the bytes that are free, and those of an extent."""
        [found] = self._report("vg", "vgs", ("vg_free", "vg_extent_size"))
        return int(found["vg_free"]), int(found["vg_extent_size"])

    def volumes(self, *selections: str) -> list[Volume]:
        """Return the volumes that one of the selections fits; see lvs(8)."""
        found = self._report("lv", "lvs", _VOLUME, selections)
        return [_volume(each) for each in found]

    def volume(self, name: str) -> Volume | None:
        for volume in self.volumes(named(name)):
            return volume
        return None

    def pool(self, name: str) -> Pool:
        """Return a thin pool.

        :raises InvalidConfiguration: there is none of this name
        """
        return self.pool_and_volumes(name)[0]

    def pool_and_volumes(self, name: str, *selections: str
                         ) -> tuple[Pool, list[Volume]]:
        """Return a thin pool, and volumes as volumes() does, in one command.

        :raises InvalidConfiguration: there is no such pool
        """
        found = self._report("lv", "lvs", (*_VOLUME, *_POOL), (
            f"{named(name)} && segtype=thin-pool", *selections))
        pools = [each for each in found if each["lv_name"] == name
                 and each["lv_metadata_size"]]
        if not pools:
            raise exception.InvalidConfiguration(
                f"The volume group {self.name} has no thin pool {name}",
                option="lvm_thin_pool", value=name)
        return _pool(pools[0]), [_volume(each) for each in found
                                 if each["lv_name"] != name]

    # Creating.

    def create(self, name: str, size: int,
               tags: Iterable[str] = ()) -> None:
        """Create a fully allocated volume, and wipe old signatures in it."""
        self._run("lvcreate", "--yes", "--wipesignatures", "y", "--zero", "y",
                  "--size", _bytes(size), *_each("--addtag", tags),
                  "--name", name, self.name)

    def create_pool(self, name: str, size: int,
                    tags: Iterable[str] = ()) -> None:
        """Create a thin pool whose new chunks read as zeros."""
        self._run("lvcreate", "--yes", "--type", "thin-pool", "--zero", "y",
                  "--size", _bytes(size), *_each("--addtag", tags),
                  "--name", name, self.name)

    def create_thin(self, name: str, size: int, pool: str,
                    tags: Iterable[str] = ()) -> None:
        """Create a thin volume: it takes space when it is written."""
        self._run("lvcreate", "--yes", "--type", "thin",
                  "--virtualsize", _bytes(size), "--thinpool", pool,
                  *_each("--addtag", tags), "--name", name, self.name)

    def snapshot(self, name: str, origin: str,
                 tags: Iterable[str] = ()) -> None:
        """Create a writable thin snapshot, active now and after each boot."""
        self._run("lvcreate", "--yes", "--snapshot", "--permission", "rw",
                  "--setactivationskip", "n", *_each("--addtag", tags),
                  "--name", name, f"{self.name}/{origin}")

    # Changing.

    def extend(self, name: str, size: int) -> None:
        self._run("lvextend", "--yes", "--size", _bytes(size),
                  f"{self.name}/{name}")

    def rename(self, old: str, new: str) -> None:
        """Rename a volume; this fails if the new name is taken."""
        self._run("lvrename", self.name, old, new)

    def activate(self, name: str) -> None:
        """Activate a volume, also one that is skipped at boot."""
        self._change(name, "--activate", "y", "--ignoreactivationskip")

    def deactivate(self, name: str) -> None:
        self._change(name, "--activate", "n")

    def seal(self, name: str, tags: Iterable[str]) -> None:
        """Make a volume read-only and skipped at boot, and tag it."""
        self._change(name, "--permission", "r", "--setactivationskip", "y",
                     *_each("--addtag", tags))

    def retag(self, name: str, old: Iterable[str],
              new: Iterable[str]) -> None:
        self._change(name, *_each("--deltag", old), *_each("--addtag", new))

    def remove(self, name: str) -> None:
        """Remove a volume, or a pool with its volumes."""
        self._run("lvremove", "--yes", f"{self.name}/{name}")

    @contextlib.contextmanager
    def chowned(self, name: str) -> Iterator[pathlib.Path]:
        """Yield a volume's device, owned by this process's user in the block.

        So a program that reads a guest's data need not run as root.
        """
        path = self.device(name)
        if os.access(path, os.R_OK | os.W_OK):
            yield path
            return
        with durable.translated("opening a volume", path):
            owner = path.stat().st_uid
        self._own(path, os.geteuid())
        try:
            yield path
        finally:
            self._own(path, owner)

    def _own(self, path: pathlib.Path, uid: int) -> None:
        # Not its group: udev resets the group whenever the device is closed.
        self._run("chown", str(uid), str(path))

    def _change(self, name: str, *arguments: str) -> None:
        self._run("lvchange", "--yes", *arguments, f"{self.name}/{name}")

    def _report(self, kind: str, command: str, columns: Iterable[str],
                selections: Iterable[str] = ()) -> list[dict[str, str]]:
        which = " || ".join(f"({each})" for each in selections)
        report = json.loads(self._run(
            command, "--reportformat", "json", "--units", "b", "--nosuffix",
            "--options", ",".join(columns),
            *(["--select", which] if which else []), self.name))
        found: list[dict[str, str]] = report["report"][0][kind]
        return found

    def _run(self, *command: str) -> str:
        return execute.run(*command, root_helper=self.root_helper)


def named(name: str) -> str:
    """Return the selection of one volume, in the language of lvs."""
    return f'lv_name="{name}"'


def require_name(name: str, group: str) -> str:
    """Return the name if a volume in the group can have it.

    :raises InvalidName: LVM would refuse the name
    """
    length = len(f"{group}-{name}") + f"{group}{name}".count("-")
    if not _CHARACTERS.fullmatch(name) or _RESERVED.fullmatch(name) \
            or length > _LONGEST:
        raise exception.InvalidName(
            name=name, what="the name of a logical volume",
            reason="it may have letters, digits and +_.-, must not be a name"
            f" that LVM reserves, and must have at most {_LONGEST} bytes"
            " together with the name of its group")
    return name


def _volume(found: dict[str, str]) -> Volume:
    size = int(found["lv_size"])
    full = found["data_percent"]
    return Volume(
        found["lv_name"], size, tuple(filter(None, found["lv_tags"].split(
            ","))),
        active=found["lv_active"] == "active",
        open=found["lv_device_open"] == "open",
        origin=found["origin"] or None, pool=found["pool_lv"] or None,
        allocated=int(size * float(full) / 100) if full else None,
        volumes=int(found["thin_count"]) if found["thin_count"] else None)


def _pool(found: dict[str, str]) -> Pool:
    return Pool(
        found["lv_name"], int(found["lv_size"]),
        float(found["data_percent"] or 0), int(found["lv_metadata_size"]),
        float(found["metadata_percent"] or 0), int(found["chunk_size"]),
        zeroes=found["zero"] == "zero", volumes=int(found["thin_count"]))


def _bytes(size: int) -> str:
    # LVM accepts whole sectors, and rounds up to whole extents.
    return f"{whole_sectors(size)}b"


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
