"""Questions about methods: whether it matters which is taken, and whether a search would do better."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.answer import Answer, Number, Panel, listed, panel, percent, points, share, signed_p
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.report.evidence import (
    LEVEL,
    effects,
    main_selection,
    mean_of,
    named,
    ratio_of,
    strongest,
)
from kn_attrib.evaluation.report.specificity import nats_beyond
from kn_attrib.evaluation.statistics.means import mean_weights, relations_of
from kn_attrib.evaluation.statistics.significance import Difference, holm, paired_difference

SEARCHES = ("greedy_ablation", "ablation")
"""Methods that search by silencing neurons; the first found is what others are held against."""
CALLED = {"greedy_ablation": "greedy direct search", "ablation": "exhaustive search of single neurons"}
"""What these are called in sentences."""
DRAWN = 10
"""Most methods in the small chart; the tables have all."""
SPELLED_OUT = 2
"""Most methods that a verdict names."""


def does_the_method_matter(comparison: ComparisonRows) -> Answer:
    """Whether the strongest method suppresses more than the others."""
    question = "Does the attribution method matter?"
    selection = main_selection(comparison)
    found = effects(comparison, selection, "method", "target", comparison.methods)
    if found.shape[1] < 2:
        alone = "One method was run; a comparison takes at least two."
        return Answer(question, alone, "unknown", "Not known: one method was run.")
    best = strongest(comparison, selection)
    others = [str(m) for m in found.columns if m != best]
    relations = relations_of(found)
    strength = found[best].to_numpy()
    gaps = {m: paired_difference(found[m].to_numpy(), strength, relations, comparison.seed) for m in others}
    corrected = dict(zip(others, holm([gap.p for gap in gaps.values()]), strict=True))
    # Those that are behind least first.
    worse, same = (
        sorted((m for m in others if (corrected[m] <= LEVEL) == apart), key=lambda m: gaps[m].mean)
        for apart in (True, False)
    )
    cell = comparison.cell(intervention="suppress", selection=selection, neurons="method", group="target")
    top = cell[cell.method == best].iloc[0]
    text = (
        f"With {named(selection)} suppressed, {best} costs the answer most: "
        f"{percent(top['mean'], top.low, top.high)} (n = {len(found)} facts of {len(set(relations))} relations). "
    )
    if worse:
        text += (
            f"{len(worse)} of {len(others)} other methods suppress less by more than chance (paired sign-flip tests "
            f"over relations, Holm-corrected, {LEVEL:.0%} level): {_with_gaps(worse, gaps, corrected)}. "
        )
    if same:
        text += f"Not told apart from it: {_with_gaps(same, gaps, corrected)}. "
    text += _most_specific(comparison, selection, best)
    verdict = "yes" if not same else "mixed" if worse else "unknown"
    short = _ahead_of(best, worse, same, gaps)
    return Answer(question, text.strip(), verdict, short, _gaps_drawn(best, selection, gaps, worse))


def _ahead_of(best: str, worse: Sequence[str], same: Sequence[str], gaps: dict[str, Difference]) -> str:
    """The verdict in a line; both lists with those that are behind least first."""
    n = len(worse) + len(same)
    if not worse and n == 1:
        return f"Not known: {best} is not told apart from {same[0]}; the difference is {points(gaps[same[0]])}."
    if not worse:
        largest = f"the largest difference, to {same[-1]}, is {points(gaps[same[-1]])}"
        return f"Not known: {best} is not told apart from any of the {n} other methods; {largest}."
    near, far = worse[0], worse[-1]
    if len(worse) == 1:
        ahead = f"suppresses more than {near}, by {points(gaps[near])}"
    else:
        whom = f"all {n} other methods" if not same else f"{len(worse)} of {n} other methods"
        ahead = f"suppresses more than {whom}, by {points(gaps[near])} ({near}) to {points(gaps[far])} ({far})"
    if not same:
        return f"Yes: {best} {ahead}."
    rest = listed(same, "or") if len(same) <= SPELLED_OUT else f"{len(same)} others"
    return f"Partly: {best} {ahead}; it is not told apart from {rest}."


def _gaps_drawn(best: str, selection: str, gaps: dict[str, Difference], worse: Sequence[str]) -> tuple[Panel, ...]:
    """How far the other methods are behind; of very many the nearest and the last."""
    behind = sorted(gaps, key=lambda m: gaps[m].mean)
    shown = behind if len(behind) <= DRAWN else [*behind[: DRAWN - 1], behind[-1]]
    caption = (
        f"How much less than {best} the others suppress, with {named(selection)}, in points of p(answer); "
        "hollow: not told apart."
    )
    if len(shown) < len(behind):
        caption += f" Of {len(behind)} the nearest {DRAWN - 1} and the last."
    return panel(caption, [Number(m, gaps[m].mean, gaps[m].low, gaps[m].high, m in worse) for m in shown], "points")


def _with_gaps(methods: Sequence[str], gaps: dict[str, Difference], p: dict[str, float]) -> str:
    """Methods with how much less they suppress."""
    return ", ".join(f"{method} (by {points(gaps[method])}, p {signed_p(p[method])})" for method in methods)


def _most_specific(comparison: ComparisonRows, selection: str, strongest: str) -> str:
    """Whose neurons cost the fact most beyond what facts of other relations lose; nothing if these were not asked."""
    found = nats_beyond(comparison, selection, comparison.methods)
    if strongest not in found or found.shape[1] < 2 or not len(found):
        return ""
    relations = relations_of(found)
    means = pd.Series(mean_weights(relations) @ found.to_numpy(), index=found.columns)
    first = str(means.idxmax())
    nats = interval_text(*mean_of(comparison, found[first]), percent=False)
    if first == strongest:
        return f"Its neurons are the most specific too: {nats} nats beyond what facts of other relations lose."
    gap = paired_difference(found[first].to_numpy(), found[strongest].to_numpy(), relations, comparison.seed)
    own = interval_text(*mean_of(comparison, found[strongest]), percent=False)
    apart = "told apart" if gap.p <= LEVEL else "not told apart"
    return (
        f"Most specific is {first}: the fact loses {nats} nats beyond what facts of other relations lose, with "
        f"{strongest} {own} ({apart}, p {signed_p(gap.p)})."
    )


def would_search_do_better(comparison: ComparisonRows) -> Answer:
    """Whether direct search suppresses more than the strongest other method."""
    question = "Would direct search do better?"
    search = next((name for name in SEARCHES if name in comparison.methods), None)
    others = [m for m in comparison.methods if m not in SEARCHES]
    if search is None or not others:
        missing = f"Not measured: add {SEARCHES[0]} to the methods."
        if search is not None:
            missing = "Not measured: only searches were run."
        return Answer(question, missing, "unknown", f"Not known: {missing[0].lower()}{missing[1:]}")
    selection = main_selection(comparison)
    found = effects(comparison, selection, "method", "target", [search, *others])
    relations = relations_of(found)
    means = dict(zip(found.columns, mean_weights(relations) @ found.to_numpy(), strict=True))
    best = min(others, key=lambda m: means[m])
    gap = paired_difference(found[best].to_numpy(), found[search].to_numpy(), relations, comparison.seed)
    reached = share(*ratio_of(comparison, found[best], found[search]))
    bound = "" if search == SEARCHES[0] else " (no upper bound)"
    difference = f"{100 * gap.mean:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]".replace("-", "−")
    text = (
        f"With {named(selection)}, {best} reaches {reached} of what {CALLED[search]}{bound} suppresses; "
        f"the difference is {difference}, p {signed_p(gap.p)} (n = {gap.n})."
    )
    drawn = panel(
        f"Relative change of p(answer), with {named(selection)} suppressed.",
        [Number(m, *mean_of(comparison, found[m])) for m in (best, search)],
    ) + panel(
        f"How much less {best} suppresses, fact by fact, in points; hollow: not told apart.",
        [Number("difference", gap.mean, gap.low, gap.high, gap.p <= LEVEL)],
        "points",
    )
    if gap.p > LEVEL:
        text += " The data cannot tell them apart."
    verdict = "unknown" if gap.p > LEVEL else "yes" if gap.mean > 0 else "no"
    return Answer(question, text, verdict, _against_search(best, search, gap), drawn)


def _against_search(best: str, search: str, gap: Difference) -> str:
    """The verdict in a line."""
    called = CALLED[search]
    if gap.p > LEVEL:
        return f"Not known: {best} and {called} are not told apart; the difference is {points(gap)}."
    if gap.mean > 0:
        return f"Yes: {called} suppresses more than {best}, by {points(gap)}."
    ahead = Difference(-gap.mean, -gap.high, -gap.low, gap.n, gap.relations, gap.p)
    # Neurons that matter only together are found by neither ranking; a greedy search might.
    rest = "" if search == SEARCHES[0] else f"; {CALLED[SEARCHES[0]]} was not run"
    return f"No: {best} suppresses more than {called}, by {points(ahead)}{rest}."
