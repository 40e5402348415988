# SPDX-License-Identifier: Apache-2.0
"""The base class of the commands, and the types of their arguments."""

from __future__ import annotations

import argparse
import decimal
import re
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, TypeVar

from cliff import command

from imagecache import exception
from imagecache.cmd.app import App
from imagecache.cmd.errors import UsageError
from imagecache.image_cache import ImageCache
from imagecache.model import Digest

_T = TypeVar("_T")
_R = TypeVar("_R")

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([KMGTP])(?:iB)?|B)?", re.I)


class Command(command.Command):
    app: App
    columns: ClassVar[tuple[str, ...]] = ()   # of its output

    @property
    def cache(self) -> ImageCache:
        return self.app.cache

    def get_epilog(self) -> str:
        # cliff's own method searches all packages, for 50 ms and more.
        return self._epilog or ""

    def run(self, parsed_args: argparse.Namespace) -> int:
        # cliff checks -c only after the work, when a disk is already made.
        for name in getattr(parsed_args, "columns", ()):
            if name.lower().replace(" ", "_") not in self.columns:
                raise UsageError(f"there is no column {name}: there are "
                                 + ", ".join(self.columns))
        return super().run(parsed_args)

    def each(self, act: Callable[[_T], _R],
             things: Iterable[_T]) -> Iterator[_R]:
        """Yield the result for each thing; report the errors, and go on."""
        for thing in things:
            try:
                done = act(thing)
            except (exception.ImageCacheError, OSError) as e:
                self.app.report(e)
            else:
                yield done


def add_claims(parser: argparse.ArgumentParser) -> None:
    """Add the options for the format, digest and signer of an image."""
    parser.add_argument(
        "--image-format", metavar="FORMAT",
        help="The format that the image must have (qcow2, raw, vmdk, ...)."
        " Default: the format that its store names.")
    parser.add_argument(
        "--digest", type=digest, metavar="ALGORITHM:HEX",
        help="The digest that the image must have, such as sha256:6c1a..."
        " Default: the digest that its store names.")
    parser.add_argument(
        "--trusted-certificate", metavar="ID", action="append",
        dest="trusted_certs",
        help="Id in the key manager of a trusted certificate, to which that"
        " of the image's signer must lead; can be repeated. Default: the"
        " certificates in the configuration.")


def size(text: str) -> int:
    """Parse a size such as 20GiB, 1.5G or 1024.

    oslo.utils' string_to_bytes does not fit: it reads 20Gb as gigabits, and
    refuses 20G and 1024.

    :return: bytes, from 1 to the kernel's maximum of 8 EiB
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: give bytes, or KiB, MiB, GiB or TiB, as"
            " in 20GiB")
    power = " KMGTP".index((found[2] or " ").upper())
    amount = decimal.Decimal(found[1]) * 1024 ** power
    if not 1 <= amount < 2**63 or amount != int(amount):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of bytes from 1 to 8 EiB")
    return int(amount)


def digest(text: str) -> Digest:
    algorithm, _, value = text.partition(":")
    try:
        return Digest(algorithm.lower(), value.lower())
    except exception.InvalidName as e:
        raise argparse.ArgumentTypeError(f"{e}; give it as sha256:..."
                                         ) from e
