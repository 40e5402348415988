# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and error messages in one line."""

from __future__ import annotations

from oslo_config import cfg

from imagecache import exception
from imagecache.text import one_line


class UsageError(ValueError):   # cliff prints a ValueError as a usage error
    """The command line is wrong."""


# The code names the party that must act, as do the middle classes of errors.
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
exit codes, and the party that must act:
  0  success
  1  the authors of this program: a defect; --debug prints the traceback
  2  you: the command line is wrong
  3  the owner or the user of the image: it is missing, or refused
  4  the operator of the image store or the network; try again later
  5  the operator of this host: no space, no permission, a failed program
  6  the author of the configuration
  7  you: the state does not allow it (no such disk, a base in use)
A command with several arguments tries all of them; its exit code is that of
the first failure.
"""


def exit_code(error: Exception) -> int:
    """Return the exit code that names the party that must act."""
    return next((code for kind, code in EXIT_CODES.items()
                 if isinstance(error, kind)), UNEXPECTED)


def explain(error: Exception) -> str:
    """Return the message of an error in one line."""
    text = " ".join(one_line(str(error)).split())
    if exit_code(error) != UNEXPECTED:
        return text
    return (f"{type(error).__name__}: {text} (a defect of this program;"
            " --debug prints the traceback)")
