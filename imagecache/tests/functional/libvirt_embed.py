# SPDX-License-Identifier: Apache-2.0
"""A private libvirt without a daemon, which leaves nothing behind.

    unshare --mount --pid --fork --mount-proc --kill-child \\
        /usr/bin/python3 -I libvirt_embed.py define|boot DOMAIN.xml...

It prints a JSON list of the domains as libvirt understood them.  To define
one is to have libvirt read and complete it; to boot one is to start it and to
wait for its end.

It must be the first process of a process namespace.  The emulators are not
its children, so only there it inherits them, and they end with it.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

import libvirt

# No cgroups and no name spaces for each guest, so that this works in a
# container; no virtlogd, which is one more daemon.
QEMU_CONF = """
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""
TIMEOUT = 60    # seconds from a guest's start to its end


def main(what: str, paths: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="libvirt-") as root:
        hide_kvm(pathlib.Path(root))
        child = os.fork()
        if child == 0:
            work(pathlib.Path(root), what, paths)
        # libvirt waits for each emulator it kills, and it asks many.
        while True:
            pid, status = os.wait()
            if pid == child:
                return os.waitstatus_to_exitcode(status)


def hide_kvm(root: pathlib.Path) -> None:
    """Have libvirt emulate guests on every machine.

    Where root may open /dev/kvm and libvirt-qemu may not, libvirt asks qemu
    again and again what it can do: 64 seconds instead of one.
    """
    nothing = root / "kvm"
    nothing.touch(mode=0)
    if os.path.exists("/dev/kvm"):
        subprocess.run(["mount", "--bind", nothing, "/dev/kvm"], check=True)


def work(root: pathlib.Path, what: str, paths: list[str]) -> None:
    """Do the work and end this process, which has threads of libvirt."""
    status = 1
    try:
        connection = connect(root)
        do = {"define": define, "boot": boot}[what]
        heard = [do(connection, pathlib.Path(path).read_text())
                 for path in paths]
        print(json.dumps(heard), flush=True)
        status = 0
    except (libvirt.libvirtError, TimeoutError) as error:
        print(error, file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def connect(root: pathlib.Path) -> libvirt.virConnect:
    (root / "etc").mkdir()
    (root / "etc/qemu.conf").write_text(QEMU_CONF)
    root.chmod(0o711)    # the guests run as libvirt-qemu
    libvirt.registerErrorHandler(lambda context, error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=run_events, daemon=True).start()
    return libvirt.open(f"qemu:///embed?root={root}")


def run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def define(connection: libvirt.virConnect, xml: str) -> str:
    return connection.defineXMLFlags(
        xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE).XMLDesc()


def boot(connection: libvirt.virConnect, xml: str) -> str:
    ended = threading.Event()

    def listen(_connection, _domain, event, _detail, _opaque):
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            ended.set()

    connection.domainEventRegister(listen, None)
    heard = connection.createXML(
        xml, libvirt.VIR_DOMAIN_START_VALIDATE).XMLDesc()
    if not ended.wait(TIMEOUT):
        raise TimeoutError(f"the guest still runs after {TIMEOUT} seconds")
    return heard


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
