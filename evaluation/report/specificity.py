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
    pairs = _pairs(comparison, group)
    for method in comparison.methods if methods is None else methods:
        for selection in comparison.selections if selections is None else selections:
            logs, shares = (pairs.get((method, selection, metric)) for metric in (LOG, HEADLINE))
            if logs is None or shares is None:
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
    pairs = _pairs(comparison, group)
    found = {method: pairs.get((method, selection, LOG)) for method in methods}
    columns = {method: each.group - each.target for method, each in found.items() if each is not None}
    table: pd.DataFrame = pd.DataFrame(columns).dropna()
    return table


def _pairs(comparison: ComparisonRows, group: str) -> dict[tuple[str, str, str], pd.DataFrame]:
    """By method, selection and metric: what was measured of the fact itself and of the group, where both were.

    Columns ``target`` and ``group``, one row per fact; what has no such row is not there.
    """
    rows: pd.DataFrame = rows_with(comparison.rows, neurons="method", intervention="suppress")
    rows = rows[rows.group.isin(["target", group]) & rows.metric.isin([LOG, HEADLINE])]
    of = ["method", "selection", "metric"]
    wide = rows.pivot_table(index=[*of, "fact", "relation"], columns="group", values="value", sort=False)
    if not {"target", group} <= set(wide.columns):
        return {}
    pairs = wide.dropna().rename(columns={group: "group"})[["target", "group"]]
    return {
        (str(method), str(selection), str(metric)): part.droplevel(of)
        for (method, selection, metric), part in pairs.groupby(level=of, sort=False)
    }
