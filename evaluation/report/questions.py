"""The sceptic's questions, answered in words from the rows of a comparison, with intervals and numbers of facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.answer import Answer, Number, listed, panel, percent, share
from kn_attrib.evaluation.report.comparison_rows import NO_CLAIM_BELOW, ComparisonRows
from kn_attrib.evaluation.report.evidence import (
    Interval,
    effects,
    mean_of,
    ratio_of,
    sample_of,
    strongest,
    told_from_zero,
    why_strongest,
)
from kn_attrib.evaluation.report.questions_of_methods import does_the_method_matter, would_search_do_better
from kn_attrib.evaluation.report.questions_of_others import anything_else
from kn_attrib.evaluation.report.specificity import specificity
from kn_attrib.evaluation.statistics.sample import Sample
from kn_attrib.evaluation.vocabulary import DROPOUT, WHOLE_FFN

__all__ = ["OF", "Answer", "answers"]

MOSTLY, HARDLY = 0.5, 0.25
"""Shares of the effect on the fact itself above and below which a control group is said to move with it."""
OF = {"same_object": "the answer word", "same_subject": "the subject", "same_relation": "the relation"}
"""Control groups and what neurons are of that change them as they change the fact."""
NOT_ITS_OWN = ". That may not be about the fact: facts of other relations are not shown to lose less"
LACKS = (
    "methods: it is not shown that there is something in neurons for them to find",
    "whose neurons they are: it is not shown that the fact itself is in any",
    "what else they carry: it is not shown that they carry the fact",
    "search: it is not shown that there is more in neurons for it to find",
)
"""What each of the first four questions lacks where all blocks together carry too little."""


def answers(comparison: ComparisonRows) -> list[Answer]:
    """The five questions; without suppression, or without a single row, there is nothing to answer."""
    if not len(comparison.rows) or "suppress" not in comparison.interventions:
        return []
    found = [
        does_the_method_matter(comparison),
        _whose_neurons(comparison),
        anything_else(comparison),
        would_search_do_better(comparison),
    ]
    # With too few facts each says so of itself.
    if comparison.precondition_sample.enough and not comparison.claim_possible:
        found = [_without_claim(comparison, each, lacks) for each, lacks in zip(found, LACKS, strict=True)]
    return [*found, _how_much_do_they_carry(comparison)]


def _without_claim(comparison: ComparisonRows, answer: Answer, lacks: str) -> Answer:
    """The same numbers, of which nothing follows."""
    carried = f"{_carried(comparison)}, {comparison.precondition_sample}"
    why = f"No claim possible: all feed-forward neurons together, when silent, change p(answer) by {carried}."
    short = f"No claim possible about {lacks} (all feed-forward neurons together: {carried})."
    return replace(answer, answer=f"{why} For the record: {answer.answer}", verdict="unknown", short=short)


class _Share(NamedTuple):
    """What other facts that share something move by, as a share of the fact's own change."""

    interval: Interval
    sample: Sample

    @property
    def text(self) -> str:
        return share(*self.interval, marks=(HARDLY, MOSTLY))


def _whose_neurons(comparison: ComparisonRows) -> Answer:
    first, last = [f"of {name}" for name in OF.values()][:-1], list(OF.values())[-1]
    question = f"Are these neurons of the fact, {', '.join(first)}, or of {last}?"
    best = strongest(comparison, "refined")
    target = effects(comparison, "refined", "method", "target", [best])[best]
    own = mean_of(comparison, target)
    parts, shares = [], {}
    for group, name in OF.items():
        other = effects(comparison, "refined", "method", group, [best])
        shared = target.index.intersection(other.index)
        if not len(shared):
            parts.append(f"{name}: no such facts")
            continue
        moves = other.loc[shared, best]
        found = _Share(ratio_of(comparison, moves, target.loc[shared]), sample_of(moves))
        part = f"other facts with {name} move by {percent(*mean_of(comparison, moves))}"
        if np.isfinite(found.interval[0]) and round(own[0], 3):  # of nothing there is no share
            shares[name] = found
            part += f", which is {found.text} of the fact's own change"
        parts.append(f"{part} (n = {len(shared)})")
    changed = (
        f"{best}'s refined neurons{why_strongest(comparison, best)} change the fact itself by {percent(*own)} "
        f"(n = {len(target)})"
    )
    drawn = panel(
        f"How far other facts move with {best}'s refined neurons suppressed, as a share of the fact's own change; "
        f"dashed: {HARDLY:.0%}, below which they do not move with it, and {MOSTLY:.0%}, above which they do.",
        [Number(f"other facts with {name}", *found.interval) for name, found in shares.items()],
        marks=(HARDLY, MOSTLY),
    )
    so, verdict, short = _whose(best, own, sample_of(target), shares)
    return Answer(question, f"{changed}; {'; '.join(parts)}. So {so}.", verdict, short, drawn)


