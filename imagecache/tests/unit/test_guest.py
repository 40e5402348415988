# SPDX-License-Identifier: Apache-2.0
"""What libvirt is told of a disk, judged by libvirt's own schema."""

from __future__ import annotations

import itertools
import pathlib

from imagecache import guest
from imagecache.tests.domains import (
    PLACES,
    SECRET,
    SOURCES,
    SchemaTestCase,
    disk,
    domain,
)


def filesystem(**facts):
    return guest.filesystem_config(**({
        "source_type": "file", "path": "/disks/1", "driver_format": "raw",
        "target": "/"} | facts))


class DiskTest(SchemaTestCase):

    def test_a_file_is_told_with_its_driver_and_its_place(self):
        self.assert_xml("""
            <disk type="file" device="disk">
              <driver name="qemu" type="qcow2" cache="none"/>
              <source file="/var/lib/instances/1/disk"/>
              <target dev="vda" bus="virtio"/>
            </disk>
            """, disk())

    def test_a_block_device_is_told_by_its_device(self):
        self.assert_xml("""
            <disk type="block" device="disk">
              <driver name="qemu" type="raw" cache="none" io="native"/>
              <source dev="/dev/vg/1_disk"/>
              <target dev="vda" bus="virtio"/>
            </disk>
            """, disk("block", driver_io="native"))

    def test_a_network_disk_is_told_with_hosts_and_secret(self):
        self.assert_xml(f"""
            <disk type="network" device="disk">
              <driver name="qemu" type="raw" cache="none"/>
              <source protocol="rbd" name="vms/1_disk">
                <host name="10.0.0.1" port="6789"/>
                <host name="2001:db8::2" port="3300"/>
              </source>
              <auth username="nova">
                <secret type="ceph" uuid="{SECRET}"/>
              </auth>
              <target dev="vda" bus="virtio"/>
            </disk>
            """, disk("network"))

    def test_a_host_without_a_port_is_still_told(self):
        ported = disk("network")
        ported.source_ports = [None]
        self.assert_valid(ported)
        self.assertEqual(
            [{"name": "10.0.0.1"}, {"name": "2001:db8::2"}],
            [dict(host.attrib) for host in ported.format_dom().iter("host")])

    def test_the_whole_driver_is_told(self):
        self.assert_xml("""
            <disk type="file" device="disk">
              <driver name="qemu" type="raw" cache="directsync"\
 discard="unmap" io="native"/>
              <source file="/disk"/>
              <target dev="vda" bus="virtio"/>
              <boot order="1"/>
            </disk>
            """, disk(path=pathlib.Path("/disk"), driver_format="raw",
                      cache_mode="directsync", discard="unmap",
                      driver_io="native", boot_order=1))

    def test_only_qemu_has_a_driver_name(self):
        for virt_type, name in (("kvm", "qemu"), ("qemu", "qemu"),
                                ("lxc", None), ("parallels", None)):
            with self.subTest(virt_type):
                made = disk(virt_type=virt_type)
                self.assertEqual(name, made.driver_name)
                self.assert_valid(made)

    def test_a_scsi_disk_gets_its_unit_on_the_first_controller(self):
        self.assert_xml("""
            <disk type="file" device="disk">
              <driver name="qemu" type="qcow2" cache="none"/>
              <source file="/var/lib/instances/1/disk"/>
              <target dev="sda" bus="scsi"/>
              <address type="drive" controller="0" unit="0"/>
            </disk>
            """, disk(bus="scsi", disk_unit=0))

    def test_libvirt_chooses_where_no_unit_is_given(self):
        self.assertIsNone(disk(bus="scsi").device_addr)

    def test_a_unit_means_nothing_on_another_bus(self):
        self.assertIsNone(disk(disk_unit=3).device_addr)

    def test_an_encrypted_disk_names_its_secret(self):
        self.assert_xml(f"""
            <disk type="file" device="disk">
              <driver name="qemu" type="qcow2" cache="none"/>
              <source file="/var/lib/instances/1/disk">
                <encryption format="luks">
                  <secret type="passphrase" uuid="{SECRET}"/>
                </encryption>
              </source>
              <target dev="vda" bus="virtio"/>
            </disk>
            """, disk(mapping={"encrypted": True, "encryption_format": "luks",
                               "encryption_secret_uuid": SECRET}))

    def test_only_an_encrypted_luks_disk_is_told_to_be_one(self):
        for mapping in ({"encrypted": True},
                        {"encrypted": True, "encryption_format": "plain"},
                        {"encrypted": False, "encryption_format": "luks"}):
            with self.subTest(mapping):
                self.assertIsNone(disk(mapping=mapping).ephemeral_encryption)

    def test_every_source_on_every_bus_is_valid(self):
        limits = {f"quota:{name}": "1000" for name in guest.QUOTAS
                  if "total" not in name}
        for source_type, bus, device, specs, encrypted in itertools.product(
                SOURCES, PLACES, ("disk", "cdrom", "lun"), ({}, limits),
                (False, True)):
            if (source_type, device) == ("file", "lun"):
                continue    # libvirt has no such thing
            with self.subTest(source_type=source_type, bus=bus,
                              device=device, limited=bool(specs),
                              encrypted=encrypted):
                self.assert_valid(disk(
                    source_type, bus, device, extra_specs=specs,
                    discard="ignore", boot_order="2", disk_unit=255,
                    mapping={"encrypted": encrypted,
                             "encryption_format": "luks",
                             "encryption_secret_uuid": SECRET}))


