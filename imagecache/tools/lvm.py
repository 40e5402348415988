# SPDX-License-Identifier: Apache-2.0
"""lvm(8): one method for each command this library needs, all run as root.

Reports are read as JSON.  LVM changes a volume group in one transaction for
each command, under a lock of its own; so what one command does has happened
as a whole, or not at all.
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
# Names that LVM keeps for the parts of its volumes.
_RESERVED = re.compile(
    r"\.\.?|(snapshot|pvmove).*|.*_([crtv]data|[cimrt]meta|[ci]orig|cvol"
    r"|[mr]image|mlog|pmspare|vorigin|wcorig).*")
# device-mapper takes 127 bytes for a group and a volume, whose hyphens are
# doubled, with what an attempt's name has more, and a pool's parts.
_LONGEST = 93

_VOLUME = ("lv_name", "lv_size", "lv_tags", "lv_active", "lv_device_open",
           "origin", "pool_lv", "data_percent", "thin_count")
# And, of a thin pool:
_POOL = ("lv_metadata_size", "metadata_percent", "chunk_size", "zero")


@dataclasses.dataclass(frozen=True)
class Volume:
    name: str
    size: int                # bytes
    tags: tuple[str, ...]
    active: bool             # it has a device
    open: bool               # somebody has its device open
    origin: str | None       # the volume it is a snapshot of
    pool: str | None         # the thin pool it is in
    allocated: int | None    # bytes; None: nobody knows while it is inactive
    volumes: int | None      # that are in it; None: it is no thin pool


@dataclasses.dataclass(frozen=True)
class Pool:
    """A thin pool."""

    name: str
    size: int                # bytes for data
    used: float              # per cent of them
    metadata_size: int       # bytes
    metadata_used: float     # per cent of them
    chunk_size: int          # bytes
    zeroes: bool             # what is read of a new chunk, nobody wrote
    volumes: int

    @property
    def free(self) -> int:
        return int(self.size * (100 - self.used) / 100)


@dataclasses.dataclass(frozen=True)
class VolumeGroup:
    """One volume group; none of these methods keeps anything in mind."""

    name: str
    root_helper: str = ""    # what runs a command as root, if we are not

    def device(self, volume: str) -> pathlib.Path:
        return pathlib.Path("/dev", self.name, volume)

    # Asking.

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
        """Return a thin pool, and volumes as volumes() does, at once.

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

    # Making.

    def create(self, name: str, size: int,
               tags: Iterable[str] = ()) -> None:
        """Make a volume of all its bytes; signatures in them are wiped."""
        self._run("lvcreate", "--yes", "--wipesignatures", "y", "--zero", "y",
                  "--size", _bytes(size), *_each("--addtag", tags),
                  "--name", name, self.name)

    def create_pool(self, name: str, size: int,
                    tags: Iterable[str] = ()) -> None:
        """Make a thin pool, whose new chunks read as zeros."""
        self._run("lvcreate", "--yes", "--type", "thin-pool", "--zero", "y",
                  "--size", _bytes(size), *_each("--addtag", tags),
                  "--name", name, self.name)

    def create_thin(self, name: str, size: int, pool: str,
                    tags: Iterable[str] = ()) -> None:
        """Make a volume that takes space as it is written."""
        self._run("lvcreate", "--yes", "--type", "thin",
                  "--virtualsize", _bytes(size), "--thinpool", pool,
                  *_each("--addtag", tags), "--name", name, self.name)

    def snapshot(self, name: str, origin: str,
                 tags: Iterable[str] = ()) -> None:
        """Make a writable thin snapshot, active now and after each boot."""
        self._run("lvcreate", "--yes", "--snapshot", "--permission", "rw",
                  "--setactivationskip", "n", *_each("--addtag", tags),
                  "--name", name, f"{self.name}/{origin}")

    # Changing.

    def extend(self, name: str, size: int) -> None:
        self._run("lvextend", "--yes", "--size", _bytes(size),
                  f"{self.name}/{name}")

    def rename(self, old: str, new: str) -> None:
        """Rename, which fails if there is a volume of the new name."""
        self._run("lvrename", self.name, old, new)

    def activate(self, name: str) -> None:
        """Give a volume its device, also if it is to be skipped at boot."""
        self._change(name, "--activate", "y", "--ignoreactivationskip")

    def deactivate(self, name: str) -> None:
        self._change(name, "--activate", "n")

    def seal(self, name: str, tags: Iterable[str]) -> None:
        """Make a volume read-only, tagged, and skipped at boot."""
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
        """Let this process's user read and write a volume in the block.

        So what reads a guest's data need not run as root.
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
        # Not its group: udev puts that back whenever the device is closed.
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
    """The selection of one volume."""
    return f'lv_name="{name}"'


def require_name(name: str, group: str) -> str:
    """Return a name that a volume in a group can have.

    :raises InvalidName: LVM would refuse it
    """
    length = len(f"{group}-{name}") + f"{group}{name}".count("-")
    if not _CHARACTERS.fullmatch(name) or _RESERVED.fullmatch(name) \
            or length > _LONGEST:
        raise exception.InvalidName(
            name=name, what="the name of a logical volume",
            reason="it must be of letters, digits and +_.-, none of LVM's"
            f" own, and of {_LONGEST} bytes with its group's")
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
    # LVM takes whole sectors, and makes whole extents of them.
    return f"{whole_sectors(size)}b"


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
