# SPDX-License-Identifier: Apache-2.0
"""Logical volumes: their groups, the space they take, and their names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import secrets
import time
from collections.abc import Iterator

from imagecache import events, exception
from imagecache.model import KiB
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools.lvm import Pool, VolumeGroup

# A pool's metadata: for each chunk that is mapped (the kernel's own estimate
# is 48 bytes), and for each new volume.
_METADATA_PER_CHUNK = 64
_METADATA_PER_VOLUME = 64 * KiB
# A pool that is so many per cent below its warning level is not checked again
# for so many seconds.
_MUCH = 10
_MINUTE = 60

# .<name>.<process>-<when it started>.<unique>, and p for a pool of its own.
_ATTEMPT = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d+)-(?P<start>\d+)\.[0-9a-f]{6}p?")
_PLACE = re.compile(r"/dev/(?!mapper/)[^/]+/[^/]+")
# device-mapper's name of a volume doubles hyphens.
_MAPPED = re.compile(r"/dev/mapper/((?:[^-/]|--)+)-((?:[^-/]|--)+)")


def attempt_at(name: str) -> str:
    """Return a name for a volume that must not be visible.

    It is unique, and no disk or base can have it.
    """
    pid = os.getpid()
    return f".{name}.{pid}-{_start(pid)}.{secrets.token_hex(3)}"


def leftover_of(name: str) -> str:
    """Return the name of an abandoned attempt; see attempt_at()."""
    return f".{name}.0-0.{secrets.token_hex(3)}"    # no process is number 0


def own_pool(attempt: str) -> str:
    """Return the name of the thin pool that belongs to one volume alone."""
    return f"{attempt}p"


def attempted(name: str) -> str | None:
    """Return the name that an attempt will get; None: it is no attempt."""
    match = _ATTEMPT.fullmatch(name)
    return match["name"] if match else None


def is_abandoned(attempt: str) -> bool:
    """Return whether the process of an attempt has ended."""
    match = _ATTEMPT.fullmatch(attempt)
    return match is not None and _start(int(match["pid"])) != match["start"]


def attempts_at(name: str) -> str:
    """Return LVM's selection of the attempts at a name."""
    return f'lv_name=~"^[.]{re.escape(name)}[.][0-9]+-[0-9]+[.][0-9a-f]+p?$"'


def _start(pid: int) -> str | None:
    """Return when a process started, in ticks since boot.

    The number of a process alone does not identify it: numbers are reused.
    """
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]    # the 22nd field