class QuotaTest(SchemaTestCase):

    def test_the_quotas_of_a_flavor_limit_its_disks(self):
        self.assert_xml("""
            <disk type="file" device="disk">
              <driver name="qemu" type="qcow2" cache="none"/>
              <source file="/var/lib/instances/1/disk"/>
              <target dev="vda" bus="virtio"/>
              <iotune>
                <read_bytes_sec>1</read_bytes_sec>
                <write_bytes_sec>3</write_bytes_sec>
                <read_iops_sec>2</read_iops_sec>
                <write_iops_sec>0</write_iops_sec>
              </iotune>
            </disk>
            """, disk(extra_specs={
                "quota:disk_write_iops_sec": 0,
                "quota:disk_write_bytes_sec": "3",
                "quota:disk_read_iops_sec": "2",
                "quota:disk_read_bytes_sec": "1"}))

    def test_totals_are_limited_too(self):
        made = disk(extra_specs={"quota:disk_total_bytes_sec": "10",
                                 "quota:disk_total_iops_sec": "20"})
        self.assert_valid(made)
        self.assertEqual(
            ["total_bytes_sec=10", "total_iops_sec=20"],
            [f"{limit.tag}={limit.text}"
             for limit in made.format_dom().find("iotune")])

    def test_whatever_else_a_flavor_says_limits_no_disk(self):
        self.assertEqual(disk(), disk(extra_specs={
            "quota:cpu_shares": "1", "disk_read_iops_sec": "2",
            "hw:disk_read_iops_sec": "3", "quota:disk_read_iops": "4",
            "quota:serial": "5", "quota:disk_read_iops_sec_max": "6"}))


class FilesystemTest(SchemaTestCase):

    def test_a_raw_file_is_looped(self):
        self.assert_xml("""
            <filesystem type="file">
              <driver type="loop" format="raw"/>
              <source file="/disks/1"/>
              <target dir="/"/>
            </filesystem>
            """, filesystem(path=pathlib.Path("/disks/1")))

    def test_any_other_file_is_served_by_nbd(self):
        self.assert_xml("""
            <filesystem type="file">
              <driver type="nbd" format="qcow2"/>
              <source file="/disks/1"/>
              <target dir="/mnt"/>
            </filesystem>
            """, filesystem(driver_format="qcow2", target="/mnt"))

    def test_the_caller_may_choose_the_driver(self):
        for driver_type, driver_format in itertools.product(
                ("loop", "nbd", "ploop"), ("raw", "qcow2", "ploop")):
            with self.subTest(driver_type=driver_type,
                              driver_format=driver_format):
                made = filesystem(driver_type=driver_type,
                                  driver_format=driver_format)
                self.assert_valid(made)
                self.assertEqual(
                    {"type": driver_type, "format": driver_format},
                    dict(made.format_dom().find("driver").attrib))

    def test_a_block_device_needs_no_driver(self):
        self.assert_xml("""
            <filesystem type="block">
              <source dev="/dev/vg/1_disk"/>
              <target dir="/"/>
            </filesystem>
            """, filesystem(source_type="block", path="/dev/vg/1_disk",
                            driver_type="nbd"))


class SchemaIsListeningTest(SchemaTestCase):
    """The schema refuses a wrong element, so the tests above can fail."""

    def test_a_wrong_bus_is_refused(self):
        wrong = disk()
        wrong.target_bus = "carrier-pigeon"
        self.assertFalse(self.schema.validate(domain(wrong)))

    def test_a_lun_in_a_file_is_refused(self):
        self.assertFalse(self.schema.validate(domain(disk(device="lun"))))
