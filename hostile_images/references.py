# SPDX-License-Identifier: Apache-2.0
"""qcow2 images that refer to other files."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from hostile_images import layout
from hostile_images.canary import Sentinel
from hostile_images.sample import Build, Refused
from imagecache.testing import images

# Names that qemu would open.
_NAMES: dict[str, str] = {
    "abs": "{path}",
    "rel": "{up}{path}",
    "proc": "/proc/self/root{path}",
    "device": "/dev/zero",
    "fdset": "/dev/fdset/0",
    "file": "file:{path}",
    "file-uri": "file://{path}",
    "fat": "fat:{directory}",
    "fat-rw": "fat:rw:{directory}",
    "blkdebug": "blkdebug::{path}",
    "blkverify": "blkverify:{path}:{path}",
    "host-device": "host_device:{path}",
    "nbd": "nbd://127.0.0.1:{port}/x",
    "nbd-old": "nbd:127.0.0.1:{port}",
    "nbd-unix": "nbd+unix:///x?socket={path}",
    "ssh": "ssh://127.0.0.1:{port}{path}",
    "http": "http://127.0.0.1:{port}/x",
    "ftp": "ftp://127.0.0.1:{port}/x",
    "iscsi": "iscsi://127.0.0.1:{port}/x/0",
    "nfs": "nfs://127.0.0.1{path}",
    "gluster": "gluster+tcp://127.0.0.1:{port}/x/x",
    "rbd": "rbd:pool/image:mon_host=127.0.0.1\\:{port}",
    "null": "null-co://",
    "newline": "{path}\n",
    "json-file": 'json:{{"driver":"file","filename":"{path}"}}',
    "json-raw": 'json:{{"driver":"raw","file":{{"driver":"file",'
                '"filename":"{path}"}}}}',
    "json-dotted": 'json:{{"file.driver":"file","file.filename":"{path}"}}',
    "json-nbd": 'json:{{"driver":"raw","file.driver":"nbd","file.server.type"'
                ':"inet","file.server.host":"127.0.0.1",'
                '"file.server.port":"{port}"}}',
}

_OF_BACKING = ("CVE-2011-3147", "CVE-2015-5163", "CVE-2023-32684",
               "CVE-2024-45219", "CVE-2024-50386")
_OF_DATA_FILES = ("CVE-2024-32498",)


def name(kind: str, sentinel: Sentinel) -> str:
    """Return what an image would call the sentinel, in one of many ways."""
    return _NAMES[kind].format(
        path=sentinel.path, directory=sentinel.path.parent, port=sentinel.port,
        up="../" * 40)


def samples() -> Iterator[Refused]:
    yield _backing("backing-by-qemu-img", _made_by_qemu_img)
    yield from (_backing(f"backing-{kind}", functools.partial(_backed, kind))
                for kind in _NAMES)
    yield from _odd_backing()
    yield from _damaged_backing()
    yield from (_data_file(f"datafile-{kind}",
                           functools.partial(_external, kind))
                for kind in _NAMES)
    yield from _odd_data_files()


def _backing(id: str, build: Build, rule: str = "backing-file") -> Refused:
    return Refused(f"qcow2-{id}", "qcow2", rule, build, _OF_BACKING)


def _data_file(id: str, build: Build, *more: str) -> Refused:
    return Refused(f"qcow2-{id}", "qcow2", "data-file", build,
                   (*_OF_DATA_FILES, *more))


def _made_by_qemu_img(sentinel: Sentinel) -> bytes:
    return images.backed_by(sentinel.path)


def _backed(kind: str, sentinel: Sentinel, **lies: Any) -> bytes:
    return layout.backed(name(kind, sentinel), **lies)


def _external(kind: str, sentinel: Sentinel) -> bytes:
    return layout.external(name(kind, sentinel))


def _odd_backing() -> Iterator[Refused]:
    format = layout.extension(layout.BACKING_FORMAT, b"raw")
    odd: dict[str, Build] = {
        "no-format": lambda sentinel: layout.backed(str(sentinel.path), None),
        "v2": lambda sentinel: layout.backed(str(sentinel.path), version=2),
        "v2-no-format": lambda sentinel: layout.backed(
            str(sentinel.path), None, version=2),
        "as-qcow2": lambda sentinel: layout.backed(
            str(sentinel.path), "qcow2"),
        "as-vmdk": lambda sentinel: layout.backed(str(sentinel.path), "vmdk"),
        # Only one of three signs is there.
        "offset-only": lambda sentinel: layout.image(
            name=str(sentinel.path).encode(), backing_offset=layout.NAME_AT),
        "size-only": lambda sentinel: layout.image(
            name=str(sentinel.path).encode(),
            backing_size=len(str(sentinel.path))),
        "format-only": lambda sentinel: layout.image(format),
        "format-only-v2": lambda sentinel: layout.image(format, version=2),
        "format-after-others": lambda sentinel: layout.image(
            layout.extension(layout.FEATURE_NAMES, bytes(48)),
            layout.extension(0x7777, b"x" * 9), format),
        "no-text": lambda sentinel: layout.backed(b"\xff\xfe\xfd"),
    }
    for id, build in odd.items():
        yield _backing(f"backing-{id}", build)


def _damaged_backing() -> Iterator[Refused]:
    """The name is not where it can be, or not what it can be."""
    damaged: dict[str, Build] = {
        "in-header": lambda sentinel: layout.backed(
            str(sentinel.path), backing_offset=8),
        "past-cluster": lambda sentinel: layout.backed(
            str(sentinel.path), backing_offset=layout.CLUSTER - 4),
        "beyond-cluster": lambda sentinel: layout.backed(
            str(sentinel.path), backing_offset=layout.DATA),
        "beyond-file": lambda sentinel: layout.backed(
            str(sentinel.path), backing_offset=1 << 40),
        "offset-wraps": lambda sentinel: layout.backed(
            str(sentinel.path), backing_offset=(1 << 64) - 8),
        "name-1024": lambda sentinel: layout.backed(
            "/" * (1024 - len(str(sentinel.path))) + str(sentinel.path)),
        "name-4G": lambda sentinel: layout.backed(
            str(sentinel.path), backing_size=(1 << 32) - 1),
        "nul": lambda sentinel: layout.backed(f"{sentinel.path}\0.qcow2"),
        "nul-first": lambda sentinel: layout.backed(f"\0{sentinel.path}"),
    }
    for id, build in damaged.items():
        yield _backing(f"backing-{id}", build, "backing-name")


def _odd_data_files() -> Iterator[Refused]:
    def named(sentinel: Sentinel) -> bytes:
        return layout.extension(
            layout.EXTERNAL_DATA, str(sentinel.path).encode())

    odd: dict[str, Build] = {
        "raw": lambda sentinel: layout.external(str(sentinel.path), raw=True),
        "bit-only": lambda sentinel: layout.image(
            incompatible=layout.DATA_FILE),
        "extension-only": lambda sentinel: layout.image(named(sentinel)),
        "raw-bit-only": lambda sentinel: layout.image(autoclear=2),
        "nameless": lambda sentinel: layout.external(b""),
        "nul": lambda sentinel: layout.external(f"{sentinel.path}\0"),
        "v2": lambda sentinel: layout.image(named(sentinel), version=2),
        "twice": lambda sentinel: layout.image(
            layout.extension(layout.EXTERNAL_DATA, b"data"), named(sentinel),
            incompatible=layout.DATA_FILE),
        "after-others": lambda sentinel: layout.image(
            layout.extension(layout.FEATURE_NAMES, bytes(48)),
            layout.extension(0x7777, b"x" * 9), named(sentinel)),
        "short-header": lambda sentinel: layout.image(
            header_length=104, incompatible=layout.DATA_FILE),
        "and-backing": lambda sentinel: layout.image(
            named(sentinel), name=str(sentinel.path).encode(),
            backing_offset=layout.NAME_AT,
            backing_size=len(str(sentinel.path)),
            incompatible=layout.DATA_FILE),
    }
    yield from (_data_file(f"datafile-{id}", build)
                for id, build in odd.items())
    # qemu 9.0 opened these, for qemu-img info already.
    for id, options in (("json", _read), ("json-create", _create)):
        yield _data_file(
            f"datafile-{id}", functools.partial(_json, options),
            "CVE-2024-4467")


def _json(options: Callable[[Sentinel], dict[str, Any]],
          sentinel: Sentinel) -> bytes:
    return layout.external("json:" + json.dumps(options(sentinel)))


def _read(sentinel: Sentinel) -> dict[str, Any]:
    return {"driver": "raw", "file": {
        "driver": "file", "filename": str(sentinel.path)}}


def _create(sentinel: Sentinel) -> dict[str, Any]:
    return {"driver": "blkverify", "raw": _read(sentinel), "test": {
        "driver": "vvfat", "dir": str(sentinel.path.parent), "rw": True}}
