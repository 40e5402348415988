# SPDX-License-Identifier: Apache-2.0
"""Domains with disks, and the schema of libvirt that validates them."""

from __future__ import annotations

import pathlib
import textwrap

from lxml import etree

from imagecache import guest
from imagecache.tests import base

SCHEMA = pathlib.Path("/usr/share/libvirt/schemas/domain.rng")
SECRET = "9d8b0a6e-0b5c-4d8e-9a55-6d8bb3b0e5a1"
SOURCES = {
    "file": {"path": "/var/lib/instances/1/disk", "driver_format": "qcow2"},
    "block": {"path": "/dev/vg/1_disk", "driver_format": "raw"},
    "network": {"path": None, "driver_format": "raw"},
}
PLACES = {"virtio": "vda", "scsi": "sda", "ide": "hda", "usb": "sda",
          "sata": "sda"}


def domain(*devices):
    root = etree.fromstring(
        "<domain type='qemu'><name>vm</name><memory>65536</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
        "<devices/></domain>")
    root.find("devices").extend(device.format_dom() for device in devices)
    return root


def disk(source_type="file", bus="virtio", device="disk", **more):
    mapping = {"bus": bus, "dev": PLACES[bus], "type": device}
    mapping |= more.pop("mapping", {})
    facts = {"source_type": source_type, **SOURCES[source_type],
             "mapping": mapping, "cache_mode": "none", "extra_specs": {}}
    made = guest.disk_config(**(facts | more))
    if source_type == "network":
        made.source_protocol = "rbd"
        made.source_name = "vms/1_disk"
        made.source_hosts = ["10.0.0.1", "2001:db8::2"]
        made.source_ports = ["6789", 3300]
        made.auth_secret_type = "ceph"
        made.auth_secret_uuid = SECRET
        made.auth_username = "nova"
    return made


class SchemaTestCase(base.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not SCHEMA.exists():
            raise AssertionError(
                f"{SCHEMA} is missing: install Debian's package libvirt0")
        cls.schema = etree.RelaxNG(etree.parse(SCHEMA))

    def assert_valid(self, *devices):
        try:
            self.schema.assertValid(domain(*devices))
        except etree.DocumentInvalid as refused:
            self.fail("\n".join([str(refused),
                                 *(device.to_xml() for device in devices)]))

    def assert_xml(self, expected, device):
        self.assert_valid(device)
        self.assertEqual(textwrap.dedent(expected).lstrip(),
                         device.to_xml(pretty_print=True))
