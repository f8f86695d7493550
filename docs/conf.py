"""How Sphinx makes the site of these pages; `sphinx-build -W -b html docs OUT` needs no network."""

from __future__ import annotations

import re

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from kn_attrib import __version__

project = "kn_attrib"
author = "the kn_attrib authors"
release = version = __version__
html_title = f"kn_attrib {__version__}"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]

# The pages are read on a code host too: its rules of anchors, so that `methods.md#layer_conductance` works in both.
myst_heading_anchors = 3

# Docstrings say `name` for a name of the package; one that has no entry here stays plain text.
default_role = "py:obj"
suppress_warnings = ["ref.python"]  # a plain word of a sentence that is a name of two classes
napoleon_google_docstring = False
napoleon_use_ivar = True  # fields of dataclasses as a list, not as entries that autodoc makes a second time
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

LISTS = ("Parameters", "Attributes", "Raises", "Warns")


def put_meanings_below(
    app: Sphinx, what: str, name: str, obj: object, options: dict[str, object], lines: list[str]
) -> None:
    """Docstrings say ``name : what it means``; napoleon takes what stands behind a colon for a type."""
    found: list[str] = []
    section = ""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following and set(following) == {"-"}:
            section = line
        entry = re.fullmatch(r"(\S.*?) : (.+)", line) if section in LISTS else None
        found += [entry[1], "    " + entry[2]] if entry else [line]
    lines[:] = found


def setup(app: Sphinx) -> None:
    """Docstrings before napoleon reads them; the diagram of architecture.md as text, as drawing it takes a script."""
    app.connect("autodoc-process-docstring", put_meanings_below, priority=400)
    app.add_lexer("mermaid", TextLexer)
