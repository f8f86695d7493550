"""Specificity: what a fact loses beyond what facts of other relations lose when its neurons are silent."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kn_attrib.evaluation.report.comparison_rows import ComparisonRows, rows_with
from kn_attrib.evaluation.statistics.means import mean_interval, ratio_interval, relations_of
from kn_attrib.evaluation.vocabulary import HEADLINE

LOG = "delta_logprob"
COLUMNS = ["method", "selection", "nats", "low", "high", "share", "share_low", "share_high", "n"]


def specificity(
    comparison: ComparisonRows,
    group: str = "other_relation",
    methods: Sequence[str] | None = None,
    selections: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Per method and selection how much more the fact itself loses than a control group, under suppression.

    ``nats = mean over facts of Δlog p(group) − Δlog p(fact)``, larger = more specific, 0: the group loses as much as
    the fact does; ``share`` is the ratio of relative changes, the group's as a part of the fact's own.
    Log-probabilities are what can be compared: ratios of small probabilities explode.

    Parameters
    ----------
    group : control group; where it was not measured there are no rows.
    methods, selections : these alone; default all of the comparison's.

    Returns
    -------
    Columns ``method, selection, nats, low, high, share, share_low, share_high, n``, 95 % intervals as everywhere.
    """
    found = []
    for method in comparison.methods if methods is None else methods:
        for selection in comparison.selections if selections is None else selections:
            pairs = {metric: _pairs(comparison, method, selection, group, metric) for metric in (LOG, HEADLINE)}
            logs, shares = pairs[LOG], pairs[HEADLINE]
            if not len(logs) or not len(shares):
                continue
            nats = mean_interval((logs.group - logs.target).to_numpy(), relations_of(logs), comparison.seed)
            share = ratio_interval(
                shares.group.to_numpy(), shares.target.to_numpy(), relations_of(shares), comparison.seed
            )
            found.append([method, selection, *nats, *share, len(logs)])
    table: pd.DataFrame = pd.DataFrame(found, columns=COLUMNS)
    return table


def nats_beyond(
    comparison: ComparisonRows, selection: str, methods: Sequence[str], group: str = "other_relation"
) -> pd.DataFrame:
    """``Δlog p(group) − Δlog p(fact)`` of single facts: facts (with their relation) × methods, where all have one."""
    found = {method: _pairs(comparison, method, selection, group, LOG) for method in methods}
    columns = {method: pairs.group - pairs.target for method, pairs in found.items() if len(pairs)}
    table: pd.DataFrame = pd.DataFrame(columns).dropna()
    return table


def _pairs(comparison: ComparisonRows, method: str, selection: str, group: str, metric: str) -> pd.DataFrame:
    """A metric of the fact itself and of the group, where both were measured: columns ``target`` and ``group``."""
    rows: pd.DataFrame = rows_with(
        comparison.rows, method=method, selection=selection, neurons="method", intervention="suppress", metric=metric
    )
    wide = rows[rows.group.isin(["target", group])].pivot_table(
        index=["fact", "relation"], columns="group", values="value", sort=False
    )
    if not {"target", group} <= set(wide.columns):
        wide = pd.DataFrame(columns=["target", group])
    pairs: pd.DataFrame = wide.dropna().rename(columns={group: "group"})[["target", "group"]]
    return pairs
