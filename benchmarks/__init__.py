# SPDX-License-Identifier: Apache-2.0
"""How fast imagecache is, beside bare qemu-img and beside nova.

    tox -e bench [-- [NAME...] [--directory DIR] [--json FILE]]

A benchmark is a module here with a function ``results(scratch)`` that yields
results, and a line in __main__.BENCHMARKS.  Nothing here is a test: a number
that misses its bar is reported, and the exit code stays 0.

A result with a ``chart`` is one that the manual shows: it is drawn, and kept
with its table in doc/source/measurements.
"""
