"""HTML pages: templates that escape everything, figures as files and as inline SVG, the page of an experiment."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.store import atomic_path, write_text


class Answered(Protocol):
    """A question, the answer in a line and in full, and its verdict (see `report.answer.Answer`)."""

    @property
    def question(self) -> str:
        """What is asked."""
        ...

    @property
    def short(self) -> str:
        """The verdict and the numbers that decide it, in one line."""
        ...

    @property
    def answer(self) -> str:
        """In full."""
        ...

    @property
    def verdict(self) -> str:
        """``"yes"``, ``"no"``, ``"mixed"`` or ``"unknown"``."""
        ...


class CaptionedFigure(NamedTuple):
    """A figure and what is said under it."""

    figure: Figure
    caption: str


def environment() -> Environment:
    """Templates with everything escaped and undefined names refused."""
    return Environment(
        loader=PackageLoader("kn_attrib.evaluation.records", "templates"), autoescape=True, undefined=StrictUndefined
    )


def svg(figure: Figure, name: str, alt: str = "") -> Markup:
    """A figure as inline SVG: ids made unique to the figure, XML prologue and the link to a DTD removed.

    Parameters
    ----------
    alt : what it shows, for those who do not see it; without it the figure's own texts are read out.
    """
    buffer = io.StringIO()
    # The salt makes ids the same every time; fonts are chosen when the figure is saved, too.
    with mpl.rc_context({"svg.hashsalt": "kn_attrib", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    if alt:
        text = text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    return Markup(text)  # made by matplotlib from numbers and escaped labels


def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as SVG and as PNG, under its name; drawn anew, it gives the same files."""
    for name, figure in figures.items():
        with atomic_path(folder / f"{name}.svg") as svg_file, mpl.rc_context({"svg.hashsalt": "kn_attrib"}):
            figure.savefig(svg_file, metadata={"Date": None})
        with atomic_path(folder / f"{name}.png") as png_file:
            figure.savefig(png_file, dpi=150)


def write_page(
    path: Path,
    title: str,
    tables: Iterable[TitledTable],
    figures: Mapping[str, CaptionedFigure],
    manifest: Mapping[str, Any],
    answer: Answered | None = None,
) -> Path:
    """Write the page of an experiment, one self-contained HTML file; returns its path.

    In this order: the answer to its question, if it has one; figures, tables, manifest.
    """
    drawn = [(each.caption, svg(each.figure, name, each.caption)) for name, each in figures.items()]
    template = environment().get_template("experiment.html")
    write_text(path, template.render(title=title, tables=list(tables), figures=drawn, manifest=manifest, answer=answer))
    return path
