"""The HTML report: one self-contained file, no scripts, nothing loaded from elsewhere; and tables as HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from kn_attrib.evaluation.figures import CAPTIONS, FIGURES
from kn_attrib.evaluation.leaderboard import leaderboard_text
from kn_attrib.evaluation.selection import REASONS
from kn_attrib.store import write_text

if TYPE_CHECKING:
    from kn_attrib.evaluation.comparison import Comparison


def environment() -> Environment:
    """Templates with everything escaped and undefined names refused."""
    return Environment(
        loader=PackageLoader("kn_attrib.evaluation", "templates"), autoescape=True, undefined=StrictUndefined
    )


def write_report(comparison: Comparison, path: Path, figures: Mapping[str, Figure]) -> Path:
    """Write the report of a comparison to one HTML file."""
    tables = [
        (title, comparison.table(intervention, selection))
        for intervention, title in (("suppress", "Suppression (×0)"), ("amplify", _amplification(comparison)))
        for selection in ("refined",)
    ]
    budgets = [(s, comparison.table("suppress", s)) for s in comparison.selections if s != "refined"]
    html = (
        environment()
        .get_template("report.html")
        .render(
            comparison=comparison,
            manifest=comparison.manifest,
            tables=tables,
            budgets=budgets,
            leaderboard=leaderboard_text(comparison) if budgets and comparison.methods else None,
            other_metrics=_other_metrics(comparison),
            figures=[(name, CAPTIONS[name], svg(figures.get(name) or comparison.plot(name), name)) for name in FIGURES],
            status=_status(comparison.facts),
            used=comparison.facts[comparison.facts.status == "used"].to_dict("records"),
        )
    )
    write_text(path, html)
    return path


def table_html(comparison: Comparison) -> str:
    """The suppression table with its precondition, for notebooks."""
    template = environment().get_template("table.html")
    return template.render(comparison=comparison, table=comparison.table())


def svg(figure: Figure, name: str) -> Markup:
    """A figure as inline SVG: ids made unique to the figure, XML prologue and the link to a DTD removed."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    return Markup(text)  # made by matplotlib from numbers and escaped labels


def _amplification(comparison: Comparison) -> str:
    return f"Amplification (×{comparison.manifest['settings']['factor']:g})"


def _other_metrics(comparison: Comparison) -> list[tuple[str, pd.DataFrame]]:
    names = {
        "mean_relative_change": "Mean over prompts of the relative change (mean of ratios)",
        "delta_logprob": "Change of log p(answer), nats",
        "flip": "Share of prompts whose most likely token changes",
    }
    return [(title, comparison.table(metric=metric)) for metric, title in names.items()]


def _status(facts: pd.DataFrame) -> list[dict[str, Any]]:
    counts = facts.status.value_counts()
    return [
        {"status": status, "n": int(counts[status]), "reason": reason}
        for status, reason in REASONS.items()
        if status in counts
    ]
