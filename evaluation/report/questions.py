"""The sceptic's questions, answered in words from the rows of a comparison, with intervals and numbers of facts."""

from __future__ import annotations

from dataclasses import replace

from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.answer import Answer, Number, listed, panel, percent, share
from kn_attrib.evaluation.report.comparison_rows import NO_CLAIM_BELOW, ComparisonRows
from kn_attrib.evaluation.report.evidence import Interval, effects, mean_of, ratio_of, strongest
from kn_attrib.evaluation.report.questions_of_methods import does_the_method_matter, would_search_do_better
from kn_attrib.evaluation.report.questions_of_others import anything_else
from kn_attrib.evaluation.report.specificity import specificity
from kn_attrib.evaluation.vocabulary import DROPOUT, WHOLE_FFN

__all__ = ["OF", "Answer", "answers"]

MOSTLY, HARDLY = 0.5, 0.25
"""Shares of the effect on the fact itself above and below which a control group is said to move with it."""
OF = {"same_object": "the answer word", "same_subject": "the subject", "same_relation": "the relation"}
"""Control groups and what neurons are of that change them as they change the fact."""
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
    if not comparison.claim_possible:
        found = [_without_claim(comparison, each, lacks) for each, lacks in zip(found, LACKS, strict=True)]
    return [*found, _how_much_do_they_carry(comparison)]


def _without_claim(comparison: ComparisonRows, answer: Answer, lacks: str) -> Answer:
    """The same numbers, of which nothing follows."""
    carried = percent(*_precondition(comparison))
    why = f"No claim possible: all feed-forward neurons together carry {carried} of p(answer)."
    short = f"No claim possible about {lacks} (all feed-forward neurons together: {carried})."
    return replace(answer, answer=f"{why} For the record: {answer.answer}", verdict="unknown", short=short)


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
        shares[name] = ratio_of(comparison, moves, target.loc[shared])
        part = f"{share(*shares[name])} of the fact's own change (n = {len(shared)})"
        parts.append(f"other facts with {name} move by {percent(*mean_of(comparison, moves))}, which is {part}")
    changed = f"{best}'s refined neurons change the fact itself by {percent(*own)} (n = {len(target)})"
    drawn = panel(
        f"How far other facts move with {best}'s refined neurons suppressed, as a share of the fact's own change; "
        f"dashed: {HARDLY:.0%}, below which they do not move with it, and {MOSTLY:.0%}, above which they do.",
        [Number(f"other facts with {name}", *moved) for name, moved in shares.items()],
        marks=(HARDLY, MOSTLY),
    )
    so, verdict, short = _whose(best, own, shares)
    return Answer(question, f"{changed}; {'; '.join(parts)}. So {so}.", verdict, short, drawn)


def _whose(best: str, own: Interval, shares: dict[str, Interval]) -> tuple[str, str, str]:
    """What follows from the shares that other facts move with the fact: the conclusion, the verdict, and its line."""
    if own[2] >= 0:
        why = f"{best}'s refined neurons are not shown to suppress the fact itself"
        return "they are not shown to be of the fact at all", "unknown", f"Not known: {why}: {percent(*own)}."
    if not shares:
        return "nothing can be said of whose they are", "unknown", "Not known: no other facts share anything with it."
    moved = {name: s for name, s in shares.items() if s[1] > MOSTLY}
    if moved:
        names = listed(list(moved))
        so = f"they are mostly neurons of {names}, not of the fact"
        return so, "no", f"Mostly of {names}, not of the fact: other facts with {_as_much(moved)}."
    partly = {name: s for name, s in shares.items() if s[1] > 0 and s[2] > HARDLY}
    if partly:
        names = listed(list(partly))
        so = f"they are partly neurons of {names}"
        return so, "mixed", f"Partly of {names}: other facts with {_as_much(partly)}."
    # An interval that reaches from nothing to more than hardly decides nothing; neither does one that is not a number.
    unclear = {name: s for name, s in shares.items() if not s[2] <= HARDLY}
    if unclear:
        names = listed(list(unclear), "or")
        return (
            f"it cannot be told whether they are neurons of {names} as well",
            "unknown",
            f"Not known whether also of {names}: other facts with {_as_much(unclear)}.",
        )
    missing = [name for name in OF.values() if name not in shares]
    rest = f"; no other facts have {listed(missing, 'or')}" if missing else ""
    most = max(shares, key=lambda name: shares[name][0])
    so = "they belong to the fact more than to any of these"
    return (
        so,
        "yes",
        f"Of the fact: other facts move less, most of all those with {most}: {share(*shares[most])}{rest}.",
    )


def _as_much(shares: dict[str, Interval]) -> str:
    """``the answer word move 78 % [65, 89] as much``, and the same of those after the first."""
    (name, first), *rest = shares.items()
    others = [f"those with {other} {share(*s)}" for other, s in rest]
    return f"{listed([f'{name} move {share(*first)}', *others])} as much"


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
    change = percent(*_precondition(comparison))
    if comparison.claim_possible:
        short = f"Enough to ask about neurons: silencing all blocks changes p(answer) by {change}{short_beyond}."
        return Answer(question, text, "yes", short, drawn)
    short = f"Too little for claims about neurons: silencing all blocks changes p(answer) by {change}."
    return Answer(question, text, "no", short, drawn)


def _blocks_beyond(comparison: ComparisonRows) -> tuple[str, str]:
    """Whether all blocks carry this fact beyond the rest, in full and in short; nothing where others were not asked."""
    others = comparison.cell(method=WHOLE_FFN, selection="all", group="other_relation")
    found = specificity(comparison, methods=[WHOLE_FFN], selections=["all"])
    if not len(others) or not len(found):
        return "", ""
    change = percent(*others.iloc[0][["mean", "low", "high"]])
    row = found.iloc[0]
    nats = interval_text(row.nats, row.low, row.high, percent=False)
    more = "more" if row.low > 0 else "not shown to be more"
    return (
        f" Facts of other relations change by {change}: the blocks carry {nats} nats of this fact beyond these ({more} "
        "than of any text).",
        f", {more} than facts of other relations lose",
    )


def _precondition(comparison: ComparisonRows) -> Interval:
    p = comparison.precondition
    return p["mean"], p["low"], p["high"]
