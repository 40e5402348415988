# SPDX-License-Identifier: Apache-2.0
"""The entry point of the command ``imagecache``."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence

# Packages of the extra "cli", which the library itself does not need.
_NEEDED = ("cliff", "tqdm")
_BROKEN_PIPE = 141   # 128 + SIGPIPE, as in a shell


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code.

    :param argv: what follows the name of the program; None for sys.argv
    :raises SystemExit: the command line is wrong, or asks for help
    """
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            print(f"imagecache: error: the command needs {name}:"
                  " pip install imagecache[cli]", file=sys.stderr)
            return 1
    from imagecache.cmd import app
    code = app.App().run(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output at exit, and would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code
