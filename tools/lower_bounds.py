# SPDX-License-Identifier: Apache-2.0
"""Write constraints for pip: the oldest versions this project asks for.

    lower_bounds.py OUTPUT
"""

from __future__ import annotations

import pathlib
import re
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parents[1]


def main(output: str) -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    asked = (TOP / "requirements.txt").read_text().splitlines()
    for extra in project["optional-dependencies"].values():
        asked += extra
    pathlib.Path(output).write_text("".join(
        f"{name}=={version}\n" for name, version in map(bound, asked) if name))


def bound(line: str) -> tuple[str, str]:
    """Split ``name[extra]>=version  # why``; two empty ones if it is none."""
    match = re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", line)
    return (match[1], match[2]) if match else ("", "")


if __name__ == "__main__":
    main(sys.argv[1])
