# SPDX-License-Identifier: Apache-2.0
"""Every decision, in one frozen thing."""

from __future__ import annotations

import dataclasses
import pathlib

from imagecache.host import Host
from imagecache.policy import Policy
from imagecache.tests import base


class PolicyTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.policy = Policy(pathlib.Path("/instances"))

    def test_it_is_frozen(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            self.policy.use_cow = False

    def test_places_follow_from_the_instances(self) -> None:
        self.assertEqual(pathlib.Path("/instances/_base"), self.policy.bases)
        self.assertEqual(pathlib.Path("/instances/locks"), self.policy.locks)

    def test_places_may_be_elsewhere(self) -> None:
        policy = dataclasses.replace(
            self.policy, base_subdirectory="x",
            lock_directory=pathlib.Path("/run/locks"))
        self.assertEqual(pathlib.Path("/instances/x"), policy.bases)
        self.assertEqual(pathlib.Path("/run/locks"), policy.locks)

    def test_whatever_reads_what_a_tenant_chose_has_limits(self) -> None:
        for limits in (self.policy.inspection, self.policy.conversion):
            self.assertTrue(limits.address_space and limits.wall_clock)
        self.assertTrue(self.policy.inspection.cpu_time)

    def test_a_host_takes_its_places_from_it(self) -> None:
        host = Host(self.policy)
        self.assertEqual(self.policy.bases, host.directory_cache.store.
                         directory)
        self.assertEqual((self.policy.locks, self.policy.lock_prefix),
                         (host.locks.directory, host.locks.prefix))
        self.assertEqual(pathlib.Path("/instances/uuid"),
                         host.instance_directory("uuid"))
