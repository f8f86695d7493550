"""The sceptic's questions, answered in words from the rows of a comparison, with intervals and numbers of facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows, rows_with
from kn_attrib.evaluation.report.specificity import nats_beyond, specificity
from kn_attrib.evaluation.statistics.means import mean_interval, mean_weights, ratio_interval, relations_of
from kn_attrib.evaluation.statistics.significance import Difference, equivalence_test, holm, paired_difference
from kn_attrib.evaluation.vocabulary import DROPOUT, HEADLINE, SPECIFIC, WHOLE_FFN
from kn_attrib.scoring.refinement import GENERAL

LEVEL, MARGIN = 0.05, 0.05
"""Level of all tests, and the change of p(answer) that still counts as none."""
MOSTLY, HARDLY = 0.5, 0.25
"""Shares of the effect on the fact itself above and below which a control group is said to move with it."""
SEARCHES = ("greedy_ablation", "ablation")
"""Methods that search by silencing neurons; the first found is what others are held against."""
OF = {"same_object": "the answer word", "same_subject": "the subject", "same_relation": "the relation"}
"""Control groups and what neurons are of that change them as they change the fact."""


@dataclass(frozen=True)
class Answer:
    """One question and what the rows say.

    Attributes
    ----------
    question, answer : in words.
    verdict : ``"yes"``, ``"no"``, ``"mixed"`` or ``"unknown"``.
    """

    question: str
    answer: str
    verdict: str


def answers(comparison: ComparisonRows) -> list[Answer]:
    """The five questions; without suppression, or without a single row, there is nothing to answer."""
    if not len(comparison.rows) or "suppress" not in comparison.interventions:
        return []
    found = [
        _does_the_method_matter(comparison),
        _whose_neurons(comparison),
        _anything_else(comparison),
        _would_search_do_better(comparison),
    ]
    if not comparison.claim_possible:
        p = comparison.precondition
        carried = _percent(p["mean"], p["low"], p["high"])
        why = f"No claim possible: all feed-forward neurons together carry {carried} of p(answer)."
        found = [Answer(a.question, f"{why} For the record: {a.answer}", "unknown") for a in found]
    return [*found, _how_much_do_they_carry(comparison)]


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


def _main_selection(comparison: ComparisonRows) -> str:
    """The largest budget that all methods have, or the refined sets."""
    by_method = comparison.rows[comparison.rows.method.isin(comparison.methods)].groupby("selection").method.nunique()
    budgets = [s for s in comparison.budgets if by_method[s] == len(comparison.methods)]
    return budgets[-1] if budgets else "refined"


def strongest(comparison: ComparisonRows, selection: str) -> str:
    """The method whose neurons' suppression costs the fact most."""
    found = effects(comparison, selection, "method", "target", comparison.methods)
    means = mean_weights(relations_of(found)) @ found.to_numpy()
    return str(found.columns[int(np.argmin(means))])


def _does_the_method_matter(comparison: ComparisonRows) -> Answer:
    question = "Does the attribution method matter?"
    selection = _main_selection(comparison)
    found = effects(comparison, selection, "method", "target", comparison.methods)
    if found.shape[1] < 2:
        return Answer(question, "One method was run; a comparison takes at least two.", "unknown")
    best = strongest(comparison, selection)
    others = [str(m) for m in found.columns if m != best]
    relations = relations_of(found)
    strength = found[best].to_numpy()
    gaps = {m: paired_difference(found[m].to_numpy(), strength, relations, comparison.seed) for m in others}
    corrected = dict(zip(others, holm([gap.p for gap in gaps.values()]), strict=True))
    worse = [m for m in others if corrected[m] <= LEVEL]
    same = [m for m in others if corrected[m] > LEVEL]
    cell = comparison.cell(intervention="suppress", selection=selection, neurons="method", group="target")
    top = cell[cell.method == best].iloc[0]
    text = (
        f"With {_named(selection)} suppressed, {best} costs the answer most: "
        f"{_percent(top['mean'], top.low, top.high)} (n = {len(found)} facts of {len(set(relations))} relations). "
    )
    if worse:
        text += (
            f"{len(worse)} of {len(others)} other methods suppress less by more than chance (paired sign-flip tests "
            f"over relations, Holm-corrected, {LEVEL:.0%} level): {_listed(worse, gaps, corrected)}. "
        )
    if same:
        text += f"Not told apart from it: {_listed(same, gaps, corrected)}. "
    text += _most_specific(comparison, selection, best)
    if not same:
        return Answer(question, text.strip(), "yes")
    return Answer(question, text.strip(), "mixed" if worse else "unknown")


