# SPDX-License-Identifier: Apache-2.0
"""For tools that still run setup.py; pyproject.toml says what is built."""

import setuptools

setuptools.setup(setup_requires=["pbr>=6.1.1"], pbr=True)
