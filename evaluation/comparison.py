"""The result of a comparison: flat rows, and tables, figures and a report made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kn_attrib.errors import ConfigError, StoreError, unknown
from kn_attrib.evaluation.controls import CONTROLS, GROUPS
from kn_attrib.evaluation.journal import Journal
from kn_attrib.evaluation.statistics import summarise
from kn_attrib.store import read_run, write_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = ("rows", "facts", "neurons", "agreement")
AGREEMENT = ["fact", "relation", "method", "other", "value"]
CELL = ["method", "selection", "neurons", "intervention", "group", "metric"]
HEADLINE = "relative_change"
WHOLE_FFN, DROPOUT = "whole_ffn", "dropout"
"""Rows that belong to no method: all neurons at zero (of all layers, of each), and random shares of them."""
NO_CLAIM_BELOW = 0.20
"""If removing every feed-forward neuron at the answer position costs less than this share of the answer's probability
(upper end of the interval), single neurons cannot be said to carry facts in this model."""


@dataclass(frozen=True)
class Comparison:
    """Methods compared on the same facts.

    Attributes
    ----------
    rows : one row per ``(fact, method, selection, neurons, intervention, group, metric)`` with its ``value``.
    facts : one row per fact given: used or why not, prompts, what the model knows.
    neurons : one row per selected neuron ``(method, selection, fact, relation, layer, neuron)``.
    manifest : model, data hash, settings, methods with parameters and cost, versions, seed.
    agreement : rank correlations of methods, fact by fact (see `agreement`).
    """

    rows: pd.DataFrame
    facts: pd.DataFrame
    neurons: pd.DataFrame
    manifest: dict[str, Any]
    agreement: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=AGREEMENT))

    def __repr__(self) -> str:
        return (
            f"Comparison({self.manifest['model']['name']}: {len(self.methods)} methods, "
            f"{int((self.facts.status == 'used').sum())} facts, {len(self.rows)} rows)"
        )

    def _repr_html_(self) -> str:
        from kn_attrib.evaluation.report import table_html

        return table_html(self)

    @property
    def methods(self) -> list[str]:
        """Method labels in the order given."""
        return [m["method"] for m in self.manifest["methods"]]

    @property
    def selections(self) -> list[str]:
        """``"refined"`` and ``"k=…"``."""
        return [s for s in self.rows.selection.unique() if s == "refined" or s.startswith("k=")]

    @property
    def interventions(self) -> list[str]:
        """Interventions that were measured, in the order asked for."""
        return list(self.manifest["settings"].get("interventions", ("suppress", "amplify")))

    @property
    def complete(self) -> bool:
        """The run finished; if not, the rows of the methods that were done are here."""
        return bool(self.manifest["complete"])

    def to_frame(self) -> pd.DataFrame:
        """The flat rows (a copy)."""
        frame: pd.DataFrame = self.rows.copy()
        return frame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Mean over facts (within relations, then over relations), 95 % interval and n of every cell.

        Facts for which a method selected no neuron count with effect 0; ``empty`` says how many they are.
        """
        wide = self.rows.pivot_table(index=["fact", "relation"], columns=CELL, values="value", sort=False)
        relations = wide.index.get_level_values("relation").to_series().reset_index(drop=True)
        result = summarise(wide.reset_index(drop=True), relations, seed=self.manifest["settings"]["seed"])
        cells = self.rows.groupby(CELL, sort=False).n_neurons
        result["n_neurons"] = cells.mean()
        result["empty"] = cells.agg(lambda sizes: int((sizes == 0).sum()))
        summary: pd.DataFrame = result.reset_index()
        return summary

    def cell(self, **where: str) -> pd.DataFrame:
        """Rows of `summary` with the given column values (``metric`` defaults to the relative change)."""
        found = self.summary
        for column, value in ({"metric": HEADLINE} | where).items():
            if column not in CELL:
                raise ConfigError(unknown("column", column, CELL))
            found = found[found[column] == value]
        return found

    def table(self, intervention: str = "suppress", selection: str = "refined", metric: str = HEADLINE) -> pd.DataFrame:
        """Methods × groups, and the random controls of the target: mean with 95 % interval as text.

        Parameters
        ----------
        intervention : ``"suppress"`` or ``"amplify"``.
        selection : ``"refined"`` or ``"k=5"`` and the like.
        metric : e.g. ``"relative_change"``, ``"mean_relative_change"``, ``"delta_logprob"``, ``"flip"``.

        Raises
        ------
        ConfigError : one of them was not measured.
        """
        return self._table(intervention, selection, metric, [*GROUPS, *CONTROLS[:2]])

    def control_table(self, intervention: str = "suppress", metric: str = HEADLINE) -> pd.DataFrame:
        """Refined sets: methods × control neurons, all on the facts themselves (parameters as in `table`)."""
        return self._table(intervention, "refined", metric, ["target", *CONTROLS])

    def _table(self, intervention: str, selection: str, metric: str, columns: Sequence[str]) -> pd.DataFrame:
        for kind, value, known in (
            ("intervention", intervention, self.rows.intervention.unique()),
            ("selection", selection, self.selections),
            ("metric", metric, self.rows.metric.unique()),
        ):
            if value not in known:
                raise ConfigError(unknown(kind, value, known))
        found = self.cell(intervention=intervention, selection=selection, metric=metric)
        found = found[found.method.isin(self.methods)]
        own = found[found.neurons == "method"].assign(column=lambda f: f.group)
        random = found[(found.neurons != "method") & (found.group == "target")].assign(column=lambda f: f.neurons)
        percent = metric in ("relative_change", "mean_relative_change", "flip")
        cells = pd.concat([own, random])
        cells["text"] = [interval_text(r.mean, r.low, r.high, percent) for r in cells.itertuples()]
        table = cells.set_index(["method", "column"]).text.unstack().reindex(self.methods)  # noqa: PD010  # no duplicates
        sizes = own[own.group == "target"].set_index("method")
        table.insert(0, "neurons", sizes.n_neurons.reindex(table.index).map("{:.1f}".format, na_action="ignore"))
        table.insert(1, "none", sizes["empty"].reindex(table.index).map("{:.0f}".format, na_action="ignore"))
        ordered: pd.DataFrame = (
            table[[c for c in ["neurons", "none", *columns] if c in table]].fillna("–").rename_axis(columns=None)
        )
        return ordered

    def leaderboard(self) -> pd.DataFrame:
        """Methods at equal budgets: cost, suppression, and share of what direct search reaches (see `leaderboard`)."""
        from kn_attrib.evaluation.leaderboard import leaderboard

        return leaderboard(self)

    @property
    def precondition(self) -> dict[str, float]:
        """Relative change of p(answer) when the whole FFN is silent at the answer: ``mean, low, high, n``."""
        row = self.cell(method=WHOLE_FFN, selection="all").iloc[0]
        return {name: float(row[name]) for name in ("mean", "low", "high", "n")}

    @property
    def claim_possible(self) -> bool:
        """The feed-forward blocks carry enough of the answers for claims about single neurons."""
        return self.precondition["high"] < -NO_CLAIM_BELOW

    def verdict(self) -> str:
        """The precondition in words."""
        p = self.precondition
        text = interval_text(p["mean"], p["low"], p["high"], percent=True)
        start = (
            f"Silencing all feed-forward neurons at the answer position changes p(answer) by {text} (n = {p['n']:.0f})."
        )
        if self.claim_possible:
            return f"{start} The feed-forward blocks carry enough of these answers for claims about neurons."
        return (
            f"{start} That is not clearly a loss of more than {NO_CLAIM_BELOW:.0%}, so no neuron claim can be made for "
            "this model: the answers are carried elsewhere."
        )

    def plot(self, kind: str = "suppress") -> Figure:
        """One figure: an intervention's name, ``"budgets"``, ``"controls"``, ``"layers"`` or ``"overlap"``.

        Raises
        ------
        ConfigError : unknown figure.
        """
        from kn_attrib.evaluation.figures import figures_of

        known = figures_of(self)
        if kind not in known:
            raise ConfigError(unknown("figure", kind, known))
        return known[kind]()

    def report(self, path: str | Path, figures: Mapping[str, Figure] | None = None) -> Path:
        """Write a self-contained HTML report; returns its path.

        Parameters
        ----------
        figures : by name, where they are drawn already.
        """
        from kn_attrib.evaluation.report import write_report

        return write_report(self, Path(path), figures or {})

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write rows, facts, neurons (Parquet) and ``manifest.json``; returns the folder.

        Raises
        ------
        StoreError : the folder holds another run (unless ``overwrite``), or cannot be written.
        """
        target = check_folder(Path(folder), overwrite)
        return write_run(target, {name: getattr(self, name) for name in FRAMES}, self.manifest)

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the folder does not hold a saved comparison.
        """
        frames, manifest = read_run(Path(folder), FRAMES, "comparison")
        return cls(**frames, manifest=manifest)


def check_folder(folder: Path, overwrite: bool) -> Path:
    """The folder, if a run may be written there: it is empty, holds an unfinished run, or is to be written over.

    Raises
    ------
    StoreError : it exists and holds something else.
    """
    if folder.is_file():
        raise StoreError(f"{folder} is a file; expected a folder to write to.")
    if not overwrite and not Journal(folder).started and folder.is_dir() and any(folder.iterdir()):
        what = "another run" if (folder / "manifest.json").exists() else "other files"
        raise StoreError(f"{folder} exists and holds {what}; choose another --out folder, or say --overwrite.")
    return folder


def interval_text(mean: float, low: float, high: float, percent: bool) -> str:
    """A mean with its interval as text.

    >>> interval_text(-0.387, -0.45, -0.312, percent=True)
    '−38.7 % [−45.0, −31.2]'
    >>> interval_text(-1.234, -1.4, -1.05, percent=False)
    '−1.23 [−1.40, −1.05]'
    """
    if pd.isna(mean):
        return "–"
    scale, digits, unit = (100, 1, " %") if percent else (1, 2, "")
    numbers = [f"{scale * x:+.{digits}f}".replace("-", "−") for x in (mean, low, high)]
    return f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}]"
