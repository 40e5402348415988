# SPDX-License-Identifier: Apache-2.0
"""Logical volumes: the tests that need no volume group.

The guest suite tests the effects of the commands.  Here are tests of the
commands themselves, and of the rules of sudo and rootwrap that allow them.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
import shlex
import time
import types
from collections.abc import Iterator

import fixtures
from oslo_rootwrap import filters, wrapper

from imagecache import Encryption, events, exception, fixture
from imagecache.backends import EncryptedLvm, Lvm
from imagecache.backends.lvm import volumes
from imagecache.backends.lvm.thin_store import (
    StagedVolume,
    _recorded,
    _tags,
    store_of,
)
from imagecache.host import Host
from imagecache.model import Format, GiB, MiB, Record, Validated
from imagecache.policy import LvmPolicy, Policy
from imagecache.tests import base
from imagecache.tools import cryptsetup, lvm

ETC = pathlib.Path(__file__).resolve().parents[3] / "etc" / "imagecache"
OTHER_HOST = types.SimpleNamespace(nodename="other")
UUID = "8a6a8b1f-7f0c-4b3c-a8a2-3f7d2b6d6d5e"
RECORD = Record(Format.RAW, MiB, MiB, 3, "an image", "qcow2", "sha256:00")


class Recorder(fixtures.Fixture):
    """Records commands in place of running them, and returns an answer."""

    def __init__(self, answer: str = "") -> None:
        self.answer = answer

    def _setUp(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.system.execute.run", self._run))

    def _run(self, *command: str, **options: object) -> str:
        options.pop("secret", None)
        options.pop("exit_codes", None)
        assert options == {"root_helper": "sudo"}, options
        self.commands.append(command)
        return self.answer


class CommandsTest(base.TestCase):
    """Return every command that runs as root."""

    def commands(self) -> list[tuple[str, ...]]:
        group = lvm.VolumeGroup("vg", "sudo")
        disk, key = f"{UUID}_disk", "base-" + "a" * 40
        attempt, staged = volumes.attempt_at(disk), volumes.attempt_at(key)
        tags = _tags(RECORD)
        report = self.useFixture(Recorder('{"report": [{"lv": [], "vg": []}]}'
                                          ))
        group.volumes("segtype!=thin-pool")
        group.volumes(volumes.attempts_at(disk))
        group.volumes()
        group.volume(disk)
        self.assertRaises(exception.InvalidConfiguration, group.pool, "pool")
        self.assertRaises(ValueError, group.space)
        group.create(attempt, GiB, ["imagecache.disk"])
        group.create_pool(volumes.own_pool(attempt), GiB)
        group.create_thin(attempt, GiB, volumes.own_pool(attempt),
                          ["imagecache.disk"])
        group.create_thin(staged, GiB, "pool")
        group.snapshot(attempt, key, ["imagecache.disk"])
        group.snapshot(disk, key, ["imagecache.disk"])    # at once
        group.extend(attempt, GiB)
        group.extend(disk, GiB)
        group.rename(attempt, disk)
        group.rename(disk, attempt)
        group.rename(staged, key)
        group.activate(disk)
        group.activate(attempt)
        group.deactivate(staged)
        group.seal(staged, tags)
        group.seal(staged, [*tags, "imagecache.record.1=abc"])
        group.retag(key, tags, tags)
        for name in (disk, attempt, volumes.own_pool(attempt), key, staged):
            group.remove(name)
        group._own(group.device(disk), 0)
        group._own(group.device(attempt), 1000)
        self.encrypt(group, attempt, disk)
        return report.commands

    def encrypt(self, group: lvm.VolumeGroup, attempt: str,
                disk: str) -> None:
        tags, key = EncryptedLvm.tags, Encryption(b"secret")
        group.create(attempt, GiB, tags)
        group.create_thin(attempt, GiB, "pool", tags)
        cryptsetup.create(group.device(attempt), 4 * MiB, key, "sudo")
        name = f"{disk}-dmcrypt"
        cryptsetup.open(group.device(disk), name, key, "sudo")
        cryptsetup.resize(name, "sudo")
        cryptsetup.close(name, "sudo")

    def test_the_rootwrap_filters_allow_each_command(self) -> None:
        for command in self.commands():
            with self.subTest(shlex.join(command)):
                self.assertTrue(rootwrap_allows(command))

    def test_the_sudo_rules_allow_each_command(self) -> None:
        for command in self.commands():
            with self.subTest(shlex.join(command)):
                self.assertTrue(sudo_allows(command))

    def test_neither_rules_nor_filters_allow_an_added_option(self) -> None:
        for command in self.commands():
            for place in range(1, len(command) + 1):
                more = (*command[:place], "--config=log{file=a_b}",
                        *command[place:])
                with self.subTest(shlex.join(more)):
                    self.assertFalse(rootwrap_allows(more))
                    self.assertFalse(sudo_allows(more))

    def test_neither_rules_nor_filters_allow_another_command(self) -> None:
        for line in FORBIDDEN:
            with self.subTest(line):
                self.assertFalse(rootwrap_allows(line.split()))
                self.assertFalse(sudo_allows(line.split()))


FORBIDDEN = (
    "lvremove --yes vg/root",
    "lvremove --yes vg",
    f"lvremove --yes other/{UUID}_disk",
    f"lvremove --yes vg/{UUID}_disk vg/root",
    f"lvremove --yes --config x vg/{UUID}_disk",
    "lvrename vg root a_disk",
    "lvrename vg a_disk root",
    "lvchange --yes --activate n vg/root",
    "lvextend --yes --size 1b vg/root",
    "lvcreate --yes --snapshot --permission rw --setactivationskip n"
    " --addtag imagecache.disk --name .a_disk vg/root",
    "lvcreate --yes --wipesignatures y --zero y --size 1b --addtag"
    " imagecache.disk --name .a_disk vg /dev/sda",
    "cryptsetup luksFormat --batch-mode --type luks1 --cipher aes-xts-plain64"
    " --key-size 512 --hash sha256 --iter-time 1 --align-payload 4096"
    " --key-file=- /dev/vg/a_disk",
    "cryptsetup luksFormat --batch-mode --type luks1 --cipher aes-xts-plain64"
    " --key-size 512 --hash sha256 --iter-time 1 --align-payload 4096"
    " --key-file=- /dev/sda",
    "cryptsetup open --type luks1 --key-file=- /dev/vg/root a_b-dmcrypt",
    "cryptsetup open --type luks1 --key-file=/etc/shadow /dev/vg/a_disk"
    " a_disk-dmcrypt",
    "cryptsetup close swap",
    "chown 1000 /etc/shadow",
    "chown 1000 /dev/vg/root",
    "chown 1000 /dev/vg/a_disk /etc/shadow",
    "chown 1000 /dev/vg/a_b/../../../etc/shadow",
    "chown -R 1000 /dev/vg/a_disk",
    "lvs --reportformat json --units b --nosuffix --options lv_name --config"
    " /etc/x vg",
    # With --config LVM writes or loads any file as root.
    "lvs --reportformat json --units b --nosuffix --options lv_name --select"
    " x --config log{file=x} vg",
    "lvrename vg --config=log{file=a_b} a_disk",
    "lvrename vg a_disk --config=log{file=a_b}",
    "lvremove --yes --config=log{file=a_b} vg/a_disk",
    "cryptsetup open --type luks1 --key-file=- /dev/vg/a_disk"
    " --header=a_b-dmcrypt",
    "cryptsetup close --debug=a_b-dmcrypt",
    "vgremove --yes vg",
    "sh -c id",
)


def rootwrap_allows(command: list[str] | tuple[str, ...]) -> bool:
    return any(each.match(list(command)) for each in rootwraps_filters())


@functools.cache
def rootwraps_filters() -> list[filters.CommandFilter]:
    return list(wrapper.load_filters([str(ETC / "rootwrap.d")]))


def sudo_allows(command: list[str] | tuple[str, ...]) -> bool:
    name, arguments = command[0], " ".join(command[1:])
    return any(pathlib.Path(path).name == name
               and re.search(pattern, arguments)
               for path, pattern in sudo_rules())


def sudo_rules() -> Iterator[tuple[str, str]]:
    text = (ETC / "sudoers").read_text().replace("\\\n", "")
    for alias in re.findall(r"^Cmnd_Alias \w+ = (.*)$", text, re.M):
        # Each regular expression ends in a dollar sign.
        for rule in re.findall(r"\s*(/\S+ \^.*?\$)(?:,|$)", alias):
            path, _, pattern = rule.partition(" ")
            yield path, pattern


class NamesTest(base.TestCase):

    def disk(self, instance: str = UUID, name: str = "disk",
             path: str | None = None) -> Lvm:
        host = Host(Policy(self.root, lvm=LvmPolicy("nova-vg")))
        return Lvm(host, instance, name, path and pathlib.Path(path))

    def test_a_volume_has_the_name_nova_gives_it(self) -> None:
        self.assertEqual(f"/dev/nova-vg/{UUID}_disk", str(self.disk().path))
        self.assertEqual(f"/dev/nova-vg/{UUID}_disk.eph0__1",
                         str(self.disk(name="disk.eph0_1").path))

    def test_a_volume_is_known_by_either_of_its_paths(self) -> None:
        for path in (f"/dev/nova-vg/{UUID}_disk",
                     "/dev/mapper/nova--vg-" + UUID.replace("-", "--")
                     + "_disk"):
            self.assertEqual(f"/dev/nova-vg/{UUID}_disk",
                             str(self.disk(path=path).path))

    def test_the_device_of_an_encrypted_volume_has_the_name_of_nova(
            self) -> None:
        host = Host(Policy(self.root, lvm=LvmPolicy("nova-vg")))
        disk = EncryptedLvm(host, UUID, "disk.eph0_1")
        self.assertEqual(f"/dev/mapper/{UUID}_disk.eph0__1-dmcrypt",
                         str(disk.path))
        self.assertEqual(f"/dev/nova-vg/{UUID}_disk.eph0__1",
                         str(disk.volume))

    def test_an_instance_with_a_key_has_encrypted_volumes(self) -> None:
        images = self.useFixture(fixture.ImageCacheFixture())
        images.config("libvirt", images_volume_group="nova-vg")
        device = f"/dev/mapper/{UUID}_disk-dmcrypt"
        backend = images.backend()
        for key, path in ((None, f"/dev/nova-vg/{UUID}_disk"),
                          ("a-key", device)):
            instance = {"uuid": UUID, "ephemeral_key_uuid": key}
            found = backend.by_name(instance, "disk", "lvm")
            self.assertEqual((path, f"{UUID}_disk", "nova-vg"),
                             (found.path, found.lv, found.vg))
        found = backend.by_libvirt_path(instance, device, "lvm")
        self.assertEqual((device, f"{UUID}_disk"), (found.path, found.lv))

    def test_a_path_that_is_not_a_volume_is_refused(self) -> None:
        for path in ("/etc/shadow", "/dev/sda", "/dev/mapper/control",
                     "/dev/vg/a/b", "dev/vg/a"):
            with self.assertRaises(exception.InvalidDevicePath):
                print(self.disk(path=path).path)

    def test_names_that_lvm_reserves_are_refused(self) -> None:
        for instance, name in (("a", "tdata"), ("snapshot", "x"),
                               ("a_rimage_0", "x"), ("ä", "disk"),
                               ("-a", "disk"), ("a", "x" * 100)):
            with self.subTest(name), \
                    self.assertRaises(exception.InvalidName):
                print(self.disk(instance, name).path)

    def test_without_a_volume_group_no_disk_is_described(self) -> None:
        disk = Lvm(Host(Policy(self.root)), UUID, "disk")
        self.assertRaises(RuntimeError, disk.exists)   # which nova raises

    def test_the_name_of_an_attempt_contains_the_name_of_its_volume(
            self) -> None:
        attempt = volumes.attempt_at("a.1_disk")
        self.assertEqual("a.1_disk", volumes.attempted(attempt))
        self.assertEqual("a.1_disk",
                         volumes.attempted(volumes.own_pool(attempt)))
        self.assertIsNone(volumes.attempted("a.1_disk"))
        self.assertNotEqual(attempt, volumes.attempt_at("a.1_disk"))

    def test_an_attempt_is_abandoned_when_its_process_is_gone(self) -> None:
        attempt = volumes.attempt_at("disk")
        self.assertFalse(volumes.is_abandoned(attempt))
        # A later process can have the same number.
        pid, start = re.fullmatch(r"\.disk\.(\d+)-(\d+)\..*", attempt
                                  ).groups()
        self.assertTrue(volumes.is_abandoned(
            f".disk.{pid}-{int(start) - 1}.012345"))
        self.assertTrue(volumes.is_abandoned(".disk.99999999-1.012345"))
        self.assertFalse(volumes.is_abandoned("disk"))


class GroupTest(base.TestCase):

    def test_a_size_larger_than_the_free_extents_is_refused(self) -> None:
        self.useFixture(Recorder(
            '{"report": [{"vg": [{"vg_free": "8388608",'
            ' "vg_extent_size": "4194304"}]}]}'))
        group = lvm.VolumeGroup("vg", "sudo")
        volumes.require_free(group, 8 * MiB, "a test")
        with self.assertRaisesRegex(exception.NoSpace, "12582912 bytes need"):
            volumes.require_free(group, 8 * MiB + 1, "a test")


class RecordTest(base.TestCase):

    def test_a_record_survives_its_conversion_to_tags(self) -> None:
        for source in ("an image", "ä, b=c\n", "http://x/" + "y" * 3000):
            record = Record(Format.RAW, MiB, MiB, 3, source)
            tags = _tags(record)
            for tag in tags:
                self.assertRegex(tag, r"^[A-Za-z0-9_+.\-/=!:&#]{1,1024}$")
            self.assertEqual(record, _recorded(["other", *reversed(tags)]))

    def test_an_incomplete_record_is_ignored(self) -> None:
        tags = _tags(Record(Format.RAW, MiB, MiB, 3, "y" * 3000))
        for left_out in range(len(tags)):
            self.assertIsNone(_recorded(
                tags[:left_out] + tags[left_out + 1:]))
        self.assertIsNone(_recorded([]))


class StoreTest(base.TestCase):
    """A base whose record is in a file and in the tags of its volume."""

    def setUp(self) -> None:
        super().setUp()
        policy = Policy(self.root, root_helper="sudo",
                        lvm=LvmPolicy("vg", "pool"))
        self.store = store_of(policy, events.silent)
        self.commands = self.useFixture(Recorder(
            '{"report": [{"lv": []}]}')).commands
        volume = ".base-key.1-1.abcdef"
        StagedVolume(
            self.store, "key", self.root / "download", volume).commit(
                Validated(pathlib.Path("/dev/vg", volume), Format.RAW, MiB),
                RECORD)

    def test_committing_ends_with_the_rename(self) -> None:
        self.assertEqual(["lvchange", "lvchange", "lvrename"],
                         [command[0] for command in self.commands])

    def test_a_known_base_is_found_without_a_command(self) -> None:
        self.commands.clear()
        entry = self.store.lookup("key")
        self.assertEqual((RECORD, "/dev/vg/base-key"),
                         (entry.record, str(entry.path)))
        self.assertEqual([], self.commands)

    def test_hosts_that_share_the_directory_have_groups_of_their_own(
            self) -> None:
        with fixtures.MonkeyPatch("os.uname", lambda: OTHER_HOST):
            self.assertIsNone(self.store.lookup("key"))
            self.assertRaises(exception.BaseNotFound, self.store.require,
                              "key")
        self.assertIsNotNone(self.store.lookup("key"))

    def test_the_time_of_last_use_is_that_of_the_file(self) -> None:
        file = volumes.notes(self.root / "_base") / "vg.base-key"
        os.utime(file, (1, 1))
        self.assertEqual(1, self.store.lookup("key").used)
        self.store.touch("key")
        self.assertLess(1, self.store.lookup("key").used)

    def test_a_lost_volume_is_forgotten(self) -> None:
        self.assertRaises(exception.BaseNotFound, self.store.require, "key")
        self.assertIsNone(self.store.lookup("key"))

    def test_a_lost_volume_gets_no_new_record(self) -> None:
        self.assertRaises(exception.BaseNotFound, self.store.record, "key",
                          RECORD)

    def test_a_damaged_record_is_ignored(self) -> None:
        (volumes.notes(self.root / "_base") / "vg.base-key").write_bytes(
            b"\xff{")
        self.assertIsNone(self.store.lookup("key"))

    def test_a_key_that_is_not_a_volume_name_is_refused(self) -> None:
        for key in ("a/b", "..", "a b", "x" * 90):
            self.assertRaises(exception.InvalidName, self.store.lookup, key)


class PoolTest(base.TestCase):
    """The limits of a thin pool of 1 GiB that reports how full it is."""

    def require(self, data: int, **facts: str) -> list[events.Event]:
        answer = {"lv_name": "pool", "lv_size": str(GiB),
                  "data_percent": "50.00", "lv_metadata_size": str(4 * MiB),
                  "metadata_percent": "10.00", "chunk_size": "65536",
                  "zero": "zero", "thin_count": "1"} | facts
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.tools.lvm.VolumeGroup._report",
            lambda *arguments: [answer]))
        heard: list[events.Event] = []
        pool = self.pool(heard.append)
        pool.require(data, "a test")
        return heard

    def pool(self, observe: events.Observer = events.silent
             ) -> volumes.ThinPool:
        return volumes.ThinPool(lvm.VolumeGroup("vg"), "pool", 80, 95,
                                observe, self.root / "used" / "stamp")

    def test_hosts_do_not_share_what_they_know_of_a_pool(self) -> None:
        policy = Policy(self.root, lvm=LvmPolicy("vg", "pool"))
        stamps = [volumes.pool_of(policy, events.silent).stamp]
        with fixtures.MonkeyPatch("os.uname", lambda: OTHER_HOST):
            stamps.append(volumes.pool_of(policy, events.silent).stamp)
        self.assertEqual(2, len(set(stamps)))

    def test_a_pool_with_much_room_is_not_queried_for_a_minute(self) -> None:
        self.assertFalse(self.pool().had_room())
        self.require(0)
        self.assertTrue(self.pool().had_room())
        for age in (61, -1):     # the clock may have been set
            then = time.time() - age
            os.utime(self.root / "used" / "stamp", (then, then))
            self.assertFalse(self.pool().had_room())

    def test_a_pool_close_to_its_limit_is_queried_each_time(self) -> None:
        self.require(0)
        self.require(0, data_percent="70.10")
        self.assertFalse(self.pool().had_room())

    def test_a_pool_with_room_sends_no_event(self) -> None:
        self.assertEqual([], self.require(256 * MiB))

    def test_a_pool_that_fills_is_reported(self) -> None:
        [event] = self.require(0, data_percent="80.10")
        self.assertEqual(("pool_nearly_full", "vg/pool"),
                         (event.name, event.subject))
        self.assertEqual({"data": 80, "metadata": 12}, event.facts)
        [event] = self.require(0, metadata_percent="85.00")
        self.assertEqual(87, event.facts["metadata"])

    def test_the_bytes_to_write_count_against_the_limit(self) -> None:
        [event] = self.require(400 * MiB)
        self.assertEqual(89, event.facts["data"])

    def test_a_disk_beyond_the_limit_of_the_pool_is_refused(self) -> None:
        for facts, kind in (({"data_percent": "95.10"}, "data"),
                            ({"metadata_percent": "94.90"}, "metadata")):
            with self.assertRaisesRegex(
                    exception.NoSpace, f"the {kind} of thin pool vg/pool"):
                self.require(0, **facts)

    def test_a_pool_that_does_not_zero_is_refused(self) -> None:
        self.assertRaises(exception.InvalidConfiguration, self.require, 0,
                          zero="")
