# SPDX-License-Identifier: Apache-2.0
"""Images that Glance keeps in a host's own Ceph cluster, or copies there.

A disk made of such an image is a clone of it: no byte is downloaded or
validated.  None needs to be, because the disk is always read as raw, and only
by its guest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Protocol, Self

from imagecache import events, exception, sources, text
from imagecache.backends.rbd.cluster import connected
from imagecache.bases.admission import require_fit, require_min_disk
from imagecache.events import Event, Name
from imagecache.model import Format
from imagecache.policy import Policy, RbdPolicy
from imagecache.sources import Copy

# Glance's names of formats that a guest reads without a conversion.
_RAW = ("raw", "iso")

# The name that Glance's store gives to the snapshot of an image.
SNAPSHOT = "snap"


@dataclasses.dataclass(frozen=True)
class Location:
    """A snapshot, as Glance writes it: rbd://fsid/pool/image/snapshot."""

    fsid: str
    pool: str
    image: str
    snapshot: str

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """Return None for any other URL."""
        scheme, found, rest = url.partition("://")
        parts = [urllib.parse.unquote(part) for part in rest.split("/")]
        if scheme != "rbd" or not found or len(parts) != 4 or "" in parts:
            return None
        return cls(*parts)

    def __str__(self) -> str:
        return "rbd://" + "/".join(
            urllib.parse.quote(part, safe="")
            for part in (self.fsid, self.pool, self.image, self.snapshot))


class CloneSource(Protocol):
    """The part of a cluster that this module uses."""

    @property
    def fsid(self) -> str: ...

    def clonable(self, pool: str, image: str, snapshot: str) -> int | None:
        """Return how many bytes a clone of a snapshot would have.

        None: it is not there, cannot be read, or cannot be cloned.
        """


Connect = Callable[[RbdPolicy], contextlib.AbstractContextManager[CloneSource]]


@dataclasses.dataclass(frozen=True)
class RbdImages:
    """Finds the snapshot of an image of which a disk can be a clone.

    :param pause: waits for so many seconds
    """

    policy: Policy
    observe: events.Observer = events.silent
    connect: Connect = connected
    pause: Callable[[float], None] = time.sleep

    def find(self, source: sources.Source, size: int | None, *,
             copy_to_store: bool = True) -> Location | None:
        """Return where Glance keeps the image; None: make a base instead.

        :param size: bytes of the disk that is wanted; None or 0: any
        :param copy_to_store: ask Glance to copy it there, if it must, and
            if images_rbd_glance_store_name is set
        :raises FlavorDiskTooSmall, ImageTooLarge: the image is too large
        :raises SourceError: Glance cannot be asked now
        """
        if not isinstance(source, sources.Image) \
                or not isinstance(source.store, sources.Locator) \
                or not self._needs_no_look(source):
            return None
        require_min_disk(source, size)
        ref, store = source.description.ref, source.store
        found = self._here(ref, source.description.locations
                           or store.locations(ref))
        if found is None and copy_to_store and self._copied(ref, store):
            found = self._here(ref, store.locations(ref))
        if found is None:
            return None    # a base can be made of it all the same
        location, virtual_size = found
        require_fit(source, virtual_size, size, self.policy)
        return location

    def require_download(self, source: sources.Source) -> None:
        """Refuse an image of Glance's, if none may be downloaded.

        :raises ImageUnacceptable: never_download_image_if_on_rbd is set
        """
        if self.policy.rbd.never_download \
                and isinstance(source, sources.Image) \
                and isinstance(source.store, sources.Locator):
            raise exception.ImageUnacceptable(
                image_id=source.name, reason="it cannot be cloned from"
                " Glance's own pool, and [workarounds]"
                " never_download_image_if_on_rbd forbids to download it")

    def _needs_no_look(self, image: sources.Image) -> bool:
        """Return whether the image can be used without reading its bytes."""
        described = image.description
        return described.disk_format in _RAW \
            and Format.RAW in self.policy.accepted \
            and image.signer is None \
            and described.identity == described.ref   # no digest of our own

    def _here(self, ref: str,
              urls: Iterable[str]) -> tuple[Location, int] | None:
        with self.connect(self.policy.rbd) as cluster:
            for url in urls:
                location = Location.parse(url)
                reason = _misplaced(location, ref, cluster.fsid)
                if location and not reason:
                    size = cluster.clonable(
                        location.pool, location.image, location.snapshot)
                    if size is not None:
                        return location, size
                    reason = "it cannot be cloned from here"
                self.observe(Event(Name.LOCATION_NOT_USABLE, ref, {
                    "location": text.mask_url(url), "reason": reason}))
        return None

    def _copied(self, ref: str, store: sources.Locator) -> bool:
        if not self.policy.rbd.glance_store:
            return False
        try:
            self.copy(ref, store)
        except (exception.ImageUnacceptable, exception.Forbidden) as e:
            self.observe(Event(Name.GLANCE_COPY_FAILED, ref, {
                "store": self.policy.rbd.glance_store,
                "reason": e.facts["reason"]}))
            return False
        return True

    def copy(self, ref: str, store: sources.Locator) -> None:
        """Have Glance copy an image into its store in this cluster.

        :raises ImageUnacceptable, Forbidden: there will be no copy
        """
        name = self.policy.rbd.glance_store
        deadline = time.monotonic() + self.policy.rbd.glance_copy_timeout
        asked = False
        while True:
            state = store.copy_of(ref, name)
            if state is Copy.THERE:
                return
            if asked and state is Copy.FAILED:
                raise exception.ImageUnacceptable(
                    image_id=ref, reason="Glance could not copy it; see the"
                    " log of Glance")
            if not asked and state is not Copy.COMING:
                self.observe(Event(
                    Name.GLANCE_COPY_STARTED, ref, {"store": name}))
                asked = self._requested(ref, store, name)
            if time.monotonic() > deadline:
                raise exception.ImageUnacceptable(
                    image_id=ref, reason="it was not copied within"
                    " [libvirt] images_rbd_glance_copy_timeout; try again, or"
                    " raise the option")
            self.pause(self.policy.rbd.glance_copy_poll_interval)

    def _requested(self, ref: str, store: sources.Locator,
                   name: str) -> bool:
        """Ask for a copy; False: Glance is busy with the image.

        :raises ImageUnacceptable, Forbidden: it will not make one
        """
        try:
            store.request_copy(ref, name)
        except exception.ImageUnacceptable:
            if store.copy_of(ref, name) in (Copy.THERE, Copy.COMING):
                return False
            # Glance was busy with another task until now; if not, it
            # refuses again.
            store.request_copy(ref, name)
        return True


def _misplaced(location: Location | None, ref: str, fsid: str) -> str | None:
    """Say why a location is not one of Glance's in this cluster."""
    if location is None:
        return "it is not a snapshot in Ceph"
    if location.fsid != fsid:
        return "it is in another cluster"
    if location.image != ref:
        # Where tenants may write locations, this one could name another
        # tenant's disk.
        return "it is not named as Glance names an image"
    return None
