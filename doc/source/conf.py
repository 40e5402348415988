# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds these pages: ``tox -e docs``."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import subprocess
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

project = "imagecache"
author = "the imagecache developers"
project_copyright = author
release = version = importlib.metadata.version("imagecache")

extensions = [
    "cliff.sphinxext",
    "oslo_config.sphinxext",
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
    "--help", "-f", "--column", "--quote", "--noindent", "--prefix",
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
    app.connect("autodoc-process-signature", show_aliases)
    if has_whole_history():
        app.setup_extension("reno.sphinxext")
    else:
        app.add_directive("release-notes", NoReleaseNotes)


def has_whole_history() -> bool:
    """Return whether the clone is complete; reno reads all commits."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--is-shallow-repository"],  # noqa: S607
            cwd=pathlib.Path(__file__).parent,
            capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False
    return done.stdout.strip() == "false"


class NoReleaseNotes(Directive):
    """Replaces reno's directive in a shallow clone or an archive."""

    def run(self) -> list[nodes.Node]:
        return [nodes.paragraph("", "These pages were built without git's"
                                " history, from which the release notes are"
                                " made.")]


def show_drawings(app: Any, what: str, name: str, thing: object,
                  options: object, lines: list[str]) -> None:
    """Show an indented block after a blank line as a literal block.

    In this project's docstrings such a block is a drawing, or code.
    """
    shown: list[str] = []
    last = ""     # the last line that is not blank
    for line in lines:
        drawing = line.startswith(" ") and shown and not shown[-1].strip()
        if drawing and not last.startswith(" ") and not last.endswith("::"):
            shown += ["::", ""]
        shown.append(line)
        last = line if line.strip() else last
    lines[:] = shown


def show_aliases(app: Any, what: str, name: str, thing: object,
                 options: object, signature: str | None, returns: str | None
                 ) -> tuple[str | None, str | None]:
    """Show the name of a type alias in a union of types."""
    if signature is not None:
        signature = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1",
                           signature)
    return signature, returns
