"""Does tracing's peak predict which neurons matter? Correlations, layer by layer and fact by fact, and the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kn_attrib.evaluation.records.text import with_interval
from kn_attrib.evaluation.report.answer import Answer
from kn_attrib.evaluation.statistics.correlation import Correlation, of_deviations, of_mean_curves
from kn_attrib.evaluation.statistics.means import mean_weights, relations_of
from kn_attrib.evaluation.statistics.sample import Sample
from kn_attrib.evaluation.tracing.profiles import ALL_NEURONS, REFINED, SCORES, SUPPRESSED
from kn_attrib.evaluation.tracing.roles import ROLES
from kn_attrib.evaluation.tracing.trace_rows import INDIRECT, TRACING, TraceRows

COMPARED = ("answer", "last_subject")
"""Roles of the tokens whose feed-forward effects are compared with neurons; these are read at the answer position."""
QUESTION = "Does tracing's peak predict which neurons matter?"
MEASURES = {
    SCORES: "share of |score|",
    REFINED: "share of refined neurons",
    SUPPRESSED: "loss of p(answer) when suppressed",
}


@dataclass(frozen=True)
class Pair:
    """The average indirect effect of feed-forward outputs at a token, against a quantity of each layer's neurons.

    Attributes
    ----------
    role : of the token.
    method, metric : whose neurons, and which quantity of theirs.
    over_layers : correlation of the two mean curves.
    over_facts : correlation of facts' deviations from these (`of_deviations`).
    traced_peak, peak : layers in which the mean curves are highest.
    sample : facts and relations.
    """

    role: str
    method: str
    metric: str
    over_layers: Correlation
    over_facts: Correlation
    traced_peak: int
    peak: int
    sample: Sample

    @property
    def name(self) -> str:
        """What is compared, in words."""
        return f"{self.method}: {MEASURES[self.metric]}"


def pairs(result: TraceRows) -> list[Pair]:
    """Every quantity of neurons against tracing, at both tokens; none where feed-forward outputs were not restored."""
    found = []
    quantities = [(ALL_NEURONS, SUPPRESSED)]
    quantities += [(method, metric) for method in result.methods for metric in (SUPPRESSED, SCORES, REFINED)]
    for role in COMPARED:
        effects = result.curves(TRACING, INDIRECT, "ffn", role)
        for method, metric in quantities:
            other = result.curves(method, metric, "neurons", "answer")
            facts = effects.index.intersection(other.index)
            if len(facts):
                found.append(_pair(role, method, metric, effects.loc[facts], other.loc[facts], result.seed))
    return found


def _pair(role: str, method: str, metric: str, effects: pd.DataFrame, other: pd.DataFrame, seed: int) -> Pair:
    relations = relations_of(effects)
    first, second = effects.to_numpy(dtype=float), other.to_numpy(dtype=float)
    weights = mean_weights(relations)
    return Pair(
        role,
        method,
        metric,
        of_mean_curves(first, second, relations, seed),
        of_deviations(first, second, relations, seed),
        int(np.argmax(weights @ first)),
        int(np.argmax(weights @ second)),
        Sample.of(relations),
    )


def answer_of(result: TraceRows) -> Answer | None:
    """The answer in words; None where feed-forward outputs were not restored.

    The verdict is that of what suppressing all neurons of a layer costs at the answer position, the least that a map of
    layers should predict: yes if both correlations are clearly above zero for both tokens, no if neither is for any.
    """
    main = [pair for pair in pairs(result) if (pair.method, pair.metric) == (ALL_NEURONS, SUPPRESSED)]
    if not main:
        return None
    above = [c.low > 0 for pair in main for c in (pair.over_layers, pair.over_facts)]
    verdict = "yes" if all(above) else "mixed" if any(above) else "no"
    sample = main[0].sample
    if not sample.enough:
        verdict = "unknown"
    said = "; ".join(
        f"at the {ROLES[pair.role]} its feed-forward effects peak in layer {pair.traced_peak}, what suppression of a "
        f"layer's neurons costs in layer {pair.peak}, and they correlate {number(pair.over_layers)} over layers and "
        f"{number(pair.over_facts)} over facts"
        for pair in main
    )
    lead = {"yes": "Yes", "mixed": "In part", "no": "It is not shown to", "unknown": "Not known"}[verdict]
    text = f"{lead} ({sample}): {said}.{_best(result)}"
    over_layers = "; ".join(f"{ROLES[p.role]} {number(p.over_layers)} over layers" for p in main)
    short = f"{lead}: {over_layers} ({sample})." if sample.enough else f"{lead}: {sample.too_few}; {over_layers}."
    return Answer(QUESTION, text, verdict, short)


def _best(result: TraceRows) -> str:
    """Which method's layers tracing at the answer position is most like; nothing of too few facts."""
    scored = [p for p in pairs(result) if p.metric == SCORES and p.role == "answer" and not np.isnan(p.over_layers[0])]
    if not scored:
        return ""
    best = max(scored, key=lambda pair: pair.over_layers.value)
    if not best.sample.enough:
        return ""
    if not best.over_layers.low > 0:
        return " No method's scores are shown to be laid out over the layers as tracing's effects are."
    return (
        f" Of the methods, {best.method}'s scores are laid out over the layers most as tracing's effects at the answer "
        f"position are: {number(best.over_layers)} over layers, {number(best.over_facts)} over facts."
    )


def number(found: Correlation) -> str:
    """A correlation with its interval.

    >>> number(Correlation(-0.5, -0.75, 0.0))
    'r = −0.50 [−0.75, 0.00]'
    """
    if np.isnan(found.value):
        return "r not defined"
    return f"r = {with_interval(*found, digits=2, marks=(0.0,))}"
