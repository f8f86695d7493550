"""Do a fact's neurons fire for the fact, or for its words? The answer in words."""

from __future__ import annotations

from collections.abc import Mapping

from kn_attrib.evaluation.firing.activations import OWN, STANDARDISED
from kn_attrib.evaluation.firing.groups import PUBLISHED, UNCONFOUNDED
from kn_attrib.evaluation.firing.rows import LESS, FiringRows
from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.report.answer import Answer, listed

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
    """The answer, for the first method that has numbers; None where no fact has texts of the unconfounded design.

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
    clear = [name for name in DECIDING if cells[method, name, LESS]["low"] > 0]
    verdict = "yes" if DECIDING[-1] in clear else "mixed" if clear else "no"
    numbers = [f"{SAID[name]} {deviations(cells[method, name, OWN])}" for name in DECIDING]
    told = listed([SAID[name] for name in clear]) if clear else ""
    short = {
        "yes": f"For the fact: {method}'s neurons respond to {told}.",
        "mixed": f"For its words: {method}'s neurons respond to {told}, which is not shown to be more than its words.",
        "no": f"It is not shown that {method}'s neurons respond to either.",
    }[verdict]
    text = (
        f"{_published(result, method)}With the answer hidden everywhere and texts of equal length, they respond to "
        f"{'; to '.join(numbers)} (n = {int(cells[method, DECIDING[-1], OWN]['n'])} facts; in standard deviations over "
        f"random words). {f'More than the other neurons of their layers do: {told}' if told else NOT_MORE}."
    )
    return Answer(QUESTION, text, verdict, short)


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
