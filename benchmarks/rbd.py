# SPDX-License-Identifier: Apache-2.0
"""Disks in Ceph of a qcow2 image: its first, its second, its tenth."""

from __future__ import annotations

import functools
import os
import pathlib
import statistics
import uuid
from collections.abc import Callable, Iterator, Sequence

import imagecache
from benchmarks import harness
from benchmarks.harness import Bar, Chart, MiB, Result, Row, Run, Subject
from benchmarks.nova import Nova
from benchmarks.scratch import (
    CloudImage,
    Scratch,
    command,
    configuration,
    make_image,
)
from imagecache.model import GiB
from imagecache.sources.glance import GlanceStore
from imagecache.testing.glance import FakeGlance
from imagecache.tests.functional.ceph_cluster import CephCluster
from imagecache.tools import ceph, rbd

IMAGE_SIZE = GiB
IMAGE_DATA = 700 * MiB
DISK_SIZE = 10 * GiB
DISKS = {"first disk": (0, "of an image without a base"),
         "second disk": (1, "of the same image, on the same host"),
         "tenth disk": (9, "the same again")}
_ROUNDS = 5     # of what has no first, second and tenth


def results(scratch: Scratch) -> Iterator[Result]:
    image = make_image(scratch.directory("image"), IMAGE_SIZE, IMAGE_DATA)
    with CephCluster() as cluster, _nova(scratch, cluster) as nova:
        # What nova writes is counted by its own process.
        subjects = [
            Subject("nova", "", functools.partial(_made, cluster, lambda: (
                nova.create_disk(str(uuid.uuid4()), image.compressed, "base",
                                 "rbd", DISK_SIZE)))),
            Subject("imagecache", "", functools.partial(
                _disk, cluster, _cache(scratch, cluster),
                str(image.compressed)))]
        theirs, ours = harness.race(subjects, 10, practice=0)
        yield _times(theirs, ours, image)
        yield _bytes(theirs, ours, image)
        yield _elsewhere(scratch, cluster, image, theirs)


def _options(cluster: CephCluster, user: str) -> dict[str, str]:
    return {"images_type": "rbd", "images_rbd_pool": "vms",
            "images_rbd_ceph_conf": str(cluster.conf), "rbd_user": user}


def _nova(scratch: Scratch, cluster: CephCluster) -> Nova:
    rados, _ = ceph.bindings()
    return Nova(scratch.directory("nova"),
                [f"libvirt.{name}={value}" for name, value in _options(
                    cluster, "nova").items()],
                pathlib.Path(rados.__file__).parent)


def _cache(scratch: Scratch, cluster: CephCluster,
           glance: GlanceStore | None = None) -> imagecache.ImageCache:
    """Return a host of ours, new: nothing is in its directories."""
    conf = configuration(scratch.directory("imagecache"))
    for name, value in _options(cluster, "imagecache").items():
        conf.set_override(name, value, "libvirt")
    return imagecache.ImageCache(conf, glance=glance)


def _disk(cluster: CephCluster, cache: imagecache.ImageCache,
          image_ref: str) -> Run:
    return _made(cluster, lambda: harness.measure(functools.partial(
        cache.create_disk, str(uuid.uuid4()), image_ref, size=DISK_SIZE)))


def _made(cluster: CephCluster, make: Callable[[], Run]) -> Run:
    os.sync()
    before = _allocated(cluster)
    run = make()
    return run.having(host_MiB=run.written,
                      pool_MiB=_allocated(cluster) - before)


def _allocated(cluster: CephCluster) -> float:
    """Return MiB of all disks, without what they share with a parent."""
    access, found = rbd.Access(str(cluster.conf), "admin"), 0
    with rbd.connected(access) as connection, \
            connection.pool("vms") as pool:
        for name in pool.names():
            with pool.open(name, read_only=True) as volume:
                found += volume.allocated()
    return found / MiB


