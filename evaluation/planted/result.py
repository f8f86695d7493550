"""The result of a planted benchmark: flat rows, and the table, tests and figure made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.planted.axes import AXES
from kn_attrib.evaluation.planted.figure import heat_map
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.records.style import canvas_for
from kn_attrib.evaluation.records.text import with_interval
from kn_attrib.evaluation.statistics.means import relations_of, summarise_facts
from kn_attrib.evaluation.statistics.significance import holm, paired_difference

METRICS = ("average_precision", "recall_at_k", "precision", "recall", "rank")
OVERALL = "overall"
CASE = ["model", "plant", "fact", "relation"]


@dataclass(frozen=True)
class PlantedResult(Result):
    """Methods held against planted neurons.

    Attributes
    ----------
    rows : one row per ``(model, plant, axis, fact, relation, method, metric)`` with its ``value``.
    manifest : models, settings, methods with parameters and cost, versions.
    """

    rows: pd.DataFrame
    manifest: dict[str, Any]
    what: ClassVar[str] = "benchmark"

    def __repr__(self) -> str:
        cases = len(self.rows[CASE].drop_duplicates())
        return f"PlantedResult({len(self.methods)} methods, {cases} planted facts of {self.models})"

    @property
    def models(self) -> list[str]:
        """Names of the base models."""
        return [m["name"] for m in self.manifest["models"]]

    @property
    def axes(self) -> list[str]:
        """Axes that plants were run of, in the benchmark's order."""
        present = set(self.rows.axis)
        return [a for a in AXES if a in present] + sorted(present - set(AXES))

    def of(self, model: str) -> PlantedResult:
        """The part of one base model.

        Raises
        ------
        ConfigError : it was not run.
        """
        if model not in self.models:
            raise ConfigError(unknown("model of this result", model, self.models))
        chosen: pd.DataFrame = self.rows[self.rows.model == model].reset_index(drop=True)
        models = [m for m in self.manifest["models"] if m["name"] == model]
        return PlantedResult(chosen, self.manifest | {"models": models})

    def wide(self, metric: str = "average_precision", axis: str = OVERALL) -> pd.DataFrame:
        """One row per planted fact (model, plant, fact, relation), one column per method.

        Raises
        ------
        ConfigError : unknown metric or axis.
        """
        for kind, value, known in (
            ("metric", metric, self.rows.metric.unique()),
            ("axis", axis, [OVERALL, *self.axes]),
        ):
            if value not in known:
                raise ConfigError(unknown(kind, value, known))
        chosen = self.rows[self.rows.metric == metric]
        if axis != OVERALL:
            chosen = chosen[chosen.axis == axis]
        table = chosen.pivot_table(index=CASE, columns="method", values="value", sort=False)
        ordered: pd.DataFrame = table.reindex(columns=self.methods)
        return ordered

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Mean over facts (within relations, then over relations), 95 % interval, n: by metric, axis and method."""
        parts = []
        for metric in METRICS:
            for axis in (OVERALL, *self.axes):
                wide = self.wide(metric, axis)
                found = summarise_facts(wide, self.seed).rename_axis("method")
                parts.append(found.reset_index().assign(metric=metric, axis=axis))
        columns = ["metric", "axis", "method", "mean", "low", "high", "n"]
        summary: pd.DataFrame = pd.concat(parts, ignore_index=True)[columns]
        return summary

    def table(self, metric: str = "average_precision") -> pd.DataFrame:
        """Means, one row per method (the best first) and one column per axis."""
        cells = self.summary[self.summary.metric == metric]
        means = cells.pivot_table(index="method", columns="axis", values="mean", sort=False)
        ordered: pd.DataFrame = means[[OVERALL, *self.axes]].sort_values(OVERALL, ascending=metric == "rank")
        return ordered

    def table_text(self, metric: str = "average_precision") -> pd.DataFrame:
        """`table` with 95 % intervals, as text."""
        cells = self.summary[self.summary.metric == metric].set_index(["method", "axis"])
        digits = 1 if metric == "rank" else 2
        means = self.table(metric)
        text: pd.DataFrame = means.astype(object)
        for method in means.index:
            for axis in means.columns:
                mean, low, high = cells.loc[(method, axis), ["mean", "low", "high"]]
                text.loc[method, axis] = with_interval(mean, low, high, digits)
        named: pd.DataFrame = text.rename_axis(columns=None)
        return named

    def pairwise(self, reference: str = "", metric: str = "average_precision") -> pd.DataFrame:
        """Differences of the reference (default: the best method) to every other method on the same planted facts.

        Returns
        -------
        One row per other method: mean difference, 95 % interval, p of the sign-flip test, and p corrected by Holm.

        Raises
        ------
        ConfigError : the reference was not run.
        """
        order: Sequence[Any] = list(self.table(metric).index)
        chosen = reference or order[0]
        if chosen not in order:
            raise ConfigError(unknown("method of this result", chosen, order))
        wide = self.wide(metric)
        relations = relations_of(wide)
        others = [m for m in order if m != chosen]
        values = wide[chosen].to_numpy()
        found = [paired_difference(values, wide[m].to_numpy(), relations, self.seed) for m in others]
        columns = {
            "reference": chosen,
            "difference": [d.mean for d in found],
            "low": [d.low for d in found],
            "high": [d.high for d in found],
            "p": [d.p for d in found],
            "p_holm": holm([d.p for d in found]),
        }
        table: pd.DataFrame = pd.DataFrame(columns, index=pd.Index(others, name="method"))
        return table

    def plot(self, metric: str = "average_precision", ax: Axes | None = None) -> Axes:
        """Heat map of methods × axes of difficulty.

        Parameters
        ----------
        ax : Matplotlib ``Axes`` to draw on, in the style that is set; default those of a new figure, in the package's.

        Returns
        -------
        The ``Axes`` drawn on.

        Raises
        ------
        ConfigError : unknown metric, or ``ax`` is something else.
        """
        if metric not in METRICS:
            raise ConfigError(unknown("metric", metric, METRICS))
        return heat_map(self.table(metric), metric, canvas_for(ax))

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `save` writes: rows, and what follows from them."""
        return {"rows": self.rows, "summary": self.summary}
