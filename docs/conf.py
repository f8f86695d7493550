"""How Sphinx makes the site of these pages; `sphinx-build -W -b html docs OUT` needs no network."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from kn_attrib import __version__

project = "kn_attrib"
author = "the kn_attrib authors"
release = version = __version__
html_title = f"kn_attrib {__version__}"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]

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


DRAWN = """```{raw} html
<div class="drawing" role="group" tabindex="0" aria-label="Diagram: which room imports from which">
%s</div>
```"""


def show_drawings(app: Sphinx, name: str, source: list[str]) -> None:
    """The drawing that diagram.py made, in place of the diagram, for which mermaid takes a script from elsewhere."""
    drawing = (Path(app.srcdir) / "figures" / "rooms.svg").read_text(encoding="utf-8")
    source[0] = re.sub(r"```mermaid\n.*?```", lambda _: DRAWN % drawing, source[0], flags=re.DOTALL)


ACCESSIBLE = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer',
    # What scrolls sideways can be scrolled by keyboard.
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    # A signature's parameters: descriptions without terms.
    "<dl>\n<dd>": '<dl role="presentation">\n<dd>',
    '</noscript>\n\n<div id="search-results">': '</noscript>\n\n<h1>Search</h1>\n<div id="search-results">',
}
"""What Sphinx and the theme write, and what screen readers and keyboards need instead."""


def make_accessible(app: Sphinx, error: Exception | None) -> None:
    """Put right what has no setting, on finished pages."""
    for page in Path(app.outdir).rglob("*.html") if error is None else ():
        html = page.read_text(encoding="utf-8")
        for written, needed in ACCESSIBLE.items():
            html = html.replace(written, needed)
        page.write_text(html, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Docstrings before napoleon reads them, the drawing before MyST does, pages when they are finished."""
    app.connect("autodoc-process-docstring", put_meanings_below, priority=400)
    app.connect("source-read", show_drawings)
    app.connect("build-finished", make_accessible)
