# SPDX-License-Identifier: Apache-2.0
"""How fast imagecache is, beside bare qemu-img and beside nova.

    tox -e bench [-- [NAME...] [--directory DIR] [--json FILE]]

A benchmark is a function of a Scratch that yields results, and a line in
__main__.BENCHMARKS; harness has the rounds, the tables and the JSON.  Nothing
here is a test: a number that misses its bar is reported, and the exit code
stays 0.

A result with a ``chart`` is one that the manual shows: it is kept with its
table in doc/source/measurements, and ``python -m benchmarks.plot`` draws it.
"""
