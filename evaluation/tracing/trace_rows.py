"""The rows of a trace, and what is read off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.statistics.means import summarise_facts

TRACING, INDIRECT = "tracing", "indirect_effect"
"""In the place of a method: rows of tracing itself, and their metric."""
TRACED, WRONG = "traced", "answered wrongly"
"""Statuses of texts; others say why they cannot be traced."""
CELLS = (*("fact", "relation", "prompt", "kind", "token", "text", "layer", "low", "high", "p", "effect", "deviation"),)
"""Columns of the cells: ``p`` restored, ``effect`` = ``p`` − p(corrupted), its standard deviation over samples."""
PROMPTS = (
    *("fact", "prompt", "text", "status", "p_clean", "p_corrupted", "samples", "tokens"),
    *("subject_start", "subject_end"),
)
"""Columns of the texts; of those that could not be traced ``prompt`` is −1."""
FACTS = ("fact", "relation", "subject", "answer", "status", "prompts", "correct", "p_prompts")


@dataclass(frozen=True)
class TraceRows(Result):
    """What tracing measured.

    Attributes
    ----------
    rows : one row per number: ``fact, relation, method, kind, role, layer, metric, value``. Of method ``"tracing"``
        average indirect effects by role; of the others, and of ``"all neurons"``, what the layer's neurons are.
    cells : one row per restored state: ``fact, relation, prompt, kind, token, text, layer, low, high, p, effect,
        deviation``.
    prompts : one row per text: what was traced and what not, p(answer) clean and corrupted.
    facts : one row per fact given: used or why not.
    manifest : model, settings, window, noise, methods with their cost, versions, seed.
    """

    rows: pd.DataFrame
    cells: pd.DataFrame
    prompts: pd.DataFrame
    facts: pd.DataFrame
    manifest: dict[str, Any]
    frames: ClassVar[tuple[str, ...]] = ("rows", "cells", "prompts", "facts")
    what: ClassVar[str] = "trace"

    @property
    def kinds(self) -> list[str]:
        """The kinds of states that were restored, severed ones included."""
        return list(dict.fromkeys(self.cells.kind))

    @property
    def traced(self) -> list[str]:
        """Ids of the facts that were traced."""
        return list(dict.fromkeys(self.cells.fact))

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return int(self.manifest["model"]["layers"])

    @property
    def total_effects(self) -> pd.DataFrame:
        """p(answer) clean and corrupted and their difference by fact (mean over its prompts): mean, interval and n."""
        some = self.prompts[self.prompts.status == TRACED]
        by_fact = some.groupby("fact", sort=False)[["p_clean", "p_corrupted"]].mean()
        by_fact["total_effect"] = by_fact.p_clean - by_fact.p_corrupted
        relations = self.facts.set_index("fact").relation.reindex(by_fact.index)
        wide = by_fact.set_index([by_fact.index, relations])
        found: pd.DataFrame = summarise_facts(wide.rename_axis(["fact", "relation"]), self.seed)
        return found

    def average_effects(self, kind: str) -> pd.DataFrame:
        """Average indirect effects of a kind of state: ``role, layer, mean, low, high, n``.

        Raises
        ------
        ConfigError : the kind was not traced.
        """
        if kind not in self.kinds:
            raise ConfigError(unknown("kind", kind, self.kinds))
        found = self.summary[(self.summary.method == TRACING) & (self.summary.kind == kind)]
        kept: pd.DataFrame = found[["role", "layer", "mean", "low", "high", "n"]].reset_index(drop=True)
        return kept

    def curves(self, method: str, metric: str, kind: str, role: str) -> pd.DataFrame:
        """A quantity by layer: facts (with their relation) × layers; empty where it was not measured."""
        r = self.rows
        some = r[(r.method == method) & (r.metric == metric) & (r.kind == kind) & (r.role == role)]
        found: pd.DataFrame = some.pivot_table(index=["fact", "relation"], columns="layer", values="value", sort=False)
        kept: pd.DataFrame = found.dropna()
        return kept
