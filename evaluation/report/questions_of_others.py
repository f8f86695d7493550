"""What else the neurons of a fact carry: facts of other relations, plain words, and what random neurons do."""

from __future__ import annotations

from typing import NamedTuple

from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.answer import Answer, Number, listed, panel, percent, share, signed_p
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.report.evidence import (
    LEVEL,
    MARGIN,
    Interval,
    effects,
    mean_of,
    sample_of,
    strongest,
    told_from_zero,
    why_strongest,
)
from kn_attrib.evaluation.report.specificity import specificity
from kn_attrib.evaluation.statistics.means import relations_of
from kn_attrib.evaluation.statistics.sample import Sample
from kn_attrib.evaluation.statistics.significance import equivalence_test
from kn_attrib.evaluation.vocabulary import HEADLINE, SPECIFIC
from kn_attrib.scoring.refinement import GENERAL


class _Change(NamedTuple):
    """What suppression does to texts that it should not change; p of the test that it is nothing."""

    name: str
    called: str
    own: bool
    is_share: bool
    interval: Interval
    p: float
    sample: Sample

    @property
    def margin(self) -> str:
        return f"±{MARGIN:.0%}" if self.is_share else f"±{MARGIN} nats"

    @property
    def within(self) -> bool:
        return self.p <= LEVEL and self.sample.enough

    @property
    def beyond(self) -> bool:
        """The whole interval is outside the margin."""
        return self.sample.enough and (self.interval[1] > MARGIN or self.interval[2] < -MARGIN)

    def size(self) -> str:
        """The change, with digits enough to see on which side of the margin it ends."""
        text = interval_text(*self.interval, percent=self.is_share, marks=(-MARGIN, MARGIN))
        return text if self.is_share else f"{text} nats"

    def found(self) -> str:
        """The change, and what follows from it."""
        if not self.sample.enough:
            return f"{self.name} {self.size()}, {self.sample.too_few}"
        if self.within:
            return f"{self.name} {self.size()} (within {self.margin}, {self.sample})"
        if self.beyond:
            return f"{self.name} {self.size()}, more than {self.margin} ({self.sample})"
        test = f"equivalence p {signed_p(self.p)}, {self.sample}"
        return f"{self.name} {self.size()}, not shown to be within {self.margin} ({test})"


ASKED = (
    ("method", "other_relation", HEADLINE, "facts of other relations change by", "facts of other relations"),
    # Plain words may be hardly expected; ratios of tiny probabilities say nothing, log-probabilities do.
    ("method", "plain_text", "delta_logprob", "the log-probability of plain words changes by", "plain words"),
    (
        "random",
        "target",
        HEADLINE,
        "the fact itself, with equally many random neurons instead, changes by",
        "the fact, random neurons",
    ),
    ("random_matched", "target", HEADLINE, "with equally active and strong neurons by", "the fact, matched neurons"),
)
"""Neurons, group, metric, and what the change is called in a sentence and in the chart."""


