"""The result of a comparison: its rows, and the tables, answers, figures and report made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.records.style import canvas_for
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.report.figures import figures_of
from kn_attrib.evaluation.report.leaderboard import leaderboard
from kn_attrib.evaluation.report.page import table_html, write_report


@dataclass(frozen=True)
class Comparison(ComparisonRows):
    """Methods compared on the same facts: rows and manifest (see `ComparisonRows`), and what is made from them."""

    def __repr__(self) -> str:
        return (
            f"Comparison({self.manifest['model']['name']}: {len(self.methods)} methods, "
            f"{int((self.facts.status == 'used').sum())} facts, {len(self.rows)} rows)"
        )

    def _repr_html_(self) -> str:
        return table_html(self)

    def leaderboard(self) -> pd.DataFrame:
        """Methods at equal budgets: cost, suppression, and share of what direct search reaches (see `leaderboard`)."""
        return leaderboard(self)

    def plot(self, kind: str = "suppress", ax: Axes | None = None) -> Axes:
        """One figure: an intervention's name, ``"budgets"``, ``"specificity"``, ``"controls"``, ``"layers"``
        or ``"overlap"``.

        Parameters
        ----------
        ax : Matplotlib ``Axes`` to draw on, in the style that is set; default those of a new figure, in the package's.

        Returns
        -------
        The ``Axes`` drawn on. A new figure of an intervention may have further panels beside it: groups whose
        intervals dwarf all others' (``ax.figure.axes``); in axes that are given all groups share one.

        Raises
        ------
        ConfigError : unknown figure, or ``ax`` is something else.
        """
        known = figures_of(self)
        if kind not in known:
            raise ConfigError(unknown("figure", kind, known))
        return known[kind](canvas=canvas_for(ax))

    def report(self, path: str | Path, figures: Mapping[str, Figure] | None = None) -> Path:
        """Write a self-contained HTML report; returns its path.

        Parameters
        ----------
        figures : by name, where they are drawn already.
        """
        return write_report(self, Path(path), figures or {})
