# SPDX-License-Identifier: Apache-2.0
"""Look for images that the inspector does not handle, or should refuse.

    python fuzz/inspector.py [-runs=N] [LIBFUZZER-OPTION...] [CORPUS...]

An input selects a sample of hostile_images, its claim, the size of the pieces,
and changes to it, as in formats.py.  Each image must be accepted or raise
ImageUnacceptable, and no other exception, neither ours nor one of oslo.utils.
An accepted image has no mark of another format, and formats.py must accept it
as the same format.
"""

from __future__ import annotations

import logging
import pathlib
import sys
import tempfile

import atheris
import formats

with atheris.instrument_imports(include=[
        "imagecache.inspection.inspector", "imagecache.formats",
        "oslo_utils.imageutils.format_inspector"]):
    from imagecache.inspection.inspector import CLAIMS, Found, Inspector

sys.path.append(str(pathlib.Path(__file__).parents[1]))    # the checkout

import hostile_images as corpus
from imagecache import exception
from imagecache.model import Format, whole_sectors

LARGEST = 80 * 1024      # bytes of a sample; more would take too long
WELCOME = frozenset(Format)
ASKED = (None, *CLAIMS, "luks")
PIECES = (1 << 20, 65536, 4096, 513)


def samples() -> list[bytes]:
    hostile = [each.build(corpus.NOWHERE)
               for each in (*corpus.refused(), *corpus.odds())]
    good = [each.build() for each in (*corpus.accepted(), *corpus.allowed())]
    return sorted({each[:LARGEST] for each in hostile + good})


def inspect(path: pathlib.Path, content: bytes, claim: str | None,
            piece: int) -> Found | None:
    """Return the format and size of an image; None if it is refused."""
    path.write_bytes(content)
    try:
        inspector = Inspector("x", claim, WELCOME)
        for at in range(0, len(content), piece):
            if inspector.needs_more:
                inspector.feed(content[at:at + piece])
        return inspector.finish(path)
    except exception.ImageUnacceptable:
        return None


def require_harmless(content: bytes, claim: str | None,
                     found: Found) -> None:
    """Check an accepted image independently.

    :raises AssertionError: it should have been refused
    """
    assert claim is None or CLAIMS[claim] is found.format, (claim, found)
    if found.format is Format.RAW:
        assert found.virtual_size == whole_sectors(len(content))
        assert not content.startswith((
            b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"conectix", b"vhdxfile",
            b"LUKS\xba\xbe", b"# Disk DescriptorFile\nversion=1\n")), content
    else:
        assert formats.check(formats.File(content)) == found.virtual_size


def main() -> None:
    logging.disable()    # the inspector logs each image it refuses
    bases = samples()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        path = pathlib.Path(directory, "image")

        def one_input(data: bytes) -> None:
            if len(data) < 4:
                return
            base = bases[int.from_bytes(data[:2]) % len(bases)]
            claim = ASKED[data[2] % len(ASKED)]
            file = formats.changed(base, data[4:])
            content = file.at(0, file.size)
            found = inspect(path, content, claim,
                            PIECES[data[3] % len(PIECES)])
            if found is not None:
                require_harmless(content, claim, found)

        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
