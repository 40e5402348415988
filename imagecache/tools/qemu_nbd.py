# SPDX-License-Identifier: Apache-2.0
"""A disk in a file as a block device: the kernel's nbd, by qemu-nbd(8).

Only root may connect a device, and root must not parse a disk that a guest may
have changed.  So there are two programs.  qemu-storage-daemon reads the disk,
in a sandbox, and serves it on a socket.  qemu-nbd connects the device to that
socket, and reads only its NBD protocol.

A thread that claims a device holds the lock of the device.  Programs that do
not use these locks are safe as well: the kernel refuses to connect a device
that has an owner.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

from imagecache import exception
from imagecache.model import SECTOR, Format, Limits, whole_sectors
from imagecache.system import durable, execute
from imagecache.system.locks import Locks

# Seconds to wait for a free device, for a connection and for its end.
PATIENCE = 30.0
_PAUSE = 0.01

# The message of qemu-nbd if the device has an owner, among other reasons.
_TAKEN = "Failed to set NBD socket"

Program = futures.Future[str]    # done when the program has ended


@dataclasses.dataclass(frozen=True)
class Device:
    name: str     # nbd0

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path("/dev", self.name)

    @property
    def _about(self) -> pathlib.Path:
        return pathlib.Path("/sys/block", self.name)

    @property
    def size(self) -> int:
        """Bytes; 0 if nothing is connected."""
        return int((self._about / "size").read_text()) * SECTOR

    @property
    def owner(self) -> int | None:
        """The number of the process that connected the device."""
        try:
            return int((self._about / "pid").read_text())
        except (FileNotFoundError, OSError):    # it disconnected meanwhile
            return None

    @property
    def owner_arguments(self) -> list[bytes]:
        """The arguments of the process that connected it, if readable."""
        try:
            return pathlib.Path(
                f"/proc/{self.owner}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return []

    @property
    def is_free(self) -> bool:
        return self.owner is None and not self.size


def devices() -> list[Device]:
    """Return the devices of this kernel; without the module nbd, none."""
    return [Device(path.name) for path in
            sorted(pathlib.Path("/sys/block").glob("nbd*"))]


def require(path: pathlib.Path) -> None:
    """Check that this kernel has network block devices.

    :param path: of the disk, for the message
    :raises NbdUnavailable: it has none
    """
    if not devices():
        raise exception.NbdUnavailable(
            path=path, reason="this kernel has no network block devices"
            " (modprobe nbd)")


@contextlib.contextmanager
def attached(path: pathlib.Path, format: Format, size: int, *,
             locks: Locks, limits: Limits, root_helper: str,
             backing: pathlib.Path | None = None) -> Iterator[pathlib.Path]:
    """Yield a device through which a disk can be read and written.

    When the block ends, the disk is flushed and the device is free.  If this
    process is killed, the device becomes free, or the next process that looks
    for a device frees it.

    :param size: bytes of the disk, as a guest sees it
    :param backing: the disk's backing file, if it has one
    :raises NbdUnavailable: this host has no such device, or none is free
    :raises CommandFailed: the disk could not be opened, or connected
    :raises StorageFailed: not all written data is on the disk
    """
    require(path)
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix="imagecache-nbd.")))
        server = stack.enter_context(_serving(
            directory / "disk", path, format, limits, backing))
        connector = _Connector(path, directory, server, whole_sectors(size),
                               locks, limits, root_helper)
        device = connector.claim(stack)
        with durable.translated("writing through a device", path), \
                device.path.open("rb", buffering=0) as f:
            yield device.path
            os.fsync(f)


@contextlib.contextmanager
def _serving(address: pathlib.Path, path: pathlib.Path, format: Format,
             limits: Limits, backing: pathlib.Path | None
             ) -> Iterator[Program]:
    """Serve a disk on a socket that the program inherits.

    It may open no other socket.
    """
    disk = {"driver": format.value, "node-name": "disk",
            "file": {"driver": "file", "filename": str(path.absolute())}}
    with contextlib.ExitStack() as stack:
        with durable.translated("serving a disk", path), \
                socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(1)
            program = stack.enter_context(_running(
                "qemu-storage-daemon", "--blockdev", json.dumps(disk),
                "--nbd-server", "addr.type=fd,addr.str=0",
                "--export", "type=nbd,id=disk,node-name=disk,name=disk,"
                "writable=on", stdin=listener.fileno(), writes=[path],
                reads=[backing] if backing else [],
                limits=dataclasses.replace(limits, wall_clock=None)))
        yield program


@dataclasses.dataclass(frozen=True)
class _Connector:
    path: pathlib.Path
    directory: pathlib.Path    # of sockets
    server: Program
    size: int                  # bytes of the disk
    locks: Locks
    limits: Limits
    root_helper: str

    def claim(self, stack: contextlib.ExitStack) -> Device:
        """Connect a free device; closing the stack disconnects it.

        :raises NbdUnavailable: none became free within PATIENCE
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            for device in devices():
                with contextlib.ExitStack() as attempt:
                    if self._is_claimed(device, attempt):
                        stack.enter_context(attempt.pop_all())
                        return device
            if time.monotonic() > deadline:
                raise exception.NbdUnavailable(
                    path=self.path, reason="every device has been in use"
                    f" for {PATIENCE:.0f} seconds; load the module nbd with a"
                    " larger nbds_max")
            time.sleep(10 * _PAUSE)

    def _is_claimed(self, device: Device,
                    attempt: contextlib.ExitStack) -> bool:
        # Hosts may share the directory of locks, but not their devices.
        name = f"{device.name}-{os.uname().nodename}"
        if not attempt.enter_context(self.locks.trying(name)):
            return False
        if self._is_abandoned(device):
            self._disconnect(device)
            _wait_until(lambda: device.is_free)
        if not device.is_free:
            return False
        try:
            attempt.enter_context(self._connected(device))
            attempt.enter_context(self._chowned(device))
        except exception.CommandFailed as e:
            if _TAKEN in e.message:
                return False
            futures.wait([self.server], 1)
            if self.server.done():     # its error is the reason
                self.server.result()
            raise
        return True

    @property
    def _mark(self) -> str:
        """Marks a device that a process with these locks connected."""
        return f"imagecache {self.locks.directory}"

    def _is_abandoned(self, device: Device) -> bool:
        """Tell whether a dead process with these locks connected a device.

        This process holds the lock of the device, so the other one is dead.
        """
        return os.fsencode(self._mark) in device.owner_arguments

    def _socket(self, device: Device) -> pathlib.Path:
        return self.directory / device.name

    def _is_ours(self, device: Device) -> bool:
        """Tell whether this connector connected the device."""
        return os.fsencode(self._socket(device)) in device.owner_arguments

    @contextlib.contextmanager
    def _connected(self, device: Device) -> Iterator[None]:
        image = "driver=raw,file.driver=nbd,file.export=disk," \
            "file.server.type=unix,file.server.path=" + str(
                self.directory / "disk").replace(",", ",,")
        # With --verbose qemu-nbd stays in the foreground, as our child.
        with _running("qemu-nbd", "--verbose", "--description", self._mark,
                      "--socket", str(self._socket(device)),
                      "--connect", str(device.path), "--image-opts", image,
                      limits=dataclasses.replace(
                          self.limits, wall_clock=None, sandbox=None),
                      root_helper=self.root_helper) as client:
            try:
                self._await(device, client)
                yield
            finally:
                if self._is_ours(device):
                    self._disconnect(device)
                futures.wait([client], PATIENCE)

    def _await(self, device: Device, client: Program) -> None:
        """Wait until this connector has the device, with the disk's size.

        The size alone is no proof: another process may connect a disk of the
        same size.

        :raises CommandFailed: the connection failed
        """
        deadline = time.monotonic() + PATIENCE
        while device.size != self.size or not self._is_ours(device):
            futures.wait([client, self.server], _PAUSE,
                         futures.FIRST_COMPLETED)
            for program in (self.server, client):
                if program.done():
                    program.result()
            if client.done() or time.monotonic() > deadline:
                raise exception.CommandFailed(
                    command="qemu-nbd", exit_code=None,
                    stderr=f"{device.path} did not become a device of"
                    f" {self.size} bytes")

    def _disconnect(self, device: Device) -> None:
        execute.run("qemu-nbd", "--disconnect", str(device.path),
                    root_helper=self.root_helper)

    @contextlib.contextmanager
    def _chowned(self, device: Device) -> Iterator[None]:
        """Make this process's user the owner of the device in the block."""
        if os.access(device.path, os.R_OK | os.W_OK):
            yield
            return
        owner = device.path.stat().st_uid
        self._own(device, os.geteuid())
        try:
            yield
        finally:
            self._own(device, owner)

    def _own(self, device: Device, uid: int) -> None:
        execute.run("chown", str(uid), str(device.path),
                    root_helper=self.root_helper)


def _wait_until(answer: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not answer() and time.monotonic() < deadline:
        time.sleep(_PAUSE)


@contextlib.contextmanager
def _running(*command: str, **how: Any) -> Iterator[Program]:
    """Run a program while the block lasts."""
    program = Program()
    started = queue.SimpleQueue[execute.Running | None]()

    def run() -> None:
        try:
            program.set_result(execute.run(
                *command, started=started.put, **how))
        except BaseException as e:    # noqa: BLE001  (the future raises it)
            program.set_exception(e)
        finally:
            started.put(None)

    # A daemon thread, not a pool's: this process can always end.
    threading.Thread(target=run, name=command[0], daemon=True).start()
    running = started.get()
    if running is None:
        program.result()    # raises why it was not started
    try:
        yield program
    finally:
        if running is not None:
            # A process of root cannot be signalled.
            with contextlib.suppress(PermissionError):
                running.end()
            futures.wait([program], PATIENCE)
