# SPDX-License-Identifier: Apache-2.0
"""Disks in Ceph of a qcow2 image: its first, its second, its tenth."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import statistics
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import imagecache
from benchmarks import blocks, cloud_image, peer, timing
from benchmarks.doors import command
from benchmarks.report import Bar, Chart, Result, Row
from benchmarks.scratch import Scratch, configuration
from imagecache.model import Description, GiB, MiB
from imagecache.sources import Copy, Stream
from imagecache.tests.functional.ceph_cluster import CephCluster
from imagecache.tools import ceph, rbd

IMAGE_SIZE = GiB
IMAGE_DATA = 700 * MiB
DISK_SIZE = 10 * GiB
DISKS = {0: "first disk", 1: "second disk", 9: "tenth disk"}

_ROUNDS = 5     # of what has no first, second and tenth

_OURS, _NOVA = "imagecache", "nova"


@dataclasses.dataclass(frozen=True)
class Made:
    """What one disk took."""

    seconds: float
    host: float     # MiB over the host's disk
    pool: float     # MiB that are new in the pools
    started: Sequence[str]


def results(scratch: Scratch) -> Iterator[Result]:
    image = cloud_image.make(scratch.directory("image"), IMAGE_SIZE,
                             IMAGE_DATA)
    with CephCluster() as cluster:
        site = Site(scratch, cluster)
        with site.nova() as nova:
            make = {_NOVA: functools.partial(site.by_nova, nova, image),
                    _OURS: functools.partial(site.by_us, site.cache(), image)}
            made = _race(make, max(DISKS) + 1)
        yield _times(made, image)
        yield _bytes(made, image)
        yield _elsewhere(site, image, made)


class Site:
    """A cluster, and hosts whose disks are in it."""

    def __init__(self, scratch: Scratch, cluster: CephCluster) -> None:
        self._scratch = scratch
        self._cluster = cluster

    def cache(self, glance: PoolImages | None = None
              ) -> imagecache.ImageCache:
        """A host of ours, new: nothing is in its directories."""
        conf = configuration(self._scratch.directory("imagecache"))
        for name, value in self._options("imagecache").items():
            conf.set_override(name, value, "libvirt")
        return imagecache.ImageCache(conf, glance=glance)

    def nova(self) -> peer.Nova:
        """One of nova's."""
        options = self._options("nova").items()
        rados, _ = ceph.bindings()
        return peer.Nova(
            self._scratch.directory("nova"),
            self._scratch.root / "nova-rbd.log",
            [f"libvirt.{name}={value}" for name, value in options],
            pathlib.Path(rados.__file__).parent)

    def by_us(self, cache: imagecache.ImageCache,
              image: cloud_image.CloudImage) -> Made:
        return self.make(cache, str(image.compressed))

    def by_nova(self, nova: peer.Nova,
                image: cloud_image.CloudImage) -> Made:
        # What nova writes is counted by its own process.
        return self._made(lambda: nova.create_disk(
            str(uuid.uuid4()), image.compressed, base="base",
            image_type="rbd", size=DISK_SIZE))

    def make(self, cache: imagecache.ImageCache, image_ref: str) -> Made:
        def make() -> timing.Run:
            written = blocks.written()
            run = timing.measure(functools.partial(
                cache.create_disk, str(uuid.uuid4()), image_ref,
                size=DISK_SIZE))
            return dataclasses.replace(run, measured={
                peer.WRITTEN: (blocks.written() - written) / MiB})

        return self._made(make)

    def upload(self, raw: pathlib.Path) -> PoolImages:
        """Put an image into Glance's pool, as Glance's own store does."""
        image_id = str(uuid.uuid4())
        command("rbd", "--conf", self._cluster.conf, "--id", "glance",
                "--no-progress", "import", raw, f"images/{image_id}")
        with self._pool("images") as pool, pool.open(image_id) as volume:
            volume.create_snapshot("snap")
            volume.protect("snap")
        return PoolImages(image_id, self._cluster.fsid, raw.stat().st_size)

    def _options(self, user: str) -> dict[str, str]:
        return {"images_type": "rbd", "images_rbd_pool": "vms",
                "images_rbd_ceph_conf": str(self._cluster.conf),
                "rbd_user": user}

    def _made(self, make: Callable[[], timing.Run]) -> Made:
        os.sync()
        before = self._allocated()
        run = make()
        return Made(run.seconds, run.measured[peer.WRITTEN],
                    self._allocated() - before, run.started)

    def _allocated(self) -> float:
        """MiB of all volumes, without what they share with a parent."""
        with self._pool("vms") as pool:
            found = 0
            for name in pool.names():
                with pool.open(name, read_only=True) as volume:
                    found += volume.allocated()
        return found / MiB

    @contextlib.contextmanager
    def _pool(self, name: str) -> Iterator[rbd.Pool]:
        access = rbd.Access(str(self._cluster.conf), "admin")
        with rbd.connected(access) as cluster, cluster.pool(name) as pool:
            yield pool


