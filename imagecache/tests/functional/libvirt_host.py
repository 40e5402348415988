# SPDX-License-Identifier: Apache-2.0
"""A host with a private libvirt; needs root or sudo.

The packages are libvirt-daemon-driver-qemu and python3-libvirt, which is for
the system's Python only; and a user and a group must be there, libvirt-qemu.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import tempfile

from lxml import etree

SCRIPT = pathlib.Path(__file__).with_name("libvirt_embed.py")
TIMEOUT = 120    # seconds, should the script's own time-out fail


def define(*domains: etree._Element) -> list[etree._Element]:
    """Return the domains as libvirt understands and completes them."""
    return _run("define", *domains)


def boot(domain: etree._Element) -> etree._Element:
    """Run a guest until it powers off; return its domain while it ran.

    The user libvirt-qemu becomes the owner of its files, and must be able
    to reach them.
    """
    return _run("boot", domain)[0]


def _run(what: str, *domains: etree._Element) -> list[etree._Element]:
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for number, domain in enumerate(domains):
            paths.append(pathlib.Path(directory) / f"{number}.xml")
            paths[-1].write_bytes(etree.tostring(domain))
        done = subprocess.run(
            [*(() if os.geteuid() == 0 else ("sudo", "-n")),
             "unshare", "--mount", "--pid", "--fork", "--mount-proc",
             "--kill-child", "/usr/bin/python3", "-I", SCRIPT, what, *paths],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise AssertionError(f"libvirt cannot {what}: {done.stderr}")
    return [etree.fromstring(heard) for heard in json.loads(done.stdout)]
