# SPDX-License-Identifier: Apache-2.0
"""Build the package, look at what is in it, install it, and start it.

    python tools/check_package.py DIRECTORY

Builds an sdist and a wheel, and makes a virtual environment for the wheel in
an empty directory.  Needs an index of packages; nothing outside the directory
changes.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import zipfile

TOP = pathlib.Path(__file__).resolve().parent.parent

# What must be in the wheel, and what must not: directories of the checkout.
NEEDED = ("imagecache/__init__.py", "imagecache/py.typed",
          "imagecache/testing/conformance.py")
UNWANTED = ("imagecache/tests/", "hostile_images/", "benchmarks/", "fuzz/",
            "tools/", "examples/")


def main() -> None:
    directory = pathlib.Path(sys.argv[1]).resolve()
    wheels, venv = directory / "wheels", directory / "venv"
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    run(sys.executable, "-m", "venv", "--clear", venv)
    python = venv / "bin" / "python"
    # The wheel is built from the sdist: what the sdist lacks, it lacks.
    run(python, *pip, "install", "build")
    run(python, "-m", "build", "--outdir", wheels, TOP)
    wheel = max(wheels.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    check(zipfile.ZipFile(wheel).namelist())
    run(sys.executable, "-m", "venv", "--clear", venv)
    run(python, *pip, "install", f"{wheel}[cli,test]")
    # Not from the checkout, which has everything.
    run(venv / "bin" / "imagecache", "--help", cwd=directory)
    run(python, "-c", "import imagecache.testing.conformance", cwd=directory)
    print(f"{wheel.name}: complete, and it starts")


def check(names: list[str]) -> None:
    """Exit if a wheel lacks a file, or has one that only a checkout needs."""
    lacking = [name for name in NEEDED if name not in names]
    wrong = [name for name in names if name.startswith(UNWANTED)]
    if lacking or wrong:
        raise SystemExit(f"the wheel lacks {lacking}, and should not have"
                         f" {wrong[:10]}; see pyproject.toml")


def run(*command: str | pathlib.Path, cwd: pathlib.Path = TOP) -> None:
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
