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
from kn_attrib.evaluation.report.export import export_dataset, export_leaderboard
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

    def export_leaderboard(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the leaderboard as JSON, with where its numbers come from; returns its path.

        Each method has its cost per prompt and its measures: mean, ends of the 95 % interval, number of facts. What is
        in it says the JSON Schema that `export.leaderboard_schema` returns. What is not a number is null.

        Parameters
        ----------
        overwrite : write over a file that is there.

        Raises
        ------
        ConfigError : no neurons of equal budgets were suppressed.
        StoreError : the file exists (unless ``overwrite``), or cannot be written.
        """
        return export_leaderboard(self, Path(path), overwrite)

    def export_dataset(self, folder: str | Path, license: str | None = None, overwrite: bool = False) -> Path:
        """Write the tables as a dataset that ``datasets.load_dataset(folder, name)`` reads; returns the folder.

        ``data/rows.parquet`` (the default), ``facts``, ``neurons`` and ``agreement``, each a configuration of that name
        with the one split ``train``, and the card ``README.md``. Of the facts there are ids and relations, no texts:
        these may be under a licence of their own.

        Parameters
        ----------
        license : of the dataset, for its card, such as ``"cc-by-4.0"``; yours to choose. None leaves it out.
        overwrite : write over what the folder holds.

        Raises
        ------
        StoreError : the folder holds something (unless ``overwrite``), or cannot be written.
        """
        return export_dataset(self, Path(folder), license, overwrite)

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
