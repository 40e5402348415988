# SPDX-License-Identifier: Apache-2.0
"""``imagecache disk``: the disks of instances."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from typing import Any

from cliff import lister, show

from imagecache import exception
from imagecache.backends import Disk, backend_for
from imagecache.backends.base import Extractor
from imagecache.cmd.columns import Maybe, Size
from imagecache.cmd.command import Command, add_claims, size
from imagecache.cmd.errors import UsageError

_COLUMNS = ("instance", "name", "format", "size", "allocated", "base", "path")
_NAMES = {"image": "disk", "blank": "disk", "swap": "disk.swap",
          "ephemeral": "disk.eph0"}
_EXTRACTED = ("qcow2", "raw", "vdi", "vhd", "vhdx", "vmdk")


class Create(Command, show.ShowOne):
    """Make a disk of an instance.

    The content is that of an image, which is fetched once for all disks of
    this host, or is made by this host.  A disk that exists keeps its content,
    and grows if it is smaller.
    """

    columns = _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_content(parser)
        _add_instance(parser)
        parser.add_argument(
            "--name", help="The name of the disk within its instance."
            " Default: disk, disk.swap or disk.eph0.")
        parser.add_argument(
            "--size", type=size,
            help="The size that the guest sees, such as 20GiB. Default: the"
            " size of the image.")
        _add_type(parser)
        add_claims(parser)
        parser.add_argument(
            "--fs-type", metavar="TYPE",
            help="File system of an ephemeral disk: ext4, xfs, vfat, ...")
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        self._require_sense(parsed_args)
        name = parsed_args.name or _NAMES[_content(parsed_args)]
        there = self.cache.disk(parsed_args.instance, name,
                                parsed_args.type).exists()
        disk = self._made(parsed_args, name)
        if there:
            self.app.LOG.warning("%s was there already, and keeps what it"
                                 " holds", disk.path)
        return _COLUMNS, _row(disk)

    def _require_sense(self, args: argparse.Namespace) -> None:
        """Refuse options that do not apply to the chosen content."""
        content = _content(args)
        if content != "image" and args.size is None:
            raise UsageError(f"--{content} needs --size")
        if content != "image" and (args.image_format or args.digest
                                   or args.trusted_certs):
            raise UsageError("--image-format, --digest and"
                             " --trusted-certificate are of an --image")
        if content != "ephemeral" and args.fs_type:
            raise UsageError("--fs-type is of an --ephemeral disk")
        if args.type:
            try:
                backend_for(self.cache.host.policy, args.type)
            except exception.InvalidConfiguration as e:
                raise UsageError(f"--type: {e}") from e

    def _made(self, args: argparse.Namespace, name: str) -> Disk:
        match _content(args):
            case "blank":
                return self.cache.create_blank(
                    args.instance, name, args.size, args.type)
            case "swap":
                return self.cache.create_swap(
                    args.instance, args.size, name, args.type)
            case "ephemeral":
                return self.cache.create_ephemeral(
                    args.instance, args.size, name, args.fs_type,
                    image_type=args.type)
        return self.cache.create_disk(
            args.instance, args.image, name, args.size, args.type,
            disk_format=args.image_format, digest=args.digest,
            trusted_certs=args.trusted_certs)


class Show(Command, show.ShowOne):
    """Describe a disk."""

    columns = _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _add_disk(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        return _COLUMNS, _row(_disk(self, parsed_args))


class List(Command, lister.Lister):
    """List the disks of this host, or of one instance."""

    columns = _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--instance", metavar="UUID",
                            help="Only the disks of this instance.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        def row(disk: Disk) -> tuple[Any, ...] | None:
            # Another host may have removed a disk from a shared pool.
            with contextlib.suppress(exception.DiskNotFound):
                return _row(disk)
            return None

        disks = self.cache.disks(parsed_args.instance,
                                 report=self.app.report)
        return _COLUMNS, [each for each in self.each(row, disks) if each]


class Grow(Command, show.ShowOne):
    """Make a disk larger.

    No guest may be running on it.  A disk never becomes smaller.
    """

    columns = _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _add_disk(super().get_parser(prog_name))
        parser.add_argument("--size", type=size, required=True,
                            help="The new size for the guest, such as 40GiB.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        disk = _disk(self, parsed_args)
        if parsed_args.size < disk.size():
            raise exception.CallerError(
                f"{disk.path} has {disk.size()} bytes already, and a disk"
                " never becomes smaller")
        disk.grow(parsed_args.size)
        return _COLUMNS, _row(disk)


class Extract(Command):
    """Copy the content of a disk into a new file.

    The file needs no base: it can be uploaded as an image.  No guest may be
    running on the disk.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _add_disk(super().get_parser(prog_name))
        parser.add_argument("--to", required=True, metavar="FILE",
                            type=pathlib.Path, help="The file to make.")
        parser.add_argument(
            "--format", default="qcow2", choices=_EXTRACTED,
            help="The format of the file. Default: qcow2.")
        parser.add_argument("--overwrite", action="store_true",
                            help="Replace the file if it exists.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        disk = _disk(self, parsed_args)
        output: pathlib.Path = parsed_args.to
        if not isinstance(disk, Extractor):
            raise exception.CallerError(
                f"{disk.path}: disks of this type cannot be extracted")
        if output.exists() and not parsed_args.overwrite:
            raise exception.CallerError(
                f"{output} exists; --overwrite replaces it")
        if not output.parent.is_dir():
            raise exception.CallerError(
                f"the directory {output.parent} does not exist; make it first")
        disk.extract(output, parsed_args.format)


class Remove(Command):
    """Delete disks of an instance."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_instance(parser)
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--name", action="append", metavar="NAME",
            help="The name of the disk within its instance. Default: disk."
            " Can be repeated.")
        which.add_argument("--all", action="store_true",
                           help="Delete every disk of the instance.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        instance = parsed_args.instance
        names = [disk.name for disk in self.cache.disks(instance)] \
            if parsed_args.all else parsed_args.name or ["disk"]

        def remove(name: str) -> None:
            disk = self.cache.disk(instance, name)
            # All disks, including the rest of an unfinished one.
            (disk if parsed_args.all else _existing(disk)).remove()

        for _ in self.each(remove, names):
            pass


def _add_content(parser: argparse.ArgumentParser) -> None:
    content = parser.add_mutually_exclusive_group(required=True)
    content.add_argument(
        "--image", metavar="REF",
        help="Copy this image: an id in Glance, a path, or a file,"
        " http or https URL.")
    content.add_argument("--blank", action="store_true",
                         help="Fill the disk with zeros.")
    content.add_argument("--swap", action="store_true",
                         help="Make swap space.")
    content.add_argument("--ephemeral", action="store_true",
                         help="Make an empty file system.")


def _add_instance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--instance", required=True, metavar="UUID",
                        help="The instance of the disk.")


def _add_type(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type", help="The kind of disk: qcow2 or raw, or that of another"
        " backend; what is configured if not given.")


def _add_disk(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options that name an existing disk."""
    _add_instance(parser)
    parser.add_argument(
        "--name", default="disk",
        help="The name of the disk within its instance. Default: disk.")
    return parser


def _content(args: argparse.Namespace) -> str:
    return next(content for content in _NAMES if getattr(args, content))


def _disk(command: Command, args: argparse.Namespace) -> Disk:
    return _existing(command.cache.disk(args.instance, args.name))


def _existing(disk: Disk) -> Disk:
    if not disk.exists():
        raise exception.DiskNotFound(location=disk.path)
    return disk


def _row(disk: Disk) -> tuple[Any, ...]:
    return (disk.instance, disk.name, disk.format.value, Size(disk.size()),
            Size(disk.allocated()), Maybe(disk.base_key()), str(disk.path))