def _most_specific(comparison: ComparisonRows, selection: str, strongest: str) -> str:
    """Whose neurons cost the fact most beyond what facts of other relations lose; nothing if these were not asked."""
    found = nats_beyond(comparison, selection, comparison.methods)
    if strongest not in found or found.shape[1] < 2 or not len(found):
        return ""
    relations = relations_of(found)
    means = pd.Series(mean_weights(relations) @ found.to_numpy(), index=found.columns)
    first = str(means.idxmax())
    nats = interval_text(*mean_interval(found[first].to_numpy(), relations, comparison.seed), percent=False)
    if first == strongest:
        return f"Its neurons are the most specific too: {nats} nats beyond what facts of other relations lose."
    gap = paired_difference(found[first].to_numpy(), found[strongest].to_numpy(), relations, comparison.seed)
    own = interval_text(*mean_interval(found[strongest].to_numpy(), relations, comparison.seed), percent=False)
    apart = "told apart" if gap.p <= LEVEL else "not told apart"
    return (
        f"Most specific is {first}: the fact loses {nats} nats beyond what facts of other relations lose, with "
        f"{strongest} {own} ({apart}, p {_p(gap.p)})."
    )


def _listed(methods: Sequence[str], gaps: dict[str, Difference], p: dict[str, float]) -> str:
    """Methods with how much less they suppress, those that are behind least first."""
    parts = []
    for method in sorted(methods, key=lambda m: gaps[m].mean):
        gap = gaps[method]
        size = f"{100 * gap.mean:.1f} points [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"
        parts.append(f"{method} (by {size}, p {_p(p[method])})".replace("-", "−"))
    return ", ".join(parts)


def _whose_neurons(comparison: ComparisonRows) -> Answer:
    first, last = [f"of {name}" for name in OF.values()][:-1], list(OF.values())[-1]
    question = f"Are these neurons of the fact, {', '.join(first)}, or of {last}?"
    best = strongest(comparison, "refined")
    target = effects(comparison, "refined", "method", "target", [best])
    parts, moved, partly = [], [], []
    for group, name in OF.items():
        other = effects(comparison, "refined", "method", group, [best])
        shared = target.index.intersection(other.index)
        if not len(shared):
            parts.append(f"{name}: no such facts")
            continue
        change = _percent(*_mean_interval(comparison, other.loc[shared]))
        share, low, high = _ratio(comparison, other.loc[shared, best], target.loc[shared, best])
        part = f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of the fact's own change (n = {len(shared)})"
        parts.append(f"other facts with {name} move by {change}, which is {part}".replace("-", "−"))
        if low > MOSTLY:
            moved.append(name)
        elif high > HARDLY:
            partly.append(name)
    own = _percent(*_mean_interval(comparison, target))
    text = f"{best}'s refined neurons change the fact itself by {own} (n = {len(target)}); {'; '.join(parts)}."
    if moved:
        return Answer(question, f"{text} So they are mostly neurons of {_and(moved)}, not of the fact.", "no")
    if partly:
        return Answer(question, f"{text} So they are partly neurons of {_and(partly)}.", "mixed")
    return Answer(question, f"{text} So they belong to the fact more than to any of these.", "yes")


def _anything_else(comparison: ComparisonRows) -> Answer:
    question = "Do they carry anything else?"
    best = strongest(comparison, "refined")
    parts, unmoved = [], []
    for neurons, group, metric, name in (
        ("method", "other_relation", HEADLINE, "facts of other relations change by"),
        # Plain words may be hardly expected; ratios of tiny probabilities say nothing, log-probabilities do.
        ("method", "plain_text", "delta_logprob", "the log-probability of plain words changes by"),
        ("random", "target", HEADLINE, "the fact itself, with equally many random neurons instead, changes by"),
        ("random_matched", "target", HEADLINE, "with equally active and strong neurons by"),
    ):
        found = effects(comparison, "refined", neurons, group, [best], metric)
        if not len(found):
            continue
        percent = metric == HEADLINE
        change = interval_text(*_mean_interval(comparison, found), percent)
        p = equivalence_test(found[best].to_numpy(), relations_of(found), MARGIN)
        within = "within" if p <= LEVEL else "not shown to be within"
        margin = f"±{MARGIN:.0%}" if percent else f"±{MARGIN} nats"
        parts.append(f"{name} {change}, {within} {margin} (equivalence p {_p(p)}, n = {len(found)})")
        # What control neurons do is said for comparison; the answer is about the method's own.
        if neurons == "method":
            unmoved.append(p <= LEVEL)
    text = f"Suppressing {best}'s refined neurons: {'; '.join(parts)}.{_how_specific(comparison, best)}"
    general = _general(comparison, best)
    if general:
        return Answer(question, f"{text} {general}{_what_is_left(comparison, best)}", "yes")
    if not unmoved:
        return Answer(question, text, "unknown")
    return Answer(question, text, "no" if all(unmoved) else "mixed")


def _general(comparison: ComparisonRows, method: str) -> str:
    """That facts of other relations fall, where the whole interval says so; else nothing."""
    found = effects(comparison, "refined", "method", "other_relation", [method])
    if not len(found):
        return ""
    mean, low, high = _mean_interval(comparison, found)
    if high >= -MARGIN:
        return ""
    fall = f"{-100 * mean:.0f} % [{-100 * high:.0f}, {-100 * low:.0f}]"
    return f"So other facts fall by {fall}: general machinery, not of this fact alone."


