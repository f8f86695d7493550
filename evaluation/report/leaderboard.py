"""Methods at equal budgets: what they cost, what they suppress, and how much of what direct search can suppress."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.records.text import interval_text, markdown
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows, rows_with
from kn_attrib.evaluation.report.specificity import specificity
from kn_attrib.evaluation.statistics.means import (
    RESAMPLES,
    mean_weights,
    percentile_interval,
    relations_of,
    resampled_weights,
)
from kn_attrib.evaluation.vocabulary import HEADLINE

SEARCH = "greedy_ablation"
"""The method whose suppression is taken for what can be reached at a budget."""
BEYOND = " beyond others"
"""Ending of the columns of specificity, in nats."""


def leaderboard(comparison: ComparisonRows, reference: str = SEARCH) -> pd.DataFrame:
    """One row per method, the strongest suppression at the largest budget first.

    Columns: ``seconds``, ``forwards`` and ``backwards`` per attribution prompt (rows through the model, and back), and
    for each budget ``k``: ``k=…``, ``k=… low``, ``k=… high`` (relative change of p(answer) on held-out prompts, mean
    and 95 % interval) and, if the reference was run, ``k=… of search`` with its interval: the method's suppression as a
    share of the reference's at the same budget, a ratio of means from paired resamples; and, where facts of other
    relations were asked, ``k=… beyond others``: how many nats of log-probability the fact loses beyond what these lose
    (see `specificity`).

    Parameters
    ----------
    reference : method that the shares refer to.
    """
    records = pd.DataFrame(comparison.manifest["methods"]).set_index("method")
    per_prompt = records[["seconds", "forwards", "backwards"]].div(records["prompts"], axis=0)
    parts = [per_prompt]
    for budget in comparison.budgets:
        parts.append(_suppression(comparison, budget))
        if reference in comparison.methods:
            parts.append(_shares(comparison, budget, reference))
        parts.append(_beyond(comparison, budget))
    table: pd.DataFrame = pd.concat(parts, axis=1).reindex(comparison.methods)
    if comparison.budgets:
        table = table.sort_values(comparison.budgets[-1])
    return table


def leaderboard_text(comparison: ComparisonRows, reference: str = SEARCH) -> pd.DataFrame:
    """`leaderboard` with effects in percent, specificity in nats, and intervals, as text."""
    numbers = leaderboard(comparison, reference)
    text: pd.DataFrame = pd.DataFrame(index=numbers.index)
    text["s / prompt"] = numbers["seconds"].map("{:.3f}".format)
    for name in ("forwards", "backwards"):
        text[f"{name} / prompt"] = numbers[name].map("{:.0f}".format)
    for column in numbers.columns:
        if f"{column} low" in numbers:
            bounds = zip(numbers[column], numbers[f"{column} low"], numbers[f"{column} high"], strict=True)
            percent = not column.endswith(BEYOND)
            text[column] = [interval_text(*bound, percent=percent).replace(" %", "") for bound in bounds]
    return text


def leaderboard_page(comparisons: Iterable[ComparisonRows]) -> str:
    """A section of Markdown for each comparison: its model, the precondition in words, and `leaderboard_text`.

    Raises
    ------
    ConfigError : a comparison has no neurons of equal budgets that were suppressed.
    """
    sections = []
    for comparison in comparisons:
        name = comparison.manifest["model"]["name"]
        if not has_leaderboard(comparison):
            raise ConfigError(
                f"the comparison on {name} suppressed no neurons of equal budgets; give compare budgets and suppress."
            )
        table = markdown(leaderboard_text(comparison))
        sections.append(f"## {name}\n\n{comparison.verdict()}\n\n{table}\n")
    return "\n".join(sections)


def has_leaderboard(comparison: ComparisonRows) -> bool:
    """Neurons of equal budgets were suppressed."""
    return "suppress" in comparison.interventions and bool(comparison.budgets)


def _suppression(comparison: ComparisonRows, budget: str) -> pd.DataFrame:
    cells = comparison.cell(intervention="suppress", selection=budget, neurons="method", group="target")
    names = {"mean": budget, "low": f"{budget} low", "high": f"{budget} high"}
    found: pd.DataFrame = cells.set_index("method")[list(names)].rename(columns=names)
    return found


def _beyond(comparison: ComparisonRows, budget: str) -> pd.DataFrame:
    found = specificity(comparison, selections=[budget]).set_index("method")
    column = f"{budget}{BEYOND}"
    names = {"nats": column, "low": f"{column} low", "high": f"{column} high"}
    chosen: pd.DataFrame = found[list(names)].rename(columns=names)
    return chosen if len(chosen) else chosen[[]]


def _shares(comparison: ComparisonRows, budget: str, reference: str) -> pd.DataFrame:
    column = f"{budget} of search"
    names = {"share": column, "low": f"{column} low", "high": f"{column} high"}
    shares: pd.DataFrame = shares_of_search(comparison, budget, reference)[list(names)].rename(columns=names)
    return shares


def shares_of_search(comparison: ComparisonRows, budget: str, reference: str) -> pd.DataFrame:
    """By method: ratio of means to the reference's, 95 % interval from resamples of the same facts, their number.

    Columns ``share, low, high, n``.
    """
    chosen = rows_with(
        comparison.rows,
        selection=budget,
        neurons="method",
        intervention="suppress",
        group="target",
        metric=HEADLINE,
    )
    wide = chosen.pivot_table(index=["fact", "relation"], columns="method", values="value", sort=False).dropna()
    relations = relations_of(wide)
    weights = resampled_weights(relations, RESAMPLES, comparison.seed)
    values = wide.to_numpy()
    at = wide.columns.get_loc(reference)
    means = mean_weights(relations) @ values
    draws = weights @ values
    with np.errstate(divide="ignore", invalid="ignore"):
        share = means / means[at]
        ratios = (draws / draws[:, [at]]).T
    share[~np.isfinite(share)] = np.nan  # of a search that has no effect
    low, high = percentile_interval(ratios, len(wide))
    shares: pd.DataFrame = pd.DataFrame({"share": share, "low": low, "high": high, "n": len(wide)}, index=wide.columns)
    return shares
