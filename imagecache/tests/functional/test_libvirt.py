# SPDX-License-Identifier: Apache-2.0
"""libvirt accepts and keeps every element that describes a disk."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

from lxml import etree

from imagecache import guest
from imagecache.model import Format, MiB
from imagecache.tests import base, domains
from imagecache.tests.functional import boot, libvirt_host

SIZE = 128 * MiB    # of a disk; the image has 64 MiB
FLAVOR = {"quota:disk_read_bytes_sec": "104857600",
          "quota:disk_write_iops_sec": 5000}


def possible(source_type, bus, device):
    """Return whether libvirt allows such a combination for a disk."""
    if device == "cdrom":
        return bus != "virtio"
    if device == "lun":
        # QEMU 8.2 supports a LUN on virtio too, QEMU 10.0 does not.
        return source_type == "block" and bus == "scsi"
    return True


def lost(told, heard):
    """Yield the attributes, texts and children that libvirt dropped.

    :param told: the element as it was sent to libvirt
    :param heard: the element as libvirt returns it
    """
    for name, value in told.attrib.items():
        if heard.get(name) != value:
            yield f"{told.tag} {name}={value}"
    if (told.text or "").strip() != (heard.text or "").strip():
        yield f"{told.tag} {told.text}"
    for child in told:
        yield from min((list(lost(child, other))
                        for other in heard.findall(child.tag)),
                       key=len, default=[child.tag])


class UnderstandingTest(base.TestCase):

    def assert_understood(self, *disks):
        told = [domains.domain(disk) for disk in disks]
        for number, domain in enumerate(told):
            domain.find("name").text = f"vm{number}"
        for disk, heard in zip(disks, libvirt_host.define(*told)):
            self.assertEqual([], list(lost(disk.format_dom(),
                                           heard.find("devices/disk"))),
                             disk.to_xml())

    def test_libvirt_keeps_every_source_on_every_bus(self):
        self.assert_understood(*(
            domains.disk(source_type, bus, device, extra_specs=FLAVOR,
                         boot_order="1", disk_unit=0, discard="unmap")
            for source_type, bus, device in itertools.product(
                domains.SOURCES, domains.PLACES,
                ("disk", "cdrom", "lun"))
            if possible(source_type, bus, device)))

    def test_libvirt_keeps_the_attributes_that_drivers_add(self):
        secret = guest.LibvirtConfigGuestDiskEncryptionSecret(
            type="passphrase", uuid=domains.SECRET)
        luks = guest.LibvirtConfigGuestDiskEncryption(
            format="luks", secret=secret)
        volume = domains.disk("block", "scsi", driver_io="native",
                                 disk_unit=255)
        volume.alias = "ua-1"
        volume.serial = "volume-1"
        volume.snapshot = "external"
        volume.logical_block_size = 512
        volume.physical_block_size = 4096
        volume.readonly = volume.shareable = True
        volume.disk_total_bytes_sec = 1000
        volume.disk_total_bytes_sec_max = 2000
        volume.disk_total_iops_sec = 10
        volume.disk_total_iops_sec_max = 20
        volume.disk_size_iops_sec = 4096
        volume.volume_encryption = luks
        ephemeral = domains.disk()
        ephemeral.ephemeral_encryption = luks
        self.assert_understood(volume, ephemeral)

    def test_the_comparison_reports_a_dropped_attribute(self):
        told = domains.disk().format_dom()
        heard = domains.disk(cache_mode=None).format_dom()
        self.assertEqual(["driver cache=none"], list(lost(told, heard)))


class BootTest(base.TestCase):

    def setUp(self):
        super().setUp()
        # The user libvirt-qemu, as which the guest runs, needs access.
        self.root.chmod(0o711)
        image = self.useFixture(boot.BootImage()).path
        for path in (image, image.with_name("vmlinuz"),
                     image.with_name("initrd")):
            shutil.copy(path, self.root)
        self.base = self.root / image.name
        self.base.chmod(0o444)
        self.disk = self.root / "disk"

    def domain(self, disk):
        serial = self.root / "serial"
        serial.touch()
        return etree.fromstring(f"""
            <domain type="qemu">
              <name>vm</name>
              <memory unit="MiB">256</memory>
              <os>
                <type arch="x86_64" machine="q35">hvm</type>
                <kernel>{self.root}/vmlinuz</kernel>
                <initrd>{self.root}/initrd</initrd>
                <cmdline>console=ttyS0 quiet panic=-1</cmdline>
              </os>
              <devices>
                {disk.to_xml()}
                <serial type="file"><source path="{serial}"/></serial>
                <memballoon model="none"/>
              </devices>
            </domain>""")

    def assert_boots(self, disk):
        heard = libvirt_host.boot(self.domain(disk))
        self.assertEqual([], list(lost(disk.format_dom(),
                                       heard.find("devices/disk"))))
        self.assertIn(f"BOOT-OK dev=vda disk_bytes={SIZE} ",
                      (self.root / "serial").read_text())

    def test_a_guest_boots_from_an_overlay(self):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2",
                        "-b", self.base, "-F", "qcow2",
                        self.disk, str(SIZE)], check=True)
        self.assert_boots(domains.disk(
            path=self.disk, driver_format=Format.QCOW2, extra_specs=FLAVOR))
        self.assertEqual(0o100444, self.base.stat().st_mode)

    def test_a_guest_boots_from_a_raw_file(self):
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw",
                        self.base, self.disk], check=True)
        os.truncate(self.disk, SIZE)
        self.assert_boots(domains.disk(
            path=self.disk, driver_format=Format.RAW, discard="unmap",
            driver_io="native", boot_order="1", extra_specs=FLAVOR))