class PoolImages:
    """One raw image in Glance's pool, in the place of Glance."""

    def __init__(self, image_id: str, fsid: str, size: int) -> None:
        self.image_id = image_id
        self.reads = 0
        self._size = size
        self._url = f"rbd://{fsid}/images/{image_id}/snap"

    def describe(self, ref: str) -> Description:
        return Description(ref=ref, identity=ref, size=self._size,
                           disk_format="raw", locations=(self._url,))

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        self.reads += 1
        raise NotImplementedError("nobody should need to read it")
        yield

    def locations(self, ref: str) -> Sequence[str]:
        return (self._url,)

    def request_copy(self, ref: str, store: str) -> None:
        raise NotImplementedError

    def copy_of(self, ref: str, store: str) -> Copy:
        raise NotImplementedError

    def register(self, ref: str, location: str) -> None:
        raise NotImplementedError


def _race(make: Mapping[str, Callable[[], Made]],
          disks: int) -> dict[str, list[Made]]:
    made: dict[str, list[Made]] = {name: [] for name in make}
    for n in range(disks):
        # Nobody always comes after the other.
        for name in sorted(make, reverse=n % 2 == 0):
            made[name].append(make[name]())
    return made


def _rows(made: dict[str, list[Made]],
          columns: dict[str, Callable[[Made], float]]) -> list[Row]:
    meanings = {0: "of an image that nobody has used",
                1: "of the same image, on the same host",
                9: "the same again"}
    return [Row(name, meanings[n], {
        f"{who} {unit}": value(each[n])
        for unit, value in columns.items() for who, each in made.items()})
        for n, name in DISKS.items()]


def _times(made: dict[str, list[Made]],
           image: cloud_image.CloudImage) -> Result:
    rows = _rows(made, {"s": lambda one: one.seconds})
    later = {who: statistics.median(one.seconds for one in each[1:])
             for who, each in made.items()}
    return Result(
        "Disks in Ceph: time", rows, [
            Bar("disk in Ceph, from the second on (median of nine): time,"
                " of nova's", later[_OURS] / later[_NOVA], 1 / 20)],
        [image.describe(), "The cluster is one OSD on this machine: its"
         " disk is the host's, and there is no network. Nova's second disk"
         " finds the raw image in nova's own cache and is imported; on"
         " another host it would be as slow as the first. Medians of the"
         f" second to the tenth: nova {later[_NOVA]:.2f} s, imagecache"
         f" {later[_OURS]:.3f} s."],
        Chart("rbd-time", "seconds", {
            f"{_NOVA} s": "nova: fetch, convert, rbd import",
            f"{_OURS} s": "imagecache: a base in the pool, and clones"},
            logarithmic=True))


def _bytes(made: dict[str, list[Made]],
           image: cloud_image.CloudImage) -> Result:
    rows = _rows(made, {"host MiB": lambda one: one.host,
                        "pool MiB": lambda one: one.pool})
    ours = made[_OURS]
    file = image.compressed.stat().st_size / MiB
    return Result(
        "Disks in Ceph: bytes", rows, [
            Bar("second disk in Ceph: new space in the pool, % of the image",
                max(one.pool for one in ours[1:]) / (IMAGE_SIZE / MiB) * 100,
                1),
            Bar("first disk in Ceph: MiB over the host's disk besides the"
                " qcow2 file itself", ours[0].host - file, 4)],
        ["host: what the process, and those it started, wrote to the host's"
         " disk. pool: what is new in the pool, counted in objects of 4 MiB"
         " by librbd, without what clones share."],
        Chart("rbd-bytes", "MiB", {
            f"{_NOVA} host MiB": "nova, over the host's disk",
            f"{_OURS} host MiB": "imagecache, over the host's disk",
            f"{_NOVA} pool MiB": "nova, new in the pool",
            f"{_OURS} pool MiB": "imagecache, new in the pool"}))


def _elsewhere(site: Site, image: cloud_image.CloudImage,
               made: dict[str, list[Made]]) -> Result:
    glance = site.upload(image.raw)
    host = site.cache(glance)
    others = [site.make(site.cache(), str(image.compressed))
              for _ in range(_ROUNDS)]
    raw = [site.make(host, glance.image_id) for _ in range(_ROUNDS)]
    other = statistics.median(one.seconds for one in others)
    rows = [
        Row(name, meaning, {
            "time s": statistics.median(one.seconds for one in disks),
            "host MiB": max(one.host for one in disks),
            "pool MiB": max(one.pool for one in disks)})
        for name, meaning, disks in (
            ("another host", "its first disk of the image above", others),
            ("raw image", "a disk of one in Glance's pool", raw))]
    return Result(
        "Disks in Ceph: another host, and images of Glance's", rows, [
            Bar("raw image in Glance's pool: how often it was downloaded",
                glance.reads, 0),
            Bar("raw image in Glance's pool: MiB over the host's disk",
                max(one.host for one in raw), 1),
            Bar("another host's first disk in Ceph: time, of nova's first",
                other / made[_NOVA][0].seconds, 1 / 20)],
        [f"time: the median of {_ROUNDS}; the rest: the most of them."])