def require_free(group: VolumeGroup, needed: int, what: str) -> None:
    """Refuse a volume that a volume group cannot hold.

    :raises NoSpace: the group has fewer bytes, in whole extents
    """
    free, extent = group.space()
    needed = -(-needed // extent) * extent
    if needed > free:
        raise exception.NoSpace(
            path=f"volume group {group.name}", what=what, needed=needed,
            available=free)


@dataclasses.dataclass(frozen=True)
class ThinPool:
    """A thin pool, which promises its volumes more space than it has.

    When a pool is full, the writes of its guests fail.  So an event reports a
    pool that is nearly full, and no more volumes are made in it.
    """

    group: VolumeGroup
    name: str
    warning: int      # per cent of data or metadata: send an event
    limit: int        # make no more volumes
    observe: events.Observer = events.silent
    stamp: pathlib.Path | None = None    # when it last had space

    def __str__(self) -> str:
        return f"{self.group.name}/{self.name}"

    def require(self, data: int, what: str,
                found: Pool | None = None) -> None:
        """Refuse a volume that would bring the pool over its limit.

        :param data: bytes that will be written at once
        :param found: the pool as it was a moment ago, if that is known
        :raises NoSpace: for data, or for metadata
        :raises InvalidConfiguration: the pool does not zero its chunks, so a
            guest could read what another guest wrote
        """
        pool = found or self.group.pool(self.name)
        if not pool.zeroes:
            raise exception.InvalidConfiguration(
                f"The thin pool {self} does not zero its chunks, so a guest"
                " can read what another wrote; `lvchange --zero y"
                f" {self}` makes it", option="lvm_thin_pool",
                value=self.name)
        metadata = _METADATA_PER_VOLUME \
            + -(-data // pool.chunk_size) * _METADATA_PER_CHUNK
        self._require("data", data, pool.size, pool.used, what)
        self._require("metadata", metadata, pool.metadata_size,
                      pool.metadata_used, what)
        self._report(pool, data, metadata)

    def had_room(self) -> bool:
        """Return whether the pool had much space within the last minute.

        A snapshot takes no space by itself, so the pool need not be checked
        for each snapshot of many.
        """
        if self.stamp is None:
            return False
        try:
            age = time.time() - self.stamp.stat().st_mtime
        except OSError:
            return False
        return 0 <= age < _MINUTE

    def _require(self, kind: str, needed: int, size: int, used: float,
                 what: str) -> None:
        available = int(size * (self.limit - used) / 100)
        if needed > available:
            raise exception.NoSpace(
                path=f"the {kind} of thin pool {self}", what=what,
                needed=needed, available=max(available, 0))

    def _report(self, pool: Pool, data: int, metadata: int) -> None:
        shares = {
            "data": pool.used + 100 * data / pool.size,
            "metadata": pool.metadata_used
            + 100 * metadata / pool.metadata_size}
        self._remember(max(shares.values()) + _MUCH < self.warning)
        if max(shares.values()) >= self.warning:
            self.observe(events.Event(
                events.Name.POOL_NEARLY_FULL, str(self),
                {kind: round(share) for kind, share in shares.items()}))

    def _remember(self, has_room: bool) -> None:
        # Best effort: without the file, the pool is checked each time.
        with contextlib.suppress(OSError, exception.HostError):
            if self.stamp and has_room:
                durable.make_directory(self.stamp.parent)
                self.stamp.touch()
            elif self.stamp:
                self.stamp.unlink(missing_ok=True)


def group_of(policy: Policy) -> VolumeGroup:
    """Return the volume group of new disks.

    :raises InvalidConfiguration: none is configured
    """
    name = policy.lvm.volume_group
    if not name:
        raise exception.InvalidConfiguration(
            "Disks that are logical volumes need [libvirt]"
            " images_volume_group", option="images_volume_group", value=name)
    return VolumeGroup(name, policy.root_helper)


def pool_of(policy: Policy, observe: events.Observer) -> ThinPool | None:
    """Return the thin pool of new disks; None: disks are not thin.

    :raises InvalidConfiguration: no volume group is configured
    """
    if policy.lvm.thin_pool is None:
        return None
    return ThinPool(group_of(policy), policy.lvm.thin_pool,
                    policy.lvm.pool_warning, policy.lvm.pool_limit, observe,
                    notes(policy.bases) /
                    f"{policy.lvm.volume_group}.{policy.lvm.thin_pool}")


def notes(bases: pathlib.Path) -> pathlib.Path:
    """Return where a host keeps what it knows of its volume groups.

    Hosts may share the directory of bases, but not their volume groups.
    """
    return bases / ".used" / os.uname().nodename


def place(path: pathlib.Path) -> pathlib.Path:
    """Return the path of a volume as ``/dev/<group>/<volume>``.

    :raises InvalidDevicePath: it is not the path of a volume
    """
    if _PLACE.fullmatch(str(path)):
        return path
    match = _MAPPED.fullmatch(str(path))
    if match is None:
        raise exception.InvalidDevicePath(path=path)
    group, volume = (part.replace("--", "-") for part in match.groups())
    return pathlib.Path("/dev", group, volume)


@contextlib.contextmanager
def flushed(volume: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a device, and flush it when the block ends.

    What the block wrote then survives a power failure.
    """
    with durable.translated("writing a volume", volume), \
            volume.open("r+b") as f:
        yield volume
        os.fsync(f.fileno())
