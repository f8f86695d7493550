"""The rows of a comparison, means of them, and the tables that are made from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import pandas as pd

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.statistics.means import summarise_facts
from kn_attrib.evaluation.statistics.sample import Sample
from kn_attrib.evaluation.vocabulary import AGREEMENT, CELL, CONTROLS, GROUPS, HEADLINE, PERCENT, SPECIFIC, WHOLE_FFN

NO_CLAIM_BELOW = 0.20
"""If removing every feed-forward neuron at the answer position costs less than this share of the answer's probability
(upper end of the interval), single neurons cannot be said to carry facts in this model."""


def rows_with(frame: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows of a frame that have the given values in the columns of that name."""
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


@dataclass(frozen=True)
class ComparisonRows(Result):
    """What was measured on the same facts for all methods.

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
    frames: ClassVar[tuple[str, ...]] = ("rows", "facts", "neurons", "agreement")
    what: ClassVar[str] = "comparison"

    @property
    def columns(self) -> list[str]:
        """The columns of `rows` that say what a number is of."""
        return CELL

    @property
    def selections(self) -> list[str]:
        """``"refined"``, ``"specific"`` and ``"k=…"``."""
        return [s for s in self.rows.selection.unique() if s in ("refined", SPECIFIC) or s.startswith("k=")]

    @property
    def budgets(self) -> list[str]:
        """Of the selections those of equally many neurons, the smallest first."""
        return sorted((s for s in self.selections if s.startswith("k=")), key=lambda s: int(s[2:]))

    @property
    def interventions(self) -> list[str]:
        """Interventions that were measured, in the order asked for."""
        return list(self.manifest["settings"].get("interventions", ("suppress", "amplify")))

    @property
    def complete(self) -> bool:
        """The run finished; if not, the rows of the methods that were done are here."""
        return bool(self.manifest["complete"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Mean over facts (within relations, then over relations), 95 % interval and n of every cell.

        Facts for which a method selected no neuron count with effect 0; ``empty`` says how many they are.
        """
        result = summarise_facts(self._wide(self.rows, CELL), self.seed)
        cells = self.rows.groupby(CELL, sort=False).n_neurons
        result["n_neurons"] = cells.mean()
        result["empty"] = cells.agg(lambda sizes: int((sizes == 0).sum()))
        summary: pd.DataFrame = result.reset_index()
        return summary

    def cell(self, **where: object) -> pd.DataFrame:
        """Rows of `summary` with the given column values (``metric`` defaults to the relative change)."""
        for column in where:
            if column not in CELL:
                raise ConfigError(unknown("column", column, CELL))
        return rows_with(self.summary, **({"metric": HEADLINE} | where))

    def table(self, intervention: str = "suppress", selection: str = "refined", metric: str = HEADLINE) -> pd.DataFrame:
        """Methods × groups, and the random controls of the target: mean with 95 % interval as text.

        Parameters
        ----------
        intervention : ``"suppress"`` or ``"amplify"``.
        selection : ``"refined"``, ``"specific"``, or ``"k=5"`` and the like.
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
        own = found[found.neurons == "method"]
        control = found[(found.neurons != "method") & (found.group == "target")]
        cells = pd.concat([own.assign(column=own.group), control.assign(column=control.neurons)])
        cells["text"] = [interval_text(r.mean, r.low, r.high, metric in PERCENT) for r in cells.itertuples()]
        table = cells.set_index(["method", "column"]).text.unstack().reindex(self.methods)  # noqa: PD010  # no duplicates
        sizes = own[own.group == "target"].set_index("method")
        table.insert(0, "neurons", sizes.n_neurons.reindex(table.index).map("{:.1f}".format, na_action="ignore"))
        table.insert(1, "none", sizes["empty"].reindex(table.index).map("{:.0f}".format, na_action="ignore"))
        shown = [column for column in ("neurons", "none", *columns) if column in table]
        ordered: pd.DataFrame = table[shown].fillna("–").rename_axis(columns=None)
        return ordered

    @property
    def precondition(self) -> dict[str, float]:
        """Relative change of p(answer) when the whole FFN is silent at the answer: ``mean, low, high, n``."""
        row = self.cell(method=WHOLE_FFN, selection="all", group="target").iloc[0]
        return {name: float(row[name]) for name in ("mean", "low", "high", "n")}

    @property
    def precondition_sample(self) -> Sample:
        """The facts and relations that the precondition rests on."""
        where = {"method": WHOLE_FFN, "selection": "all", "group": "target", "metric": HEADLINE}
        return Sample.of(rows_with(self.rows, **where).drop_duplicates("fact").relation.tolist())

    @property
    def claim_possible(self) -> bool:
        """The answers need the feed-forward blocks: necessary for any claim about single neurons, never sufficient."""
        return self.precondition_sample.enough and self.precondition["high"] < -NO_CLAIM_BELOW

    @property
    def claim_excluded(self) -> bool:
        """The answers are shown hardly to need the feed-forward blocks; where neither holds, it is open."""
        return self.precondition_sample.enough and self.precondition["low"] >= -NO_CLAIM_BELOW

    def verdict(self) -> str:
        """The precondition in words."""
        p = self.precondition
        change = interval_text(p["mean"], p["low"], p["high"], percent=True, marks=(-NO_CLAIM_BELOW,))
        measured = (
            f"Silencing all feed-forward neurons at the answer position changes p(answer) by {change} "
            f"(n = {p['n']:.0f})."
        )
        if self.claim_possible:
            return (
                f"{measured} These answers need the feed-forward blocks, as any text may: whether single neurons are "
                "about a fact, the other questions tell."
            )
        if self.claim_excluded:
            return (
                f"{measured} That is not clearly a loss of more than {NO_CLAIM_BELOW:.0%}, so no neuron claim can be "
                "made for this model: the answers are carried elsewhere."
            )
        sample = self.precondition_sample
        return (
            f"{measured} Whether that is a loss of more than {NO_CLAIM_BELOW:.0%}, which any neuron claim takes, is "
            f"open: {sample.too_few}."
        )
