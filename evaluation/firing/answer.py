"""Do a fact's neurons fire for the fact, or for its words? The answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kn_attrib.evaluation.firing.activations import OWN, STANDARDISED
from kn_attrib.evaluation.firing.groups import PUBLISHED, UNCONFOUNDED
from kn_attrib.evaluation.firing.rows import LESS, FiringRows
from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.answer import Answer, listed
from kn_attrib.evaluation.statistics.sample import Sample

QUESTION = "Do a fact's neurons fire for the fact, or for its words?"
DECIDING = ("the answer", "the subject", "both together")
"""Contrasts of the unconfounded design, and what a neuron of the fact alone would respond to, the last."""
SAID = {
    "the answer": "the hidden answer",
    "the subject": "the subject",
    "both together": "both together beyond the sum of the two",
}

NOT_MORE = "None of it is shown to be more than what the other neurons of their layers do"


def answer_of(result: FiringRows) -> Answer | None:
    """The answer, for the first method that has numbers; None where no fact has all groups.

    Yes if the fact's neurons respond to subject and answer together by more than the sum of what they respond to
    either, and by more than the other neurons of their layers; in part if they respond to either; else it is not shown.
    """
    found = result.contrasts
    cells = {
        (row["method"], row["contrast"], row["neurons"]): row
        for row in found[found.design == UNCONFOUNDED].to_dict("records")
    }
    method = next((m for m in result.methods if (m, DECIDING[-1], LESS) in cells), None)
    if method is None:
        return None
    of = cells[method, DECIDING[-1], LESS]
    clear = [SAID[name] for name in DECIDING if cells[method, name, LESS]["low"] > 0]
    verdict = "yes" if SAID[DECIDING[-1]] in clear else "mixed" if clear else "no"
    sample = Sample(int(of["n"]), int(of["relations"]))
    if not sample.enough:
        verdict = "unknown"
    numbers = [f"{SAID[name]} {deviations(cells[method, name, OWN])}" for name in DECIDING]
    more = f"More than the other neurons of their layers do: {listed(clear)}" if clear else NOT_MORE
    text = (
        f"{_published(result, method)}With the answer hidden everywhere and texts of equal length, they respond to "
        f"{'; to '.join(numbers)} (the last: n = {of['n']} facts of {of['relations']} relations; in standard "
        f"deviations over random words). {more}."
    )
    return Answer(QUESTION, text, verdict, _short(method, verdict, clear, sample))


def _short(method: str, verdict: str, clear: Sequence[str], sample: Sample) -> str:
    if verdict == "unknown":
        return f"Not known: {sample.too_few}, for few have all kinds of texts."
    if verdict == "no":
        return f"Not shown: {method}'s neurons are not shown to respond to either ({sample})."
    told = f"{method}'s neurons respond to {listed(clear)}"
    if verdict == "yes":
        return f"For the fact: {told} ({sample})."
    return f"For its words: {told}, not to both beyond their sum ({sample})."


def _published(result: FiringRows, method: str) -> str:
    """What the published design says."""
    found = result.summary
    some = found[
        (found.method == method) & (found.design == PUBLISHED) & (found.metric == STANDARDISED) & (found.neurons == OWN)
    ].set_index("group")
    if some.empty:
        return ""
    means = [f"{deviations(some.loc[group])} ({group})" for group in some.index]
    return f"Published design: {method}'s neurons are at {listed(means)}. "


def deviations(cell: Mapping[str, float]) -> str:
    """A mean with its interval, in standard deviations."""
    return interval_text(cell["mean"], cell["low"], cell["high"], percent=False)
