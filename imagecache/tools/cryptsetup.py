# SPDX-License-Identifier: Apache-2.0
"""cryptsetup(8): devices whose content the kernel encrypts; all run as root.

A passphrase goes through a pipe that is cryptsetup's standard input.
"""

from __future__ import annotations

import pathlib

from imagecache import exception
from imagecache.encryption import Encryption
from imagecache.model import MiB
from imagecache.system import execute

# From here on a device holds content: LUKS keeps its header and keys before.
OFFSET = 2 * MiB

_SECTOR = 512
_WRONG_KEY = 2
_NOT_OPEN = 4


def device(name: str) -> pathlib.Path:
    """Where the content of an open device is."""
    return pathlib.Path("/dev/mapper", name)


def create(path: pathlib.Path, encryption: Encryption,
           root_helper: str) -> None:
    """Make a device LUKS; what it held is lost."""
    # Version 1, which qemu can read and write as well.
    execute.run("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks1",
                "--cipher", "aes-xts-plain64",
                "--key-size", str(encryption.key_size), "--hash", "sha256",
                "--iter-time", str(encryption.iter_time),
                "--align-payload", str(OFFSET // _SECTOR),
                "--key-file=-", str(path), secret=encryption.passphrase,
                root_helper=root_helper)


def open(path: pathlib.Path, name: str, encryption: Encryption,
         root_helper: str) -> None:
    """Let the kernel decrypt a device; see device().

    :raises WrongKey: it opens none of the key slots
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
    """Have the kernel forget the key; do nothing if the device is not open.

    :raises CommandFailed: somebody has it open
    """
    execute.run("cryptsetup", "close", name, exit_codes=(0, _NOT_OPEN),
                root_helper=root_helper)


def resize(name: str, root_helper: str) -> None:
    """Let an open device be as large as what it is on."""
    execute.run("cryptsetup", "resize", name, root_helper=root_helper)
