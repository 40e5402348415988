# SPDX-License-Identifier: Apache-2.0
"""Hosts that share a pool: one makes a base, and all clone it."""

from __future__ import annotations

import os
import pathlib
import select
import signal
import time
import uuid
from unittest import mock

import imagecache
from imagecache import exception
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import processes
from imagecache.tests.functional import rbd_case
from imagecache.tests.functional.rbd_case import SIZE
from imagecache.tools import ceph
from imagecache.tools.rbd_image import Volume


class HostsTestCase(rbd_case.ImageTestCase):
    """Hosts are processes with instances of their own."""

    def setUp(self):
        super().setUp()
        self.journal = self.root / "journal"
        self.journal.touch()

    def host(self, name, observe=lambda event: None):
        """Return the cache of a host; its events go to the journal."""
        def tell(event):
            with self.journal.open("a") as f:
                f.write(f"{name} {event.name}\n")
            observe(event)

        self.images.config(instances_path=str(self.root / name))
        return imagecache.ImageCache(
            self.images.conf, glance=self.images.store, observe=tell)

    def make(self, name, observe=lambda event: None, instance=None):
        return self.host(name, observe).create_disk(
            instance or str(uuid.uuid4()), self.ref, size=2 * SIZE)

    def told(self, event):
        """Return the hosts that reported an event."""
        return [line.split()[0]
                for line in self.journal.read_text().splitlines()
                if line.split(maxsplit=1)[1] == event]

    def assert_whole(self):
        """Check that there is one base, and that disks have its content."""
        [entry] = self.host("looking").bases()
        self.assertTrue(self.content == self.read_volume(entry.path))
        disks = list(self.host("looking").disks())
        for disk in disks:
            self.assertEqual(entry.key, disk.base_key())
            self.assertTrue(self.content + bytes(SIZE)
                            == self.read_volume(disk.path))
        self.assertEqual({str(each.path) for each in (entry, *disks)},
                         self.volumes())
        return disks


class RaceTest(HostsTestCase):

    def test_two_hosts_at_once_make_one_base(self):
        for _ in range(3):
            self.journal.write_text("")
            self.assertEqual([0, 0, 0, 0], processes.at_once(
                [lambda name=name: self.make(name) for name in "aabb"]))
            self.assertEqual(1, len(self.told("committed")))
            self.assertEqual(1, len(self.told("validated")))
            self.assertEqual(4, len(self.assert_whole()))
            self.clear()

    def test_a_host_waits_for_the_one_that_is_at_it(self):
        ours, theirs = os.pipe()
        goes_on, lets = os.pipe()

        def stop(event):
            if event.name == "validated":
                os.write(theirs, b"!")
                hear(goes_on)

        def let(event):
            if event.name == "waiting":
                os.write(lets, b"!")

        first = processes.Child(lambda: self.make("a", stop))
        hear(ours)
        second = processes.Child(lambda: self.make("b", let))
        self.assertEqual([0, 0], [first.wait(), second.wait()])
        self.assertEqual(["b"], self.told("waiting"))
        self.assertEqual(["b"], self.told("hit"))
        self.assertEqual(["a"], self.told("committed"))
        self.assert_whole()

    def test_a_host_that_failed_leaves_it_to_the_one_that_waits(self):
        ours, theirs = os.pipe()
        goes_on, lets = os.pipe()

        def fail(event):
            if event.name == "validated":
                os.write(theirs, b"!")
                hear(goes_on)
                raise exception.NoSpace(path="/", what="a test", needed=1,
                                        available=0)

        def let(event):
            if event.name == "waiting":
                os.write(lets, b"!")

        first = processes.Child(lambda: self.make("a", fail),
                                exception.NoSpace)
        hear(ours)
        second = processes.Child(lambda: self.make("b", let))
        self.assertEqual([processes.REFUSED, 0],
                         [first.wait(), second.wait()])
        self.assertEqual(["b"], self.told("committed"))
        self.assertEqual(1, len(self.assert_whole()))


class RemovalRaceTest(HostsTestCase):
    """The format of the clones says how bases and clones go together."""

    def test_a_base_that_vanishes_before_it_is_cloned_is_made_again(self):
        self.make("a").remove()
        [entry] = self.host("a").bases()
        goes_on, lets = os.pipe()
        other = processes.Child(lambda: (
            hear(goes_on), self.host("b").remove_base(entry.key)))
        ended = []

        def remove(event):
            if event.name == "hit" and not ended:
                os.write(lets, b"!")
                ended.append(other.wait())

        self.make("a", remove)
        self.assertEqual([0], ended)
        self.assertEqual(2, len(self.told("committed")))
        self.assertEqual(1, len(self.assert_whole()))

    def test_removing_a_base_never_takes_it_from_a_disk(self):
        """Two hosts do both all the time, and no call fails."""
        def create():
            give_up = time.monotonic() + processes.PATIENCE
            made = 0
            # Its own host tells of disks that it removed.
            while made < 12 or ("b" not in self.told("removed")
                                and time.monotonic() < give_up):
                made += 1
                disk = self.make("a")
                assert self.read_volume(disk.path) \
                    == self.content + bytes(SIZE)
                disk.remove()

        def remove():
            cache = self.host("b")
            while True:
                for entry in list(cache.bases()):
                    try:
                        cache.remove_base(entry.key)
                    except (exception.BaseInUse, exception.BaseNotFound):
                        continue

        remover = processes.Child(remove)
        creator = processes.Child(create)
        self.assertEqual(0, creator.wait())
        remover.kill()
        self.assertEqual(-signal.SIGKILL, remover.wait())
        self.assertIn("b", self.told("removed"))
        self.make("a")
        self.assert_whole()


