"""What the answers rest on: effects of suppression fact by fact, their means and ratios."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_attrib.evaluation.records.text import FURTHER_DIGITS
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows, rows_with
from kn_attrib.evaluation.statistics.means import mean_interval, mean_weights, ratio_interval, relations_of
from kn_attrib.evaluation.statistics.sample import Sample
from kn_attrib.evaluation.statistics.significance import least_p, relations_needed
from kn_attrib.evaluation.vocabulary import HEADLINE

LEVEL, MARGIN = 0.05, 0.05
"""Level of all tests, and the change of p(answer) that still counts as none."""
DIGITS = 2 + FURTHER_DIGITS
"""Most with which a number of nats is shown."""
Interval = tuple[float, float, float]
"""A mean, and the ends of its 95 % interval; not numbers where there is none."""


def effects(
    comparison: ComparisonRows, selection: str, neurons: str, group: str, methods: Sequence[str], metric: str = HEADLINE
) -> pd.DataFrame:
    """A metric under suppression: facts (with their relation) × methods, where all have one."""
    rows = rows_with(
        comparison.rows,
        selection=selection,
        neurons=neurons,
        intervention="suppress",
        group=group,
        metric=metric,
    )
    rows = rows[rows.method.isin(methods)]
    wide = rows.pivot_table(index=["fact", "relation"], columns="method", values="value", sort=False)
    found: pd.DataFrame = wide.dropna()
    return found


def main_selection(comparison: ComparisonRows) -> str:
    """The largest budget that all methods have, or the refined sets."""
    by_method = comparison.rows[comparison.rows.method.isin(comparison.methods)].groupby("selection").method.nunique()
    budgets = [s for s in comparison.budgets if by_method[s] == len(comparison.methods)]
    return budgets[-1] if budgets else "refined"


def named(selection: str) -> str:
    """A selection in words."""
    return "each method's refined neurons" if selection == "refined" else f"{selection[2:]} neurons of each method"


def strongest(comparison: ComparisonRows, selection: str) -> str:
    """The method whose neurons' suppression costs the fact most."""
    found = effects(comparison, selection, "method", "target", comparison.methods)
    means = mean_weights(relations_of(found)) @ found.to_numpy()
    return str(found.columns[int(np.argmin(means))])


def why_strongest(comparison: ComparisonRows, best: str) -> str:
    """Why this method's refined neurons are spoken of, not those of the method first with equally many: a clause."""
    selection = main_selection(comparison)
    lost = effects(comparison, "refined", "method", "target", [best])[best]
    if len(comparison.methods) < 2 or round(mean_of(comparison, lost)[0], 3) >= 0:
        return ""
    first = strongest(comparison, selection)
    other = f"; with {named(selection)}, {first}'s do" if first != best else ""
    return f" (of all methods' refined neurons they cost the fact most{other})"


def told_from_zero(low: float) -> bool:
    """An interval's lower end is above zero, by as much as can be shown."""
    return round(low, DIGITS) > 0


def sample_of(frame: pd.DataFrame | pd.Series) -> Sample:
    """What a frame that is indexed by fact and relation rests on."""
    return Sample.of(relations_of(frame))


def why_untestable(relations: int, comparisons: int) -> str:
    """That no sign-flip test over so few relations can tell anything, and with how many one could."""
    with_all = "" if comparisons == 1 else f"with {comparisons} comparisons "
    return (
        f"{relations} relation{' allows' if relations == 1 else 's allow'} no p below {least_p(relations):.3g}; "
        f"{with_all}at least {relations_needed(comparisons, LEVEL)} are needed"
    )


def mean_of(comparison: ComparisonRows, column: pd.Series) -> Interval:
    """Mean and 95 % interval of a column that is indexed by fact and relation."""
    return mean_interval(column.to_numpy(dtype=float), relations_of(column), comparison.seed)


def ratio_of(comparison: ComparisonRows, part: pd.Series, whole: pd.Series) -> Interval:
    """A ratio of means on the same facts, with its 95 % interval from paired resamples."""
    return ratio_interval(part.to_numpy(dtype=float), whole.to_numpy(dtype=float), relations_of(part), comparison.seed)
