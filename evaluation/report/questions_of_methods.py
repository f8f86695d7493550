"""Questions about methods: whether it matters which is taken, and whether a search would do better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_attrib.evaluation.records.text import interval_text, with_interval
from kn_attrib.evaluation.report.answer import Answer, Number, Panel, listed, panel, percent, points, share, signed_p
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.report.evidence import (
    LEVEL,
    effects,
    main_selection,
    mean_of,
    named,
    ratio_of,
    sample_of,
    strongest,
    why_untestable,
)
from kn_attrib.evaluation.report.specificity import nats_beyond
from kn_attrib.evaluation.statistics.means import mean_weights, relations_of
from kn_attrib.evaluation.statistics.sample import Sample
from kn_attrib.evaluation.statistics.significance import Difference, can_decide, holm, paired_difference

SEARCHES = ("greedy_ablation", "ablation")
"""Methods that search by silencing neurons; the first found is what others are held against."""
CALLED = {"greedy_ablation": "greedy direct search", "ablation": "exhaustive search of single neurons"}
"""What these are called in sentences."""
MATTERS, SEARCH_BETTER = "Does the attribution method matter?", "Would direct search do better?"
HOW_TO_ASK = {
    True: f"To ask, add {SEARCHES[0]} to the methods: it silences neuron after neuron and keeps those that cost the "
    "answer most, so it shows how much there is to find.",
    False: "To ask, add methods that rank neurons without silencing them, against which a search can be held.",
}
"""What to do where no search was run, and where nothing else was."""
NO_TEST = "No test over relations can tell them apart: {}."
DRAWN = 10
"""Most methods in the small chart; the tables have all."""
SPELLED_OUT = 2
"""Most methods that a verdict names."""


def does_the_method_matter(comparison: ComparisonRows) -> Answer:
    """Whether the strongest method suppresses more than the others."""
    selection = main_selection(comparison)
    found = effects(comparison, selection, "method", "target", comparison.methods)
    if found.shape[1] < 2:
        alone = "A comparison takes at least two: add methods, random among them."
        return Answer(MATTERS, alone, "unknown", "Not known: one method was run.")
    best, sample = strongest(comparison, selection), sample_of(found)
    cell = comparison.cell(intervention="suppress", selection=selection, neurons="method", group="target")
    top = cell[cell.method == best].iloc[0]
    change = percent(top["mean"], top.low, top.high)
    if round(top["mean"], 3) >= 0:
        short = f"Not known: no method's neurons cost the answer anything; {best}'s change it by {change} ({sample})."
        text = f"With {named(selection)} suppressed, p(answer) falls on average with none of the methods."
        return Answer(MATTERS, text, "unknown", short)
    others = [str(m) for m in found.columns if m != best]
    strength = found[best].to_numpy()
    gaps = {
        m: paired_difference(found[m].to_numpy(), strength, relations_of(found), comparison.seed)
        for m in sorted(others, key=lambda m: _mean_of(found, m))
    }
    text = (
        f"With {named(selection)} suppressed, {best} costs the answer most: {change} (n = {sample.facts} facts of "
        f"{sample.relations} relations). "
    )
    told, verdict, short, apart = _told_apart(best, gaps, sample)
    text += f"{told}{_most_specific(comparison, selection, best)}"
    return Answer(MATTERS, text.strip(), verdict, short, _gaps_drawn(best, selection, gaps, apart))


def _mean_of(found: pd.DataFrame, method: str) -> float:
    return float(mean_weights(relations_of(found)) @ found[method].to_numpy())


def _told_apart(best: str, gaps: dict[str, Difference], sample: Sample) -> tuple[str, str, str, list[str]]:
    """What the tests say of the methods, those that are behind least first: sentences, the verdict, its line, and the
    methods that are told apart."""
    if not can_decide(sample.relations, len(gaps), LEVEL):
        why = why_untestable(sample.relations, len(gaps))
        text = f"No test over relations can tell methods apart here: {why}. Differences: {_with_gaps(gaps)}. "
        return text, "unknown", f"Cannot be tested: {why}. {_by_intervals(best, gaps, sample)}", []
    corrected = dict(zip(gaps, holm([gap.p for gap in gaps.values()]), strict=True))
    worse = {m: gap for m, gap in gaps.items() if corrected[m] <= LEVEL}
    same = {m: gap for m, gap in gaps.items() if m not in worse}
    text = ""
    if worse:
        text += (
            f"{len(worse)} of {len(gaps)} other methods suppress less by more than chance (paired sign-flip tests "
            f"over relations, Holm-corrected, {LEVEL:.0%} level): {_with_gaps(worse, corrected)}. "
        )
    if same:
        text += f"Not told apart from it: {_with_gaps(same, corrected)}. "
    if not sample.enough:
        return text, "unknown", f"Not known: {sample.too_few}.", list(worse)
    verdict = "yes" if not same else "mixed" if worse else "unknown"
    return text, verdict, _ahead_of(best, worse, same, sample), list(worse)


def _by_intervals(best: str, gaps: dict[str, Difference], sample: Sample) -> str:
    """What can be said without a test: whom the intervals are clear of."""
    ahead = {m: gap for m, gap in gaps.items() if gap.low > 0}
    if sample.facts == 1:
        return f"One fact has no interval either ({sample})."
    if not ahead:
        return f"By the intervals over facts, too, {best} is ahead of no other ({sample})."
    return f"By the intervals over facts, {best} suppresses {_by_how_much(ahead, len(gaps))} ({sample})."


def _ahead_of(best: str, worse: dict[str, Difference], same: dict[str, Difference], sample: Sample) -> str:
    """The verdict in a line; both with those that are behind least first."""
    n = len(worse) + len(same)
    if not worse:
        *_, (last, gap) = same.items()
        if n == 1:
            return f"Not known: {best} is not told apart from {last}; the difference is {points(gap)} ({sample})."
        largest = f"the largest difference, to {last}, is {points(gap)} ({sample})"
        return f"Not known: {best} is not told apart from any of the {n} other methods; {largest}."
    ahead = f"{best} suppresses {_by_how_much(worse, n)} ({sample})"
    if not same:
        return f"Yes: {ahead}."
    rest = listed(list(same), "or") if len(same) <= SPELLED_OUT else f"{len(same)} others"
    return f"Partly: {ahead}; it is not told apart from {rest}."


def _by_how_much(behind: dict[str, Difference], n: int) -> str:
    """``more than poor, by …``: those that are behind, of ``n`` other methods."""
    (near, first), *_, (far, last) = [*behind.items(), *behind.items()]
    if len(behind) == 1:
        return f"more than {near}, by {points(first)}"
    whom = f"all {n} other methods" if len(behind) == n else f"{len(behind)} of {n} other methods"
    return f"more than {whom}, by {points(first)} ({near}) to {points(last)} ({far})"


def _gaps_drawn(best: str, selection: str, gaps: dict[str, Difference], worse: Sequence[str]) -> tuple[Panel, ...]:
    """How far the other methods are behind; of very many the nearest and the last."""
    behind = list(gaps)
    shown = behind if len(behind) <= DRAWN else [*behind[: DRAWN - 1], behind[-1]]
    caption = (
        f"How much less than {best} the others suppress, with {named(selection)}, in points of p(answer); "
        "hollow: not told apart."
    )
    if len(shown) < len(behind):
        caption += f" Of {len(behind)} the nearest {DRAWN - 1} and the last."
    return panel(caption, [Number(m, gaps[m].mean, gaps[m].low, gaps[m].high, m in worse) for m in shown], "points")


def _with_gaps(gaps: dict[str, Difference], p: dict[str, float] | None = None) -> str:
    """Methods with how much less they suppress, and p where it can tell anything."""
    ends = {m: "" if p is None else f", p {signed_p(p[m])}" for m in gaps}
    return ", ".join(f"{method} (by {points(gap)}{ends[method]})" for method, gap in gaps.items())


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
    apart = f"{'told apart' if gap.p <= LEVEL else 'not told apart'}, p {signed_p(gap.p)}"
    if not can_decide(gap.relations, 1, LEVEL):
        apart = "too few relations for a test"
    return (
        f"Most specific is {first}: the fact loses {nats} nats beyond what facts of other relations lose, with "
        f"{strongest} {own} ({apart})."
    )


def would_search_do_better(comparison: ComparisonRows) -> Answer:
    """Whether direct search suppresses more than the strongest other method."""
    search = next((name for name in SEARCHES if name in comparison.methods), None)
    others = [m for m in comparison.methods if m not in SEARCHES]
    if search is None or not others:
        short = f"Not known: {'no direct search was' if search is None else 'only searches were'} run."
        return Answer(SEARCH_BETTER, HOW_TO_ASK[search is None], "unknown", short)
    selection = main_selection(comparison)
    found = effects(comparison, selection, "method", "target", [search, *others])
    best = min(others, key=lambda m: _mean_of(found, m))
    gap = paired_difference(found[best].to_numpy(), found[search].to_numpy(), relations_of(found), comparison.seed)
    text = f"With {named(selection)}, {_reached(comparison, found, best, search)}; the difference is {_signed(gap)}"
    told = can_decide(gap.relations, 1, LEVEL)
    text += f", p {signed_p(gap.p)} (n = {gap.n})." if told else f" (n = {gap.n})."
    apart = told and gap.p <= LEVEL
    drawn = panel(
        f"Relative change of p(answer), with {named(selection)} suppressed.",
        [Number(m, *mean_of(comparison, found[m])) for m in (best, search)],
    ) + panel(
        f"How much less {best} suppresses, fact by fact, in points; hollow: not told apart.",
        [Number("difference", gap.mean, gap.low, gap.high, apart)],
        "points",
    )
    if not apart:
        text += " The data cannot tell them apart." if told else f" {NO_TEST.format(why_untestable(gap.relations, 1))}"
    sample = sample_of(found)
    verdict = "unknown" if not (apart and sample.enough) else "yes" if gap.mean > 0 else "no"
    return Answer(SEARCH_BETTER, text, verdict, _against_search(best, search, gap, sample), drawn)


def _reached(comparison: ComparisonRows, found: pd.DataFrame, best: str, search: str) -> str:
    """What the best other method suppresses, as a share of what the search does."""
    bound = "" if search == SEARCHES[0] else " (no upper bound)"
    ratio = ratio_of(comparison, found[best], found[search])
    if not np.isfinite(ratio[0]):
        return f"{CALLED[search]}{bound} suppresses nothing that {best} could reach a share of"
    return f"{best} reaches {share(*ratio)} of what {CALLED[search]}{bound} suppresses"


def _signed(gap: Difference) -> str:
    return with_interval(gap.mean, gap.low, gap.high, 1, " points", scale=100, signed=True)


def _against_search(best: str, search: str, gap: Difference, sample: Sample) -> str:
    """The verdict in a line."""
    called = CALLED[search]
    ahead = Difference(-gap.mean, -gap.high, -gap.low, gap.n, gap.relations, gap.p)
    if not can_decide(sample.relations, 1, LEVEL):
        why = f"Cannot be tested: {why_untestable(sample.relations, 1)}."
        if gap.low > 0 or gap.high < 0:
            first, second, by = (called, best, gap) if gap.low > 0 else (best, called, ahead)
            return (
                f"{why} By the interval over facts, {first} suppresses more than {second}, by {points(by)} ({sample})."
            )
        return f"{why} The difference is {points(gap)} ({sample})."
    if not sample.enough:
        return f"Not known: {sample.too_few}."
    if gap.p > LEVEL:
        return f"Not known: {best} and {called} are not told apart; the difference is {points(gap)} ({sample})."
    if gap.mean > 0:
        return f"Yes: {called} suppresses more than {best}, by {points(gap)} ({sample})."
    # Neurons that matter only together are found by neither ranking; a greedy search might.
    rest = "" if search == SEARCHES[0] else f"; {CALLED[SEARCHES[0]]} was not run"
    return f"No: {best} suppresses more than {called}, by {points(ahead)} ({sample}){rest}."
