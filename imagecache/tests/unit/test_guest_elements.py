# SPDX-License-Identifier: Apache-2.0
"""What becomes of an element that a driver changed before it used it."""

from __future__ import annotations

import dataclasses

from lxml import etree

from imagecache import guest
from imagecache.tests.domains import SECRET, SchemaTestCase, disk


class DiskTest(SchemaTestCase):

    def test_everything_a_disk_can_have_is_told(self):
        made = disk("network", bus="scsi", boot_order="1")
        made.snapshot = "external"
        made.alias = "ua-1"
        made.serial = "volume-1"
        made.logical_block_size = "512"
        made.physical_block_size = 4096
        made.readonly = True
        made.shareable = True
        made.disk_read_bytes_sec_max = 1
        made.disk_write_bytes_sec_max = 2
        made.disk_total_iops_sec_max = 3
        made.disk_size_iops_sec = 4096
        made.auth_secret_type = None
        made.source_hosts, made.source_ports = [], []
        made.device_addr = guest.LibvirtConfigGuestDeviceAddressDrive(
            controller=0, bus=0, target=0, unit=7)
        made.volume_encryption = guest.LibvirtConfigGuestDiskEncryption(
            format="luks")
        made.volume_encryption.secret = \
            guest.LibvirtConfigGuestDiskEncryptionSecret(
                type="passphrase", uuid=SECRET)
        self.assert_xml(f"""
            <disk type="network" device="disk" snapshot="external">
              <driver name="qemu" type="raw" cache="none"/>
              <alias name="ua-1"/>
              <source protocol="rbd" name="vms/1_disk"/>
              <target dev="sda" bus="scsi"/>
              <serial>volume-1</serial>
              <blockio logical_block_size="512" physical_block_size="4096"/>
              <iotune>
                <read_bytes_sec_max>1</read_bytes_sec_max>
                <write_bytes_sec_max>2</write_bytes_sec_max>
                <total_iops_sec_max>3</total_iops_sec_max>
                <size_iops_sec>4096</size_iops_sec>
              </iotune>
              <readonly/>
              <shareable/>
              <boot order="1"/>
              <address type="drive" controller="0" bus="0" target="0"\
 unit="7"/>
              <encryption format="luks">
                <secret type="passphrase" uuid="{SECRET}"/>
              </encryption>
            </disk>
            """, made)

    def test_every_limit_is_told(self):
        every = {field.name for field in
                 dataclasses.fields(guest.LibvirtConfigGuestDisk)
                 if field.name.startswith("disk_")}
        totals = {name for name in every if "total" in name}
        # libvirt has no total beside the parts.
        for names in (totals, every - totals):
            made = disk()
            for name in names:
                setattr(made, name, 1)
            self.assert_valid(made)
            self.assertEqual(
                names, {f"disk_{limit.tag}"
                        for limit in made.format_dom().find("iotune")})

    def test_a_lun_keeps_its_own_serial_number_and_block_sizes(self):
        made = disk("block", bus="scsi", device="lun")
        plain = made.to_xml()
        made.serial = "volume-1"
        made.logical_block_size = made.physical_block_size = 512
        self.assertEqual(plain, made.to_xml())

    def test_a_drive_can_be_empty(self):
        self.assert_xml("""
            <disk type="file" device="cdrom">
              <source/>
              <target dev="sda" bus="sata"/>
            </disk>
            """, guest.LibvirtConfigGuestDisk(
                source_device="cdrom", target_dev="sda", target_bus="sata"))

    def test_an_attribute_libvirt_would_not_hear_of_cannot_be_set(self):
        with self.assertRaises(AttributeError):
            disk().driver_chache = "none"

    def test_two_disks_share_no_hosts(self):
        guest.LibvirtConfigGuestDisk().source_hosts.append("10.0.0.1")
        self.assertEqual([], guest.LibvirtConfigGuestDisk().source_hosts)

    def test_xml_comes_on_one_line_if_asked(self):
        self.assertEqual(
            '<address type="drive" controller="0" unit="1"/>',
            guest.LibvirtConfigGuestDeviceAddressDrive(
                controller=0, unit=1).to_xml(pretty_print=False))

    def test_text_is_escaped(self):
        made = disk(path="/a&<b>\"'")
        again = etree.fromstring(made.to_xml())
        self.assertEqual("/a&<b>\"'", again.find("source").get("file"))


class FilesystemTest(SchemaTestCase):

    def test_a_directory_is_mounted(self):
        self.assert_xml("""
            <filesystem type="mount">
              <source dir="/instances/1/rootfs"/>
              <target dir="/"/>
            </filesystem>
            """, guest.LibvirtConfigGuestFilesys(
                source_dir="/instances/1/rootfs"))

    def test_a_directory_is_shared_by_virtiofs(self):
        self.assert_xml("""
            <filesystem type="mount" accessmode="passthrough">
              <driver type="virtiofs"/>
              <source dir="/share"/>
              <target dir="tag"/>
            </filesystem>
            """, guest.LibvirtConfigGuestFilesys(
                source_dir="/share", target_dir="tag",
                accessmode="passthrough", driver_type="virtiofs"))
