# SPDX-License-Identifier: Apache-2.0
"""Elements of libvirt's domain XML, as objects.

Names, attributes and defaults are those of nova.virt.libvirt.config, so that
a driver can change what it is given before it puts it into a domain.  An
attribute libvirt would never hear of cannot be set.  None means that libvirt
decides.  A number may also be text, as extra specs and connection data have
it.  Values are not validated: libvirt knows better, and says what it does not
like.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TypeAlias

from lxml import etree

Number: TypeAlias = int | str

_PATH_ATTRIBUTES = {"file": "file", "block": "dev", "dir": "dir"}
# In libvirt's own order: elements may come in any, says the schema, but
# libxml2, which reads it, gives up where bytes and operations alternate.
_LIMITS = (
    "total_bytes_sec", "read_bytes_sec", "write_bytes_sec",
    "total_iops_sec", "read_iops_sec", "write_iops_sec",
    "total_bytes_sec_max", "read_bytes_sec_max", "write_bytes_sec_max",
    "total_iops_sec_max", "read_iops_sec_max", "write_iops_sec_max",
    "size_iops_sec",
)


class LibvirtConfigObject:
    """A piece of a domain, which a driver puts together with others."""

    __slots__ = ()

    def format_dom(self) -> etree._Element:
        raise NotImplementedError

    def to_xml(self, pretty_print: bool = True) -> str:
        return etree.tostring(self.format_dom(), encoding="unicode",
                              pretty_print=pretty_print)


@dataclasses.dataclass(slots=True)
class LibvirtConfigGuestDeviceAddressDrive(LibvirtConfigObject):

    controller: Number | None = None
    bus: Number | None = None
    target: Number | None = None
    unit: Number | None = None

    def format_dom(self) -> etree._Element:
        return _element("address", type="drive", controller=self.controller,
                        bus=self.bus, target=self.target, unit=self.unit)


@dataclasses.dataclass(slots=True)
class LibvirtConfigGuestDiskEncryptionSecret(LibvirtConfigObject):

    type: str | None = None
    uuid: str | None = None

    def format_dom(self) -> etree._Element:
        return _element("secret", type=self.type, uuid=self.uuid)


@dataclasses.dataclass(slots=True)
class LibvirtConfigGuestDiskEncryption(LibvirtConfigObject):

    format: str | None = None
    secret: LibvirtConfigGuestDiskEncryptionSecret | None = None

    def format_dom(self) -> etree._Element:
        encryption = _element("encryption", format=self.format)
        _add_object(encryption, self.secret)
        return encryption


@dataclasses.dataclass(slots=True)
class LibvirtConfigGuestDisk(LibvirtConfigObject):

    source_type: str = "file"      # or block, dir, network
    source_device: str = "disk"    # or cdrom, floppy, lun
    driver_name: str | None = None
    driver_format: str | None = None
    driver_cache: str | None = None
    driver_discard: str | None = None
    driver_io: str | None = None
    source_path: str | None = None
    source_protocol: str | None = None
    source_name: str | None = None
    source_hosts: list[str] = dataclasses.field(default_factory=list)
    source_ports: list[Number | None] = dataclasses.field(
        default_factory=list)
    target_dev: str | None = None
    target_bus: str | None = None
    auth_username: str | None = None
    auth_secret_type: str | None = None
    auth_secret_uuid: str | None = None
    serial: str | None = None
    disk_read_bytes_sec: Number | None = None
    disk_read_iops_sec: Number | None = None
    disk_write_bytes_sec: Number | None = None
    disk_write_iops_sec: Number | None = None
    disk_total_bytes_sec: Number | None = None
    disk_total_iops_sec: Number | None = None
    disk_read_bytes_sec_max: Number | None = None
    disk_read_iops_sec_max: Number | None = None
    disk_write_bytes_sec_max: Number | None = None
    disk_write_iops_sec_max: Number | None = None
    disk_total_bytes_sec_max: Number | None = None
    disk_total_iops_sec_max: Number | None = None
    disk_size_iops_sec: Number | None = None
    logical_block_size: Number | None = None
    physical_block_size: Number | None = None
    readonly: bool = False
    shareable: bool = False
    snapshot: str | None = None
    device_addr: LibvirtConfigObject | None = None
    boot_order: Number | None = None
    volume_encryption: LibvirtConfigGuestDiskEncryption | None = None
    ephemeral_encryption: LibvirtConfigGuestDiskEncryption | None = None
    alias: str | None = None

    def format_dom(self) -> etree._Element:
        disk = _element("disk", type=self.source_type,
                        device=self.source_device, snapshot=self.snapshot)
        _add(disk, "driver", name=self.driver_name, type=self.driver_format,
             cache=self.driver_cache, discard=self.driver_discard,
             io=self.driver_io)
        _add(disk, "alias", name=self.alias)
        disk.append(self._source())
        if self.auth_secret_type is not None:
            disk.append(self._auth())
        _add(disk, "target", dev=self.target_dev, bus=self.target_bus)
        # qemu hands a LUN through as it is: it has a serial number and block
        # sizes already.
        if self.source_device != "lun":
            _add_text(disk, "serial", self.serial)
            _add(disk, "blockio", logical_block_size=self.logical_block_size,
                 physical_block_size=self.physical_block_size)
        self._add_limits(disk)
        _add_flag(disk, "readonly", self.readonly)
        _add_flag(disk, "shareable", self.shareable)
        _add(disk, "boot", order=self.boot_order)
        _add_object(disk, self.device_addr)
        _add_object(disk, self.volume_encryption)
        return disk

    def _source(self) -> etree._Element:
        if self.source_type == "network":
            source = _element("source", protocol=self.source_protocol,
                              name=self.source_name)
            for host, port in itertools.zip_longest(
                    self.source_hosts, self.source_ports):
                _add(source, "host", name=host, port=port)
        else:
            source = _element("source", **{
                _PATH_ATTRIBUTES[self.source_type]: self.source_path})
        _add_object(source, self.ephemeral_encryption)
        return source

    def _auth(self) -> etree._Element:
        auth = _element("auth", username=self.auth_username)
        _add(auth, "secret", type=self.auth_secret_type,
             uuid=self.auth_secret_uuid)
        return auth

    def _add_limits(self, disk: etree._Element) -> None:
        iotune = etree.Element("iotune")
        for name in _LIMITS:
            _add_text(iotune, name, getattr(self, f"disk_{name}"))
        if len(iotune):
            disk.append(iotune)


@dataclasses.dataclass(slots=True)
class LibvirtConfigGuestFilesys(LibvirtConfigObject):

    source_type: str = "mount"     # or block, file
    accessmode: str | None = None
    source_dir: str | None = None
    source_file: str | None = None
    source_dev: str | None = None
    target_dir: str = "/"
    driver_type: str = "loop"
    driver_format: str = "raw"

    def format_dom(self) -> etree._Element:
        filesystem = _element("filesystem", type=self.source_type,
                              accessmode=self.accessmode)
        if self.source_type == "file":
            _add(filesystem, "driver", type=self.driver_type,
                 format=self.driver_format)
            _add(filesystem, "source", file=self.source_file)
        elif self.source_type == "block":
            _add(filesystem, "source", dev=self.source_dev)
        else:
            if self.driver_type == "virtiofs":
                _add(filesystem, "driver", type="virtiofs")
            _add(filesystem, "source", dir=self.source_dir)
        _add(filesystem, "target", dir=self.target_dir)
        return filesystem


def _element(tag: str, **attributes: Number | None) -> etree._Element:
    return etree.Element(tag, {name: str(value) for name, value
                               in attributes.items() if value is not None})


def _add(parent: etree._Element, tag: str,
         **attributes: Number | None) -> None:
    """Append an element, unless there is nothing to say in it."""
    child = _element(tag, **attributes)
    if child.attrib:
        parent.append(child)


def _add_text(parent: etree._Element, tag: str, text: Number | None) -> None:
    if text is not None:
        etree.SubElement(parent, tag).text = str(text)


def _add_flag(parent: etree._Element, tag: str, raised: bool) -> None:
    if raised:
        etree.SubElement(parent, tag)


def _add_object(parent: etree._Element,
                child: LibvirtConfigObject | None) -> None:
    if child is not None:
        parent.append(child.format_dom())
