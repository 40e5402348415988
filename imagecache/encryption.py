# SPDX-License-Identifier: Apache-2.0
"""The key of an encrypted disk, and the parameters of its LUKS format."""

from __future__ import annotations

import dataclasses

from imagecache import exception

_LONGEST = 512     # bytes of a passphrase: the maximum of cryptsetup


@dataclasses.dataclass(frozen=True)
class Encryption:
    """The key of a disk, and the cipher of a new one: AES in XTS mode.

    The key is only in memory.  It is not in ``repr``, so an object that is
    printed or logged shows no secret.

    :param passphrase: text in UTF-8, as libvirt and qemu require; for a
        random key, its hexadecimal digits
    :param key_size: bits of the encryption key: 512 is AES-256, because XTS
        uses two keys
    :param iter_time: milliseconds that one guess of the passphrase takes;
        each opening of the disk takes as long.  10 is enough for a random
        key.
    :raises InvalidName: the passphrase or the size is not valid
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