def _times(theirs: Sequence[Run], ours: Sequence[Run],
           image: CloudImage) -> Result:
    later = [statistics.median(run.seconds for run in runs[1:])
             for runs in (theirs, ours)]
    return Result(
        "Disks in Ceph: time", [
            Row(name, meaning, {"nova s": theirs[n].seconds,
                                "imagecache s": ours[n].seconds})
            for name, (n, meaning) in DISKS.items()],
        [Bar("disk in Ceph, from the second on (median of nine): time, of"
             " nova's", later[1] / later[0], 1 / 20)],
        [image.describe(), "The cluster is one OSD on this machine: its"
         " disk is the host's, and there is no network. Nova's second disk"
         " finds the raw image in nova's own cache and is imported; on"
         " another host it would be as slow as the first. Medians of the"
         f" second to the tenth: nova {later[0]:.2f} s, imagecache"
         f" {later[1]:.3f} s."],
        Chart("rbd-time", "seconds", {
            "nova s": "nova: fetch, convert, rbd import",
            "imagecache s": "imagecache: a base in the pool, and clones"},
            logarithmic=True))


def _bytes(theirs: Sequence[Run], ours: Sequence[Run],
           image: CloudImage) -> Result:
    file = image.compressed.stat().st_size / MiB
    new = max(run.measured["pool MiB"] for run in ours[1:])
    return Result(
        "Disks in Ceph: bytes", [
            Row(name, meaning, {
                f"{maker} {unit}": runs[n].measured[unit]
                for unit in ("host MiB", "pool MiB")
                for maker, runs in (("nova", theirs), ("imagecache", ours))})
            for name, (n, meaning) in DISKS.items()], [
            Bar("second disk in Ceph: new space in the pool, % of the image",
                new / (IMAGE_SIZE / MiB) * 100, 1),
            Bar("first disk in Ceph: MiB over the host's disk besides the"
                " qcow2 file itself", ours[0].measured["host MiB"] - file, 4)],
        ["host: what the process, and those it started, wrote to the host's"
         " disk. pool: what is new in the pool, counted in objects of 4 MiB"
         " by librbd, without what clones share."],
        Chart("rbd-bytes", "MiB", {
            f"{maker} {unit}": f"{maker}, {meaning}"
            for unit, meaning in (("host MiB", "over the host's disk"),
                                  ("pool MiB", "new in the pool"))
            for maker in ("nova", "imagecache")}))


def _upload(cluster: CephCluster, glance: FakeGlance,
            raw: pathlib.Path) -> str:
    """Put an image into Glance's pool, as Glance's own store does."""
    size = raw.stat().st_size
    image_id = glance.add_image(b"", size=size)
    glance.change(image_id, locations=[{
        "url": f"rbd://{cluster.fsid}/images/{image_id}/snap",
        "metadata": {}}])
    rbd_command = ("rbd", "--conf", cluster.conf, "--id", "glance",
                   "--no-progress")
    command(*rbd_command, "import", raw, f"images/{image_id}")
    command(*rbd_command, "snap", "create", f"images/{image_id}@snap")
    command(*rbd_command, "snap", "protect", f"images/{image_id}@snap")
    return image_id


def _elsewhere(scratch: Scratch, cluster: CephCluster, image: CloudImage,
               theirs: Sequence[Run]) -> Result:
    with FakeGlance() as glance:
        image_id = _upload(cluster, glance, image.raw)
        host = _cache(scratch, cluster, GlanceStore.from_token(
            glance.url, glance.token))
        raw = [_disk(cluster, host, image_id) for _ in range(_ROUNDS)]
        downloads = sum(request.path.endswith("/file")
                        for request in glance.requests)
    others = [_disk(cluster, _cache(scratch, cluster), str(image.compressed))
              for _ in range(_ROUNDS)]
    rows = [
        Row(name, meaning, {
            "time s": statistics.median(run.seconds for run in runs),
            **{unit: max(run.measured[unit] for run in runs)
               for unit in ("host MiB", "pool MiB")}})
        for name, meaning, runs in (
            ("another host", "its first disk of the image above", others),
            ("raw image", "a disk of one in Glance's pool", raw))]
    return Result(
        "Disks in Ceph: another host, and images of Glance's", rows, [
            Bar("raw image in Glance's pool: how often it was downloaded",
                downloads, 0),
            Bar("raw image in Glance's pool: MiB over the host's disk",
                rows[1].values["host MiB"], 1),
            Bar("another host's first disk in Ceph: time, of nova's first",
                rows[0].values["time s"] / theirs[0].seconds, 1 / 20)],
        [f"time: the median of {_ROUNDS}; the rest: the most of them."])
