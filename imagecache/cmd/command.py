# SPDX-License-Identifier: Apache-2.0
"""What the commands have in common."""

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
    columns: ClassVar[tuple[str, ...]] = ()   # of what it prints, if it does

    @property
    def cache(self) -> ImageCache:
        return self.app.cache

    def get_epilog(self) -> str:
        # cliff's own looks into every package there is, for 50 ms and more.
        return self._epilog or ""

    def run(self, parsed_args: argparse.Namespace) -> int:
        # cliff looks at -c when the work is done; too late for a disk.
        for name in getattr(parsed_args, "columns", ()):
            if name.lower().replace(" ", "_") not in self.columns:
                raise UsageError(f"there is no column {name}: there are "
                                 + ", ".join(self.columns))
        return super().run(parsed_args)

    def each(self, act: Callable[[_T], _R],
             things: Iterable[_T]) -> Iterator[_R]:
        """Do something to each; what fails is reported and left out."""
        for thing in things:
            try:
                done = act(thing)
            except (exception.ImageCacheError, OSError) as e:
                self.app.report(e)
            else:
                yield done


def add_claims(parser: argparse.ArgumentParser) -> None:
    """Let the user say what an image must be."""
    parser.add_argument(
        "--image-format", metavar="FORMAT",
        help="What the image must be (qcow2, raw, vmdk, ...); otherwise what"
        " its store says it is.")
    parser.add_argument(
        "--digest", type=digest, metavar="ALGORITHM:HEX",
        help="What the image's bytes must be, such as sha256:6c1a...;"
        " otherwise what its store says.")
    parser.add_argument(
        "--trusted-certificate", metavar="ID", action="append",
        dest="trusted_certs",
        help="Id in the key manager of a certificate that vouches for the"
        " image's signer; otherwise those that are configured. Can be"
        " repeated.")


def size(text: str) -> int:
    """Read a size as people write it, such as 20GiB, 1.5G or 1024.

    Not oslo.utils' string_to_bytes, to which 20Gb is an eighth of 20GB, and
    20G and 1024 are errors.

    :return: bytes, at least one, and no more than the kernel can count
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give bytes, or KiB, MiB, GiB or TiB, as"
            " in 20GiB")
    power = " KMGTP".index((found[2] or " ").upper())
    amount = decimal.Decimal(found[1]) * 1024 ** power
    if not 1 <= amount < 2**63 or amount != int(amount):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of bytes, of 1 to 8 EiB")
    return int(amount)


def digest(text: str) -> Digest:
    algorithm, _, value = text.partition(":")
    try:
        return Digest(algorithm.lower(), value.lower())
    except exception.InvalidName as e:
        raise argparse.ArgumentTypeError(f"{e}; give it as sha256:..."
                                         ) from e
