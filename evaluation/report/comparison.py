"""The result of a comparison: its rows, and the tables, answers, figures and report made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from kn_attrib.errors import ConfigError, unknown
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

    def plot(self, kind: str = "suppress") -> Figure:
        """One figure: an intervention's name, ``"budgets"``, ``"specificity"``, ``"controls"``, ``"layers"``
        or ``"overlap"``.

        Raises
        ------
        ConfigError : unknown figure.
        """
        known = figures_of(self)
        if kind not in known:
            raise ConfigError(unknown("figure", kind, known))
        return known[kind]()

    def report(self, path: str | Path, figures: Mapping[str, Figure] | None = None) -> Path:
        """Write a self-contained HTML report; returns its path.

        Parameters
        ----------
        figures : by name, where they are drawn already.

        Raises
        ------
        ConfigError : unknown figure.
        """
        known = figures_of(self)
        for kind in figures or {}:
            if kind not in known:
                raise ConfigError(unknown("figure", kind, known))
        return write_report(self, Path(path), figures or {})