def anything_else(comparison: ComparisonRows) -> Answer:
    """Whether suppressing a fact's neurons changes texts that have nothing to do with it."""
    question = "Do they carry anything else?"
    best = strongest(comparison, "refined")
    changes = _changes(comparison, best)
    parts = []
    for c in changes:
        within = "within" if c.within else "not shown to be within"
        test = f"{within} {c.margin} (equivalence p {signed_p(c.p)}, n = {c.sample.facts})"
        parts.append(f"{c.name} {c.size().removesuffix(' nats')}, {test if c.sample.enough else c.sample.too_few}")
    measured = f": {'; '.join(parts)}." if parts else ": nothing else was asked."
    why = why_strongest(comparison, best)
    text = f"Suppressing {best}'s refined neurons{why}{measured}{_how_specific(comparison, best)}"
    # What control neurons do is said for comparison; the answer is about the method's own.
    own = [c for c in changes if c.own]
    drawn = panel(
        f"Relative change of p(answer) with {best}'s refined neurons suppressed, or others in their place; "
        f"dashed: ±{MARGIN:.0%}, the margin of no change.",
        [Number(c.called, *c.interval, c.within or c.beyond) for c in changes if c.is_share],
        marks=(-MARGIN, MARGIN),
    ) + panel(
        f"Change of the log-probability in nats; dashed: ±{MARGIN}; hollow: neither within nor beyond.",
        [Number(c.called, *c.interval, c.within or c.beyond) for c in changes if not c.is_share],
        "nats",
        marks=(-MARGIN, MARGIN),
    )
    general = _general(comparison, best)
    if general:
        said = f"{text} So other facts fall by {general}: general machinery, not of this fact alone."
        short = f"Yes: facts of other relations fall by {general} ({own[0].sample})."
        return Answer(question, said + _what_is_left(comparison, best), "yes", short, drawn)
    told = any(c.sample.enough for c in own)
    verdict = "unknown" if not told else "no" if all(c.within for c in own) else "mixed"
    return Answer(question, text, verdict, _in_short(own), drawn)


def _changes(comparison: ComparisonRows, best: str) -> list[_Change]:
    """What was asked."""
    found = []
    for neurons, group, metric, name, called in ASKED:
        frame = effects(comparison, "refined", neurons, group, [best], metric)
        if len(frame):
            column = frame[best]
            p = equivalence_test(column.to_numpy(), relations_of(frame), MARGIN)
            interval = mean_of(comparison, column)
            sample = sample_of(frame)
            found.append(_Change(name, called, neurons == "method", metric == HEADLINE, interval, p, sample))
    return found


def _in_short(own: list[_Change]) -> str:
    """The verdict in a line, where facts of other relations do not clearly fall."""
    if not own:
        return "Not known: neither facts of other relations nor plain words were asked."
    if not any(c.sample.enough for c in own):
        most = max((c.sample for c in own), key=lambda sample: sample.facts)
        changes = "; ".join(f"{c.name} {c.size()}" for c in own)
        return f"Not known: {changes}, {most.too_few}."
    beyond = [c.found() for c in own if c.beyond and not c.within]
    unclear = [c.found() for c in own if not (c.beyond or c.within)]
    if beyond:
        return f"Partly: {'; '.join(beyond + unclear)}."
    if unclear:
        return f"Not ruled out: {'; '.join(unclear)}."
    return f"No: {listed([c.found() for c in own])}."


def _general(comparison: ComparisonRows, method: str) -> str:
    """By how much facts of other relations fall, where the whole interval says so; else nothing."""
    found = effects(comparison, "refined", "method", "other_relation", [method])
    if not len(found):
        return ""
    mean, low, high = mean_of(comparison, found[method])
    return share(-mean, -high, -low, marks=(MARGIN,)) if high < -MARGIN and sample_of(found).enough else ""


def _what_is_left(comparison: ComparisonRows, method: str) -> str:
    """What the refined neurons do once those are removed that many facts of other relations have as well."""
    left = effects(comparison, SPECIFIC, "method", "target", [method])
    others = effects(comparison, SPECIFIC, "method", "other_relation", [method])
    if not len(left) or not len(others):
        return ""
    sizes = comparison.cell(method=method, neurons="method", group="target", intervention="suppress")
    number = sizes.set_index("selection").n_neurons
    own, other = (percent(*mean_of(comparison, each[method])) for each in (left, others))
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
    nats = interval_text(row.nats, row.low, row.high, percent=False, marks=(0.0,))
    lost = f" Specificity: the fact itself loses {nats} nats of log-probability beyond what they lose"
    others = effects(comparison, "refined", "method", "other_relation", [method])
    if not sample_of(others).enough:
        return f"{lost}."
    return f"{lost} ({'more than' if told_from_zero(row.low) else 'not shown to be more than'} nothing)."
