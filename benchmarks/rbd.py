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
MAKERS = ("nova", "imagecache")
_ROUNDS = 5     # for a host and an image that have one kind of disk


def results(scratch: Scratch) -> Iterator[Result]:
    image = make_image(scratch.directory("image"), IMAGE_SIZE, IMAGE_DATA)
    rados, _ = ceph.bindings()
    with CephCluster() as cluster, Nova(
            scratch.directory("nova"),
            [f"libvirt.{name}={value}"
             for name, value in _options(cluster, "nova").items()],
            pathlib.Path(rados.__file__).parent) as nova:
        # Nova's own process counts its writes.
        subjects = [
            Subject("nova", "", lambda: _made(cluster, lambda: (
                nova.create_disk(str(uuid.uuid4()), image.compressed, "base",
                                 "rbd", DISK_SIZE)))),
            Subject("imagecache", "", functools.partial(
                _disk, cluster, _host(scratch, cluster),
                str(image.compressed)))]
        runs = harness.race(subjects, 10)
        yield _times(runs, image)
        yield _bytes(runs, image)
        yield _elsewhere(scratch, cluster, image, runs[0][0].seconds)


def _options(cluster: CephCluster, user: str) -> dict[str, str]:
    return {"images_type": "rbd", "images_rbd_pool": "vms",
            "images_rbd_ceph_conf": str(cluster.conf), "rbd_user": user}


def _host(scratch: Scratch, cluster: CephCluster,
          glance: GlanceStore | None = None) -> imagecache.ImageCache:
    """Return the cache of a new host, with empty directories."""
    return imagecache.ImageCache(configuration(
        scratch.directory("imagecache"),
        libvirt=_options(cluster, "imagecache")), glance=glance)


def _disk(cluster: CephCluster, cache: imagecache.ImageCache,
          image_ref: str) -> Run:
    return _made(cluster, lambda: harness.measure(lambda: cache.create_disk(
        str(uuid.uuid4()), image_ref, size=DISK_SIZE)))


def _made(cluster: CephCluster, make: Callable[[], Run]) -> Run:
    os.sync()
    before = _allocated(cluster)
    run = make()
    return run.having(host_MiB=run.written,
                      pool_MiB=_allocated(cluster) - before)


def _allocated(cluster: CephCluster) -> float:
    """Return MiB of all disks, without the data they share with a parent."""
    access, found = rbd.Access(str(cluster.conf), "admin"), 0
    with rbd.connected(access) as connection, \
            connection.pool("vms") as pool:
        for name in pool.names():
            with pool.open(name, read_only=True) as volume:
                found += volume.allocated()
    return found / MiB


def _times(runs: Sequence[Sequence[Run]], image: CloudImage) -> Result:
    theirs, ours = (statistics.median(run.seconds for run in each[1:])
                    for each in runs)
    return Result(
        "Disks in Ceph: time", [
            Row(name, meaning, {
                f"{maker} s": each[n].seconds
                for maker, each in zip(MAKERS, runs, strict=True)})
            for name, (n, meaning) in DISKS.items()],
        [Bar("disk in Ceph, from the second on (median of nine): time, of"
             " nova's", ours / theirs, 1 / 20)],
        [image.describe(), "The cluster is one OSD on this machine: its"
         " disk is the host's, and there is no network. Nova's second disk"
         " finds the raw image in nova's own cache and is imported; on"
         " another host it would be as slow as the first. Medians of the"
         f" second to the tenth: nova {theirs:.2f} s, imagecache"
         f" {ours:.3f} s."],
        Chart("rbd-time", "seconds", {
            "nova s": "nova: fetch, convert, rbd import",
            "imagecache s": "imagecache: a base in the pool, and clones"},
            logarithmic=True))


def _bytes(runs: Sequence[Sequence[Run]], image: CloudImage) -> Result:
    first, *later = (run.measured for run in runs[1])
    return Result(
        "Disks in Ceph: bytes", [
            Row(name, meaning, {
                f"{maker} {unit}": each[n].measured[unit]
                for unit in ("host MiB", "pool MiB")
                for maker, each in zip(MAKERS, runs, strict=True)})
            for name, (n, meaning) in DISKS.items()], [
            Bar("second disk in Ceph: new space in the pool, % of the image",
                max(each["pool MiB"] for each in later) * MiB / IMAGE_SIZE
                * 100, 1),
            Bar("first disk in Ceph: MiB over the host's disk besides the"
                " qcow2 file itself", first["host MiB"]
                - image.compressed.stat().st_size / MiB, 4)],
        ["host: writes of the process, and of its programs, to the host's"
         " disk. pool: the new data in the pool, counted in objects of 4 MiB"
         " by librbd, without the data that clones share."],
        Chart("rbd-bytes", "MiB", {
            f"{maker} {unit}": f"{maker}, {meaning}"
            for unit, meaning in (("host MiB", "over the host's disk"),
                                  ("pool MiB", "new in the pool"))
            for maker in MAKERS}))


def _upload(cluster: CephCluster, glance: FakeGlance,
            raw: pathlib.Path) -> str:
    """Put an image into Glance's pool, as Glance's own store does."""
    image_id = glance.add_image(b"", size=raw.stat().st_size)
    glance.change(image_id, locations=[{
        "url": f"rbd://{cluster.fsid}/images/{image_id}/snap",
        "metadata": {}}])
    name = f"images/{image_id}"
    for words in (("import", "--no-progress", raw, name),
                  ("snap", "create", "--no-progress", f"{name}@snap"),
                  ("snap", "protect", f"{name}@snap")):
        command("rbd", "--conf", cluster.conf, "--id", "glance", *words)
    return image_id


def _elsewhere(scratch: Scratch, cluster: CephCluster, image: CloudImage,
               first: float) -> Result:
    """Measure other hosts and images.

    :param first: the seconds of nova's first disk
    """
    with FakeGlance() as glance:
        image_id = _upload(cluster, glance, image.raw)
        host = _host(scratch, cluster, GlanceStore.from_token(
            glance.url, glance.token))
        raw = [_disk(cluster, host, image_id) for _ in range(_ROUNDS)]
        downloads = sum(request.path.endswith("/file")
                        for request in glance.requests)
    others = [_disk(cluster, _host(scratch, cluster), str(image.compressed))
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
                rows[0].values["time s"] / first, 1 / 20)],
        [f"time: the median of {_ROUNDS}; the rest: the most of them."])