def _what_is_left(comparison: ComparisonRows, method: str) -> str:
    """What the refined neurons do once those are removed that many facts of other relations have as well."""
    left = effects(comparison, SPECIFIC, "method", "target", [method])
    others = effects(comparison, SPECIFIC, "method", "other_relation", [method])
    if not len(left) or not len(others):
        return ""
    sizes = comparison.cell(method=method, neurons="method", group="target", intervention="suppress")
    number = sizes.set_index("selection").n_neurons
    own, other = (_percent(*_mean_interval(comparison, each)) for each in (left, others))
    return (
        f" Without neurons that are refined for more than {GENERAL:.0%} of the facts of other relations too, "
        f"{number[SPECIFIC]:.1f} of {number['refined']:.1f} are left: the fact changes by {own}, other relations by "
        f"{other}."
    )


def _how_specific(comparison: ComparisonRows, method: str) -> str:
    """What the fact loses beyond facts of other relations, in nats; nothing where none of them were asked."""
    found = specificity(comparison, methods=[method], selections=["refined"])
    if not len(found):
        return ""
    row = found.iloc[0]
    nats = interval_text(row.nats, row.low, row.high, percent=False)
    more = "more than" if row.low > 0 else "not shown to be more than"
    return f" Specificity: the fact itself loses {nats} nats of log-probability beyond what they lose ({more} nothing)."


def _would_search_do_better(comparison: ComparisonRows) -> Answer:
    question = "Would direct search do better?"
    search = next((name for name in SEARCHES if name in comparison.methods), None)
    others = [m for m in comparison.methods if m not in SEARCHES]
    if search is None or not others:
        return Answer(question, f"Not measured: add {SEARCHES[0]} to the methods.", "unknown")
    selection = _main_selection(comparison)
    found = effects(comparison, selection, "method", "target", [search, *others])
    relations = relations_of(found)
    means = dict(zip(found.columns, mean_weights(relations) @ found.to_numpy(), strict=True))
    best = min(others, key=lambda m: means[m])
    gap = paired_difference(found[best].to_numpy(), found[search].to_numpy(), relations, comparison.seed)
    share, low, high = _ratio(comparison, found[best], found[search])
    what = "greedy direct search" if search == SEARCHES[0] else "exhaustive search of single neurons (no upper bound)"
    reached = f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    difference = f"{100 * gap.mean:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
    text = (
        f"With {_named(selection)}, {best} reaches {reached} of what {what} suppresses; "
        f"the difference is {difference}, p {_p(gap.p)} (n = {gap.n})."
    ).replace("-", "−")
    if gap.p > LEVEL:
        return Answer(question, text + " The data cannot tell them apart.", "unknown")
    return Answer(question, text, "yes" if gap.mean > 0 else "no")


def _how_much_do_they_carry(comparison: ComparisonRows) -> Answer:
    question = "How much of the answer do the feed-forward blocks carry at all?"
    cells = comparison.cell(method=WHOLE_FFN, group="target")
    layers = cells[cells.selection.str.startswith("layer")]
    text = f"{comparison.verdict()}{_blocks_beyond(comparison)}"
    if len(layers):
        row = layers.loc[layers["mean"].idxmin()]
        text += f" Of single layers, {row.selection} matters most: {_percent(row['mean'], row.low, row.high)}."
    dropped = comparison.cell(method=DROPOUT, group="target")
    if len(dropped):
        row = dropped.iloc[-1]
        change = _percent(row["mean"], row.low, row.high)
        text += f" A random {float(row.selection):.0%} of all neurons: {change}."
    return Answer(question, text, "yes" if comparison.claim_possible else "no")


def _blocks_beyond(comparison: ComparisonRows) -> str:
    """Whether all blocks carry this fact beyond the rest; nothing where facts of other relations were not asked."""
    others = comparison.cell(method=WHOLE_FFN, selection="all", group="other_relation")
    found = specificity(comparison, methods=[WHOLE_FFN], selections=["all"])
    if not len(others) or not len(found):
        return ""
    change = _percent(*others.iloc[0][["mean", "low", "high"]])
    row = found.iloc[0]
    nats = interval_text(row.nats, row.low, row.high, percent=False)
    more = "more" if row.low > 0 else "not shown to be more"
    return (
        f" Facts of other relations change by {change}: the blocks carry {nats} nats of this fact beyond these ({more} "
        "than of any text)."
    )


def _mean_interval(comparison: ComparisonRows, frame: pd.DataFrame) -> tuple[float, float, float]:
    """Mean and 95 % interval of a frame's only column."""
    return mean_interval(frame.iloc[:, 0].to_numpy(), relations_of(frame), comparison.seed)


def _ratio(comparison: ComparisonRows, part: pd.Series, whole: pd.Series) -> tuple[float, float, float]:
    """A ratio of means on the same facts, with its 95 % interval from paired resamples."""
    return ratio_interval(part.to_numpy(dtype=float), whole.to_numpy(dtype=float), relations_of(part), comparison.seed)


def _and(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _named(selection: str) -> str:
    return "each method's refined neurons" if selection == "refined" else f"{selection[2:]} neurons of each method"


def _percent(mean: float, low: float, high: float) -> str:
    return interval_text(mean, low, high, percent=True)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
