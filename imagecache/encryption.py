# SPDX-License-Identifier: Apache-2.0
"""How a disk is encrypted, and its key; the format is LUKS."""

from __future__ import annotations

import dataclasses

from imagecache import exception

_LONGEST = 512     # bytes of a passphrase: what cryptsetup takes


@dataclasses.dataclass(frozen=True)
class Encryption:
    """The key to a disk, and what a new one is encrypted with: AES in XTS.

    The key is kept in memory alone.  It is in no ``repr``, and whoever prints
    or logs one of these prints no secret.

    :param passphrase: text, in UTF-8; libvirt and qemu take no other.  That
        of a random key is its hexadecimal digits.
    :param key_size: bits of the key that encrypts: 512 is AES-256, as XTS
        takes two
    :param iter_time: milliseconds that one guess at the passphrase shall
        cost; each opening takes as long.  A random key needs next to none.
    :raises InvalidName: no disk can have this passphrase
    """

    passphrase: bytes = dataclasses.field(repr=False)
    key_size: int = 512
    iter_time: int = 2000

    def __post_init__(self) -> None:
        try:
            text = self.passphrase.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or "\0" in text or len(self.passphrase) > _LONGEST:
            raise exception.InvalidName(
                name="(it is not shown)", what="the passphrase of a disk",
                reason=f"it must be text of 1 to {_LONGEST} bytes, in UTF-8")
        if self.key_size not in (256, 512):
            raise exception.InvalidName(
                name=self.key_size, what="the size of a key for AES-XTS",
                reason="it is 256 or 512 bits")
