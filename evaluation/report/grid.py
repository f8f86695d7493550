"""The result of a grid: rows under every combination of levels, and each setting's main effect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kn_attrib.errors import ConfigError, StoreError, unknown
from kn_attrib.evaluation.records.pages import environment, svg
from kn_attrib.evaluation.records.schema import check_grid, damaged
from kn_attrib.evaluation.records.style import Panels, canvas_for, figure_of
from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.comparison_rows import rows_with
from kn_attrib.evaluation.report.grid_figure import main_effects
from kn_attrib.evaluation.statistics.means import mean_interval, relations_of
from kn_attrib.evaluation.statistics.significance import holm, paired_difference
from kn_attrib.evaluation.vocabulary import HEADLINE, PERCENT
from kn_attrib.store import read_parquet, read_record, write_json, write_parquet, write_text

GRID = "grid.json"
"""Name of a grid's manifest, written last."""


@dataclass(frozen=True)
class Grid:
    """Comparisons under every combination of levels.

    Attributes
    ----------
    rows : flat rows as in `Comparison`, with a column for each factor, named as the factor is.
    manifest : factors, methods, settings, and each combination's own manifest.
    """

    rows: pd.DataFrame
    manifest: dict[str, Any]

    @property
    def factors(self) -> dict[str, list[Any]]:
        """Levels of each factor."""
        return dict(self.manifest["factors"])

    def effects(self, selection: str = "refined", metric: str = HEADLINE) -> pd.DataFrame:
        """Main effects on the facts themselves: the mean over all other factors, level by level.

        Columns: ``factor, method, level, mean, low, high, n`` and, against the factor's first level on the same facts,
        ``difference, difference_low, difference_high, p`` (sign-flip test over relations, Holm over the table).

        Parameters
        ----------
        selection : ``"refined"`` or ``"k=…"``.
        metric : see `Comparison.table`.

        Raises
        ------
        ConfigError : it was not measured.
        """
        for column, value in (("selection", selection), ("metric", metric)):
            if value not in set(self.rows[column]):
                raise ConfigError(unknown(column, value, self.rows[column].unique()))
        rows = rows_with(self.rows, selection=selection, neurons="method", group="target", metric=metric)
        rows = rows[rows.method.isin(self.manifest["methods"])]
        if "interventions" not in self.factors:
            rows = rows[rows.intervention == rows.intervention.iloc[0]]
        found = [
            self._level(rows[rows.method == method], factor, method, level)
            for factor in self.factors
            for method in self._concerned(factor)
            for level in self.factors[factor]
        ]
        table: pd.DataFrame = pd.DataFrame(found)
        compared = table.p.notna()
        table.loc[compared, "p"] = holm(table.p[compared].tolist())
        return table

    def _concerned(self, factor: str) -> list[str]:
        """Methods that a factor changes."""
        methods: list[str] = self.manifest["methods"]
        return [factor.split(".")[0]] if "." in factor else methods

    def _level(self, rows: pd.DataFrame, factor: str, method: str, level: Any) -> dict[str, Any]:
        """The row of `effects` of one method at one level."""
        seed = int(self.manifest["settings"].get("seed", 0))
        wide = rows.pivot_table(index=["fact", "relation"], columns=factor, values="value", sort=False).dropna()
        relations = relations_of(wide)
        values = wide[str(level)].to_numpy()
        mean, low, high = mean_interval(values, relations, seed)
        row = {"factor": factor, "method": method, "level": str(level), "mean": mean, "low": low, "high": high}
        row["n"] = len(values)
        first = str(self.factors[factor][0])
        if str(level) == first:
            return row | dict.fromkeys(("difference", "difference_low", "difference_high", "p"), np.nan)
        gap = paired_difference(values, wide[first].to_numpy(), relations, seed)
        return row | {"difference": gap.mean, "difference_low": gap.low, "difference_high": gap.high, "p": gap.p}

    def table(self, selection: str = "refined", metric: str = HEADLINE) -> pd.DataFrame:
        """`effects` as text."""
        found = self.effects(selection, metric)
        text: pd.DataFrame = found[["method", "level"]].set_index(pd.Index(found.factor, name="factor"))
        for title, columns in (
            ("mean [95 %]", ["mean", "low", "high"]),
            ("against the first level", ["difference", "difference_low", "difference_high"]),
        ):
            bounds = found[columns].to_numpy(dtype=float).tolist()
            text[title] = [interval_text(mean, low, high, metric in PERCENT) for mean, low, high in bounds]
        text["p (Holm)"] = ["–" if np.isnan(p) else f"{p:.3f}" for p in found.p]
        text["facts"] = found.n.tolist()
        return text

    def plot(self, selection: str = "refined", axes: Any = None) -> Panels:
        """Main effects: the mean at each level, with 95 % intervals, a panel for each factor.

        Parameters
        ----------
        axes : Matplotlib ``Axes`` to draw on, one for each factor; default those of a new figure.

        Returns
        -------
        The ``Axes``, in an array.

        Raises
        ------
        ConfigError : it was not measured, or there is another number of axes.
        """
        return main_effects(self.effects(selection), canvas_for(axes))

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML page; returns its path."""
        figure = figure_of(main_effects(self.effects()))
        image = svg(figure, "effects", "Main effects, level by level; the table below has the numbers.")
        template = environment().get_template("grid.html")
        write_text(Path(path), template.render(grid=self, table=self.table(), image=image))
        return Path(path)

    def save(self, folder: str | Path) -> Path:
        """Write ``grid.parquet`` and ``grid.json``; returns the folder."""
        write_parquet(Path(folder) / "grid.parquet", self.rows)
        write_json(Path(folder) / GRID, self.manifest)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Grid:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the folder holds no grid, or a damaged one.
        """
        source = Path(folder)
        if not (source / GRID).is_file():
            raise StoreError(f"{source} holds no grid; expected grid.json and grid.parquet.")
        rows, manifest = read_parquet(source / "grid.parquet"), read_record(source / GRID)
        try:
            check_grid(rows, manifest)
        except StoreError as error:
            raise damaged("grid", source, error) from error
        return cls(rows, manifest)
