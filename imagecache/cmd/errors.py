# SPDX-License-Identifier: Apache-2.0
"""What went wrong, as a person and as a shell hear of it."""

from __future__ import annotations

from oslo_config import cfg

from imagecache import exception


class UsageError(ValueError):   # which cliff knows what to do with
    """The command line asks for something that cannot be."""


# Who must act decides the code, as it decides the classes of exception.
UNEXPECTED = 1
EXIT_CODES: dict[type[Exception], int] = {
    UsageError: 2,
    exception.ImageError: 3,
    exception.SourceError: 4,
    exception.HostError: 5,
    OSError: 5,
    exception.InvalidConfiguration: 6,
    cfg.Error: 6,
    exception.CallerError: 7,
}

MANUAL = """\
exit codes, by who must act:
  0  done
  1  a defect of this program: --debug shows where
  2  you: the command line is wrong
  3  the image's owner, or who picked it: it will not do, or is not there
  4  the image store's operator, or the network's: trying again may help
  5  this host's operator: no space, no permission, a program that failed
  6  whoever wrote the configuration
  7  you: it makes no sense as things stand (no such disk, a base in use)
When several things were asked for, or are listed, all are tried; the code is
that of the first that failed.
"""


def exit_code(error: Exception) -> int:
    """Return the exit code that says who must act."""
    return next((code for kind, code in EXIT_CODES.items()
                 if isinstance(error, kind)), UNEXPECTED)


def explain(error: Exception) -> str:
    """Return what went wrong in one line."""
    text = " ".join(str(error).split())   # programs say more than one
    if exit_code(error) != UNEXPECTED:
        return text
    return (f"{type(error).__name__}: {text} (a defect of this program;"
            " --debug shows where)")
