# SPDX-License-Identifier: Apache-2.0
"""Many hosts wait for one that makes a base in Ceph."""

from __future__ import annotations

import threading
from unittest import mock

from imagecache import events, opts
from imagecache.backends.rbd.store import RbdStore
from imagecache.bases.directory import DirectoryStore
from imagecache.model import Format, MiB, Record, Validated
from imagecache.tests import processes
from imagecache.tests.functional import rbd_case
from imagecache.tools.rbd_image import Volume

KEY = "a" * 40
HOSTS = 64
# Operations of the cluster: to look at a volume's watchers, and for all else
# that a host does from its arrival to the committed base.
LOOK, ONCE = 2, 60


class WaitingTest(rbd_case.ImageTestCase):

    def store(self, name: str, observe: events.Observer = events.silent
              ) -> RbdStore:
        """Return the store of the bases, as a host of this name has it."""
        policy = opts.policy_from(self.images.conf)
        return RbdStore(
            policy.rbd, DirectoryStore(self.root / name, self.root / name),
            observe)

    def test_64_hosts_wait_at_little_cost_and_lock_nothing(self) -> None:
        told: list[str] = []
        found: list[bool] = []
        looks: list[Volume] = []
        locks: list[Volume] = []
        look, lock = Volume.is_open_for_writing, Volume.lock

        def looking(volume: Volume) -> bool:
            looks.append(volume)
            return look(volume)

        def locking(volume: Volume) -> bool:
            locks.append(volume)
            return lock(volume)

        def wait(number: int) -> None:
            store = self.store(f"host-{number}",
                               lambda event: told.append(event.name))
            with store.stage(KEY) as staging:
                found.append(staging.locked)
                assert store.lookup(KEY) is not None

        with mock.patch.object(Volume, "is_open_for_writing", looking), \
                mock.patch.object(Volume, "lock", locking):
            with self.store("maker").stage(KEY) as staging:
                before = self.ceph.operations()
                hosts = [threading.Thread(target=wait, args=(number,))
                         for number in range(HOSTS)]
                for host in hosts:
                    host.start()
                processes.wait_for(lambda: len(told) == HOSTS)
                processes.wait_for(lambda: len(looks) > 5 * HOSTS)
                self.assertEqual([], found)
                with staging.writing(MiB, 0):
                    pass
                staging.commit(
                    Validated(staging.output, Format.RAW, MiB),
                    Record(Format.RAW, MiB, MiB, 1, "a test"))
            for host in hosts:
                host.join()
        self.assertEqual(["waiting"] * HOSTS, told)
        self.assertEqual([False] * HOSTS, found)
        self.assertEqual(1, len(locks))      # the maker's
        cost = self.ceph.operations() - before
        self.assertLess(cost, LOOK * len(looks) + ONCE * HOSTS)
