# SPDX-License-Identifier: Apache-2.0
"""``imagecache base``: the bases that disks are made from."""

from __future__ import annotations

import argparse
from typing import Any

from cliff import lister, show

from imagecache.cmd.columns import Lines, Maybe, Size, Time
from imagecache.cmd.command import Command, add_claims
from imagecache.cmd.errors import UsageError
from imagecache.model import Entry

_COLUMNS = ("key", "source", "format", "virtual_size", "allocated",
            "last_used", "users")
_DETAILS = ("key", "source", "digest", "signature", "format", "virtual_size",
            "size", "allocated", "committed", "last_used", "store", "path",
            "users")
_NAMED = "The key or path of a base, or the image that it was made from."


class List(Command, lister.Lister):
    """List the bases of this host, with the number of disks made of each."""

    columns = _COLUMNS

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        return _COLUMNS, [_row(entry, len(self.cache.users(entry)))
                          for entry in self.cache.bases()]


class Show(Command, show.ShowOne):
    """Describe a base, and name the disks made of it."""

    columns = _DETAILS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("base", metavar="BASE", help=_NAMED)
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        entry = self.cache.base(parsed_args.base)
        return _DETAILS, _details(entry, self.cache.users(entry))


class Fetch(Command, lister.Lister):
    """Bring images into the cache before a disk needs them."""

    columns = _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "images", metavar="REF", nargs="+",
            help="The id of an image in Glance, a path, or a file, http or"
            " https URL.")
        add_claims(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        if parsed_args.digest and len(parsed_args.images) > 1:
            raise UsageError("--digest can be of one image only")

        def fetch(ref: str) -> tuple[Any, ...]:
            base = self.cache.fetch(
                ref, disk_format=parsed_args.image_format,
                digest=parsed_args.digest,
                trusted_certs=parsed_args.trusted_certs)
            # Another store may have a base of the same key.
            entry = self.cache.base(str(base.path))
            return _row(entry, len(self.cache.users(entry)))

        return _COLUMNS, list(self.each(fetch, parsed_args.images))


class Remove(Command):
    """Delete bases that no disk uses."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("bases", metavar="BASE", nargs="+", help=_NAMED)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        for _ in self.each(self.cache.remove_base, parsed_args.bases):
            pass


def _row(entry: Entry, users: int) -> tuple[Any, ...]:
    return (entry.key, Maybe(_known(entry, "source")),
            Maybe(_known(entry, "format")),
            Size(_known(entry, "virtual_size")), Size(entry.allocated),
            Time.at(entry.used), users)


def _details(entry: Entry, users: list[str]) -> tuple[Any, ...]:
    key, source, format, virtual_size, allocated, used, _ = _row(entry, 0)
    return (key, source, Maybe(_known(entry, "digest")),
            Maybe(_known(entry, "signature")), format, virtual_size,
            Size(entry.size), allocated,
            Time(_known(entry, "committed")), used, entry.store,
            str(entry.path), Lines(users))


def _known(entry: Entry, fact: str) -> Any:
    """Return a field of a base's record; None if it has no record."""
    return getattr(entry.record, fact, None)
