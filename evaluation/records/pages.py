"""HTML pages: templates that escape everything, and figures as inline SVG."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure


def environment() -> Environment:
    """Templates with everything escaped and undefined names refused."""
    return Environment(
        loader=PackageLoader("kn_attrib.evaluation.records", "templates"), autoescape=True, undefined=StrictUndefined
    )


def svg(figure: Figure, name: str) -> Markup:
    """A figure as inline SVG: ids made unique to the figure, XML prologue and the link to a DTD removed."""
    buffer = io.StringIO()
    # The salt makes ids the same every time; fonts are chosen when the figure is saved, too.
    with mpl.rc_context({"svg.hashsalt": "kn_attrib", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    return Markup(text)  # made by matplotlib from numbers and escaped labels