class NewerClonesRaceTest(RemovalRaceTest):
    """A clone that needs no protection may come at any moment."""

    clone_format = 2
    base_pool = "bases"

    def test_a_clone_that_comes_while_a_base_is_removed_stays_whole(self):
        disk = self.make("a")
        [entry] = self.host("a").bases()
        # As if it had come after that look.
        with mock.patch.object(Volume, "children", return_value=[]):
            disk.cache.store.remove(entry.key)
        self.assertEqual([], list(self.host("a").bases()))
        again = self.make("b")    # in the same volume, beside what it keeps
        self.assertEqual(entry.key, again.base_key())
        for each in (disk, again):
            self.assertTrue(self.content + bytes(SIZE)
                            == self.read_volume(each.path))


class KilledTest(HostsTestCase):

    missed = 5

    def assert_recovers(self):
        """Check that another host makes a whole disk."""
        child = processes.Child(lambda: self.make("b", instance=INSTANCE))
        self.assertEqual(0, child.wait())
        self.assert_whole()
        self.clear()

    def test_killed_at_every_event_of_a_cold_disk(self):
        for name in ("miss", "download", "verified", "validated", "convert",
                     "committed", "created"):
            def die(event, name=name):
                if event.name == name:
                    os.kill(os.getpid(), signal.SIGKILL)

            with self.subTest(name):
                child = processes.Child(lambda die=die: self.make("a", die))
                self.assertEqual(-signal.SIGKILL, child.wait())
                self.assertEqual(
                    1 if name in ("committed", "created") else 0,
                    len(list(self.host("b").bases())))
                self.assert_recovers()

    def test_killed_before_anything_changes_in_the_cluster(self):
        """A base is whole at each of these moments, or not there."""
        made = 0
        while True:
            made += 1
            child = processes.Child(lambda step=made: (
                die_before_operation(step),
                self.make("a", instance=INSTANCE)))
            ended = child.wait()
            if ended != -signal.SIGKILL:
                break
            with self.subTest(made):
                for entry in self.host("b").bases():
                    self.assertTrue(
                        self.content == self.read_volume(entry.path))
                self.assert_recovers()
        self.assertEqual(0, ended)
        self.assertGreater(made, 7)
        self.assert_whole()

    def test_the_next_attempt_removes_the_download_of_a_killed_host(self):
        def die(event):
            if event.name == "validated":
                os.kill(os.getpid(), signal.SIGKILL)

        child = processes.Child(lambda: self.make("a", die))
        self.assertEqual(-signal.SIGKILL, child.wait())
        self.assertNotEqual([], files(self.root / "a"))
        self.make("a")
        self.assertEqual([], files(self.root / "a"))

    def test_a_paused_host_cannot_write_and_uses_the_base_of_another(self):
        for name in ("validated", "convert"):
            def stop(event, name=name):
                if event.name == name and not self.told("committed"):
                    os.kill(os.getpid(), signal.SIGSTOP)

            with self.subTest(name):
                paused = processes.Child(lambda stop=stop: self.make(
                    "a", stop))
                processes.wait_for(lambda name=name: self.told(name))
                self.make("b")
                os.kill(paused.pid, signal.SIGCONT)
                self.assertEqual(0, paused.wait())
                self.assertEqual(["b"], self.told("committed"))
                self.assertEqual(2, len(self.assert_whole()))
                self.clear()
                self.journal.write_text("")

    def test_a_killed_removal_leaves_a_base_or_none(self):
        made = 0
        while True:
            self.make("a").remove()
            [entry] = self.host("a").bases()
            made += 1
            child = processes.Child(lambda step=made, key=entry.key: (
                die_before_operation(step), self.host("a").remove_base(key)))
            ended = child.wait()
            if ended != -signal.SIGKILL:
                break
            with self.subTest(made):
                self.assert_recovers()
        self.assertEqual(0, ended)
        self.assertGreater(made, 3)


def hear(readable):
    """Return when the other process has written to a pipe."""
    found, _, _ = select.select([readable], [], [], processes.PATIENCE)
    assert found, "the other process wrote nothing"


# What changes nothing; and of writing, the event "convert" tells.
NO_CHANGE = ("connecting", "asking", "opening", "closing", "listing",
             "reading", "measuring", "writing")


def die_before_operation(step):
    """Kill this process before its n-th change to the cluster."""
    translated, asked = ceph.translated, 0

    def counting(what, where):
        nonlocal asked
        asked += not what.startswith(NO_CHANGE)
        if asked == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return translated(what, where)

    ceph.translated = counting


def files(directory: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in directory.rglob("*")
            if path.is_file() and path.parent.name != "locks"]
