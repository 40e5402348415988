# SPDX-License-Identifier: Apache-2.0
"""cryptsetup(8): devices whose content the kernel encrypts.

Every command runs as root.  cryptsetup reads a passphrase from its standard
input, which is a pipe.
"""

from __future__ import annotations

import pathlib

from imagecache import exception
from imagecache.encryption import Encryption
from imagecache.model import MiB
from imagecache.system import execute

# The LUKS header and the keys need as much, before the content.
HEADER = 2 * MiB

_SECTOR = 512
_WRONG_KEY = 2
_NOT_OPEN = 4


def device(name: str) -> pathlib.Path:
    """Return the path where the content of an open device is."""
    return pathlib.Path("/dev/mapper", name)


def create(path: pathlib.Path, offset: int, encryption: Encryption,
           root_helper: str) -> None:
    """Format a device with LUKS; its old content is lost.

    :param offset: where the content begins, in bytes: whole sectors, and at
        least HEADER
    """
    # Version 1, because qemu can also read and write it.
    execute.run("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks1",
                "--cipher", "aes-xts-plain64",
                "--key-size", str(encryption.key_size), "--hash", "sha256",
                "--iter-time", str(encryption.iter_time),
                "--align-payload", str(offset // _SECTOR),
                "--key-file=-", str(path), secret=encryption.passphrase,
                root_helper=root_helper)


def open(path: pathlib.Path, name: str, encryption: Encryption,
         root_helper: str) -> None:
    """Let the kernel decrypt a device, at the path that device() returns.

    :raises WrongKey: the passphrase opens none of the key slots
    """
    try:
        execute.run("cryptsetup", "open", "--type", "luks1", "--key-file=-",
                    str(path), name, secret=encryption.passphrase,
                    root_helper=root_helper)
    except exception.CommandFailed as e:
        if e.facts.get("exit_code") == _WRONG_KEY:
            raise exception.WrongKey(location=path) from e
        raise


def close(name: str, root_helper: str) -> None:
    """Close a device, so that the kernel forgets the key.

    Do nothing if it is not open.

    :raises CommandFailed: a process uses it
    """
    execute.run("cryptsetup", "close", name, exit_codes=(0, _NOT_OPEN),
                root_helper=root_helper)


def resize(name: str, root_helper: str) -> None:
    """Grow an open device to the size of the device below it."""
    execute.run("cryptsetup", "resize", name, root_helper=root_helper)
