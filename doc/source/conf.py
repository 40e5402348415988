# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds these pages: ``tox -e docs``."""

from __future__ import annotations

import importlib.metadata
from typing import Any

project = "imagecache"
author = "the imagecache developers"
project_copyright = author
release = version = importlib.metadata.version("imagecache")

extensions = [
    "cliff.sphinxext",
    "oslo_config.sphinxext",
    "reno.sphinxext",
    "sphinx.ext.autodoc",
]
nitpicky = False    # types of keystoneauth and oslo.config are linked nowhere

html_theme = "furo"
html_title = "imagecache"
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
highlight_language = "python3"

autoprogram_cliff_ignored = [    # what cliff adds to every command
    "--help", "--format", "--column", "--quote", "--noindent", "--prefix",
    "--max-width", "--fit-width", "--print-empty", "--sort-column",
    "--sort-ascending", "--sort-descending"]

autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_type_aliases = {"Instance": "Instance"}
maximum_signature_line_length = 72
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", show_drawings)


def show_drawings(app: Any, what: str, name: str, thing: object,
                  options: object, lines: list[str]) -> None:
    """Set what a docstring indents after a blank line as it stands there.

    In this project's docstrings that is a drawing, or code.
    """
    shown: list[str] = []
    last = ""     # the last line that is not blank
    for line in lines:
        drawing = line.startswith(" ") and shown and not shown[-1].strip()
        if drawing and not last.startswith(" "):
            shown += ["::", ""]
        shown.append(line)
        last = line if line.strip() else last
    lines[:] = shown
