# SPDX-License-Identifier: Apache-2.0
"""Set the limits of a program, and explain a failure by a limit."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable

from imagecache.model import Limits

_OPEN_FILES = 256     # qemu-img has a dozen

_UNITS = {"address_space": "bytes of address space",
          "cpu_time": "seconds of CPU",
          "file_size": "bytes in a file",
          "wall_clock": "seconds"}

# Messages of qemu-img, e2fsprogs and the dynamic loader without memory.
_NO_MEMORY = ("Cannot allocate memory", "Could not allocate",
              "failed to allocate", "Memory allocation failed",
              "Resource temporarily unavailable", "failed to map segment")
_TOO_LARGE = ("File too large",)


def setter(limits: Limits) -> Callable[[], None]:
    """Return a call that sets the limits of its process.

    A process may only lower its limits, so a lower limit of the agent stays.
    """
    cpu = limits.cpu_time
    wanted = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (_OPEN_FILES, _OPEN_FILES),
        resource.RLIMIT_FSIZE: (limits.file_size, limits.file_size),
        # One second to die of SIGXCPU, which names the reason.
        resource.RLIMIT_CPU: (cpu, None if cpu is None else cpu + 1),
        # The last: Python may use more than this already.
        resource.RLIMIT_AS: (limits.address_space, limits.address_space),
    }
    pairs = [(kind, (_lower(soft, resource.getrlimit(kind)[1]),
                     _lower(hard, resource.getrlimit(kind)[1])))
             for kind, (soft, hard) in wanted.items()
             if soft is not None and hard is not None]

    def set_them() -> None:
        for kind, pair in pairs:
            resource.setrlimit(kind, pair)

    return set_them


def _lower(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def explain(limits: Limits, exit_code: int, stderr: str) -> str | None:
    """Name the limit that made a program fail, and the option that sets it.

    :param exit_code: negative, or above 128, if a signal ended the program
    :return: None if no limit is the reason
    """
    killed = -exit_code if exit_code < 0 else exit_code - 128
    signs = {
        "cpu_time": killed == signal.SIGXCPU,
        "file_size": killed == signal.SIGXFSZ or _any(_TOO_LARGE, stderr),
        "address_space": _any(_NO_MEMORY, stderr),
    }
    for name, seen in signs.items():
        if seen and getattr(limits, name) is not None:
            return reached(limits, name)
    return None


def reached(limits: Limits, name: str) -> str:
    """Return a message: the limit that was reached, and its option."""
    option = limits.options.get(name)
    return f"it reached its limit of {getattr(limits, name)} {_UNITS[name]}" \
        + (f", which {option} sets" if option else "")


def _any(words: tuple[str, ...], text: str) -> bool:
    return any(each in text for each in words)