def _whose(best: str, own: Interval, sample: Sample, shares: dict[str, _Share]) -> tuple[str, str, str]:
    """What follows from the shares that other facts move with the fact: the conclusion, the verdict, and its line."""
    if not sample.enough:
        return "nothing can be said of whose they are: " + sample.too_few, "unknown", f"Not known: {sample.too_few}."
    if not own[2] < 0:
        why = f"{best}'s refined neurons are not shown to suppress the fact itself"
        short = f"Not known: {why}: {percent(*own, marks=(0.0,))} ({sample})."
        return "they are not shown to be of the fact at all", "unknown", short
    if not shares:
        return "nothing can be said of whose they are", "unknown", "Not known: no other facts share anything with it."
    told = {name: found.interval for name, found in shares.items() if found.sample.enough}
    moved = [name for name, interval in told.items() if interval[1] > MOSTLY]
    if moved:
        so = f"they are mostly neurons of {listed(moved)}, not of the fact"
        short = f"Mostly of {listed(moved)}, not of the fact: other facts with {_as_much(moved, shares)}."
        return so, "no", short
    partly = [name for name, interval in told.items() if interval[1] > 0 and interval[2] > HARDLY]
    if partly:
        short = f"Partly of {listed(partly)}: other facts with {_as_much(partly, shares)}."
        return f"they are partly neurons of {listed(partly)}", "mixed", short
    # An interval that reaches from nothing to more than hardly decides nothing; neither does one that is not a number,
    # nor one of too few facts.
    unclear = [name for name in shares if name not in told or not told[name][2] <= HARDLY]
    if unclear:
        names = listed(unclear, "or")
        so = f"it cannot be told whether they are neurons of {names} as well"
        return so, "unknown", f"Not known whether also of {names}: other facts with {_as_much(unclear, shares)}."
    return "they belong to the fact more than to any of these", "yes", _of_the_fact(shares)


def _of_the_fact(shares: dict[str, _Share]) -> str:
    missing = [name for name in OF.values() if name not in shares]
    rest = f"; no other facts have {listed(missing, 'or')}" if missing else ""
    most = max(shares, key=lambda name: shares[name].interval[0])
    found = shares[most]
    return f"Of the fact: other facts move less, most of all those with {most}: {found.text} ({found.sample}){rest}."


def _as_much(names: Sequence[str], shares: dict[str, _Share]) -> str:
    """``the answer word move 78 % [65, 89] as much (n = 48 of 12 relations)``, and so on of those after the first."""
    said = []
    for name in names:
        text, sample = shares[name].text, shares[name].sample
        said.append(f"{name} move {text} as much ({sample})" if sample.enough else f"{name} {text}, {sample.too_few}")
    return listed([said[0], *(f"those with {each}" for each in said[1:])])


def _how_much_do_they_carry(comparison: ComparisonRows) -> Answer:
    question = "How much of the answer do the feed-forward blocks carry at all?"
    cells = comparison.cell(method=WHOLE_FFN, group="target")
    layers = cells[cells.selection.str.startswith("layer")]
    beyond, short_beyond = _blocks_beyond(comparison)
    text = f"{comparison.verdict()}{beyond}"
    numbers = [Number("all blocks", *_precondition(comparison))]
    others = comparison.cell(method=WHOLE_FFN, selection="all", group="other_relation")
    numbers += [Number("all blocks, other relations", r["mean"], r.low, r.high) for _, r in others.iterrows()]
    if len(layers):
        row = layers.loc[layers["mean"].idxmin()]
        text += f" Of single layers, {row.selection} matters most: {percent(row['mean'], row.low, row.high)}."
        numbers.append(Number(f"{row.selection} alone", row["mean"], row.low, row.high))
    dropped = comparison.cell(method=DROPOUT, group="target")
    if len(dropped):
        row = dropped.iloc[-1]
        change = percent(row["mean"], row.low, row.high)
        text += f" A random {float(row.selection):.0%} of all neurons: {change}."
        numbers.append(Number(f"a random {float(row.selection):.0%} of neurons", row["mean"], row.low, row.high))
    drawn = panel(
        f"Relative change of p(answer) when they are silent at the answer position; dashed: −{NO_CLAIM_BELOW:.0%}, "
        "which all blocks must clearly exceed for any claim about single neurons.",
        numbers,
        marks=(-NO_CLAIM_BELOW,),
    )
    verdict, short = _enough(comparison, short_beyond)
    return Answer(question, text, verdict, short, drawn)


def _enough(comparison: ComparisonRows, beyond: str) -> tuple[str, str]:
    """The verdict on what all blocks carry, and its line."""
    sample = comparison.precondition_sample
    changes = f"silencing all blocks changes p(answer) by {_carried(comparison)}"
    if comparison.claim_possible:
        return "yes", f"Enough to ask about neurons: {changes} ({sample}){beyond}."
    if comparison.claim_excluded:
        return "no", f"Too little for claims about neurons: {changes} ({sample})."
    return "unknown", f"Not known: {changes}, {sample.too_few}."


def _blocks_beyond(comparison: ComparisonRows) -> tuple[str, str]:
    """Whether all blocks carry this fact beyond the rest, in full and in short; nothing where others were not asked."""
    others = comparison.cell(method=WHOLE_FFN, selection="all", group="other_relation")
    found = specificity(comparison, methods=[WHOLE_FFN], selections=["all"])
    if not len(others) or not len(found):
        return "", ""
    change = percent(*others.iloc[0][["mean", "low", "high"]])
    row = found.iloc[0]
    nats = interval_text(row.nats, row.low, row.high, percent=False, marks=(0.0,))
    own = told_from_zero(row.low)
    told = f" ({'more' if own else 'not shown to be more'} than of any text)"
    if not comparison.precondition_sample.enough:
        told = ""
    return (
        f" Facts of other relations change by {change}: the blocks carry {nats} nats of this fact beyond these{told}.",
        ". Facts of other relations lose less" if own else NOT_ITS_OWN,
    )


def _precondition(comparison: ComparisonRows) -> Interval:
    p = comparison.precondition
    return p["mean"], p["low"], p["high"]


def _carried(comparison: ComparisonRows) -> str:
    return percent(*_precondition(comparison), marks=(-NO_CLAIM_BELOW,))
