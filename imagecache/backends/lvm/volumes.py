# SPDX-License-Identifier: Apache-2.0
"""Logical volumes: where they are made, with what room and what names."""

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
# A pool that is so far from being reported, in per cent, is not looked at for
# so many seconds.
_MUCH = 10
_MINUTE = 60

# .<name>.<process>-<when it started>.<unique>, and p for a pool of its own.
_ATTEMPT = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d+)-(?P<start>\d+)\.[0-9a-f]{6}p?")
_PLACE = re.compile(r"/dev/(?!mapper/)[^/]+/[^/]+")
# device-mapper's name of a volume doubles hyphens.
_MAPPED = re.compile(r"/dev/mapper/((?:[^-/]|--)+)-((?:[^-/]|--)+)")


def attempt_at(name: str) -> str:
    """Return a name for a volume that is not, or no more, to be seen.

    No other attempt ever uses it, and no disk or base can have it.
    """
    pid = os.getpid()
    return f".{name}.{pid}-{_start(pid)}.{secrets.token_hex(3)}"


def leftover_of(name: str) -> str:
    """Return a name as attempt_at() does, of an attempt that is abandoned."""
    return f".{name}.0-0.{secrets.token_hex(3)}"    # no process is number 0


def own_pool(attempt: str) -> str:
    """Return the name of the thin pool of one volume, from its making on."""
    return f"{attempt}p"


def attempted(name: str) -> str | None:
    """Return the name an attempt is at, if a volume is one."""
    match = _ATTEMPT.fullmatch(name)
    return match["name"] if match else None


def is_abandoned(attempt: str) -> bool:
    """Say whether the process of an attempt runs no more."""
    match = _ATTEMPT.fullmatch(attempt)
    return match is not None and _start(int(match["pid"])) != match["start"]


def attempts_at(name: str) -> str:
    """The selection of the volumes that are attempts at a name."""
    return f'lv_name=~"^[.]{re.escape(name)}[.][0-9]+-[0-9]+[.][0-9a-f]+p?$"'


def _start(pid: int) -> str | None:
    """When a process started, in ticks since boot: numbers come again."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]    # the 22nd field


def require_free(group: VolumeGroup, needed: int, what: str) -> None:
    """Refuse at once what a volume group cannot hold.

    :raises NoSpace: it has fewer bytes, in whole extents
    """
    free, extent = group.space()
    needed = -(-needed // extent) * extent
    if needed > free:
        raise exception.NoSpace(
            path=f"volume group {group.name}", what=what, needed=needed,
            available=free)


@dataclasses.dataclass(frozen=True)
class ThinPool:
    """The watch over a thin pool, which promises more than it has.

    One that runs full makes its guests' writes fail; so it is reported
    before, and takes no more volumes.
    """

    group: VolumeGroup
    name: str
    warning: int      # per cent of data or metadata: tell somebody
    limit: int        # make nothing more
    observe: events.Observer = events.silent
    stamp: pathlib.Path | None = None    # of when it was found with much room

    def __str__(self) -> str:
        return f"{self.group.name}/{self.name}"

    def require(self, data: int, what: str,
                found: Pool | None = None) -> None:
        """Refuse what would bring the pool over its limit.

        :param data: bytes that will be written at once
        :param found: how it was a moment ago, if somebody knows
        :raises NoSpace: of data, or of metadata
        :raises InvalidConfiguration: guests could read what others wrote
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
        """Say whether it was found with much room within the last minute.

        A snapshot takes none by itself, so it need not be looked at for each
        of many.
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
        # Who cannot write there looks each time.
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
    """Return the thin pool of new disks; None if they are not to be in one.

    :raises InvalidConfiguration: it is to be in no volume group
    """
    if policy.lvm.thin_pool is None:
        return None
    return ThinPool(group_of(policy), policy.lvm.thin_pool,
                    policy.lvm.pool_warning, policy.lvm.pool_limit, observe,
                    notes(policy.bases) /
                    f"{policy.lvm.volume_group}.{policy.lvm.thin_pool}")


def notes(bases: pathlib.Path) -> pathlib.Path:
    """Return where a host notes what it has found in its volume groups.

    Hosts may share the directory of bases; volume groups they do not.
    """
    return bases / ".used" / os.uname().nodename


def place(path: pathlib.Path) -> pathlib.Path:
    """Return a volume's path as it is named here.

    :raises InvalidDevicePath: it is none of a volume
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
    """Yield a device; what the block wrote to it survives a power failure."""
    with durable.translated("writing a volume", volume), \
            volume.open("r+b") as f:
        yield volume
        os.fsync(f.fileno())
