"""The first stage of a comparison: one method's scores of some facts, and the neurons that they select."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kn_attrib.evaluation.comparison.settings import Settings
from kn_attrib.evaluation.comparison.views import FactsInView
from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.evaluation.records.journal import Entry
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.cost import spending
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.refinement import Refinement, refine_all
from kn_attrib.scoring.score import fit, score_prompts
from kn_attrib.scoring.scorer import Scorer

Sets = dict[str, dict[str, NeuronSet]]
"""Selection -> fact -> neurons."""
STABLE_AT = 10
"""Budget at which the neurons of two halves of a fact's prompts are compared."""


@dataclass(frozen=True)
class MethodScores:
    """What one method says about some facts.

    Attributes
    ----------
    means : fact -> score averaged over its prompts, ``[layer, neuron]``.
    sets : selection -> fact -> neurons.
    stability : fact -> overlap (Jaccard) of the top neurons of its odd and of its even prompts.
    gaps : relative completeness gaps, ``[prompt, layer]``, or None.
    spent : seconds, forwards and backwards.
    prompts : number of texts that were scored.
    """

    means: Mapping[str, Tensor]
    sets: Sets
    stability: Mapping[str, float]
    gaps: Tensor | None
    spent: Mapping[str, float]
    prompts: int

    def lowest(self, fact: str, count: int) -> list[Neuron]:
        """The neurons with the lowest scores, the lowest first."""
        mean = self.means[fact].double()
        order = mean.flatten().sort(stable=True).indices[:count].tolist()
        return [Neuron(*divmod(i, mean.shape[1])) for i in order]

    def to_entry(self) -> Entry:
        """As tensors and JSON."""
        facts = list(self.means)
        tensors = {"means": torch.stack([self.means[fact] for fact in facts])}
        if self.gaps is not None:
            tensors["gaps"] = self.gaps
        # Lists, because JSON objects do not keep an order.
        sets = [[name, [[list(n) for n in found[fact]] for fact in facts]] for name, found in self.sets.items()]
        record = {"facts": facts, "sets": sets, "stability": dict(self.stability), "spent": dict(self.spent),
                  "prompts": self.prompts}  # fmt: skip
        return Entry(tensors, record=record)

    @classmethod
    def of_entry(cls, entry: Entry) -> MethodScores:
        """What `to_entry` has made."""
        record: Mapping[str, Any] = entry.record
        facts = record["facts"]
        return cls(
            dict(zip(facts, entry.tensors["means"], strict=True)),
            {
                name: {
                    f: NeuronSet((layer, index) for layer, index in own) for f, own in zip(facts, found, strict=True)
                }
                for name, found in record["sets"]
            },
            record["stability"],
            entry.tensors.get("gaps"),
            record["spent"],
            record["prompts"],
        )


def joined_scores(parts: Sequence[MethodScores], before: Mapping[str, float]) -> MethodScores:
    """The same method's results for different facts as one, on top of what was spent before (on fitting units)."""
    gaps = [part.gaps for part in parts if part.gaps is not None]
    names = list(dict.fromkeys(name for part in parts for name in part.sets))
    return MethodScores(
        {fact: mean for part in parts for fact, mean in part.means.items()},
        {name: {f: n for part in parts for f, n in part.sets.get(name, {}).items()} for name in names},
        {fact: value for part in parts for fact, value in part.stability.items()},
        torch.cat(gaps) if gaps else None,
        {key: spent + sum(part.spent[key] for part in parts) for key, spent in before.items()},
        sum(part.prompts for part in parts),
    )


class FittedScorer:
    """A scorer that is fitted to a view's facts when it is first needed: not at all if everything is scored already.

    Parameters
    ----------
    scorer, view : what is fitted to what.
    others : queries of further facts.
    """

    def __init__(self, scorer: Scorer, view: FactsInView, others: Sequence[Prompt]) -> None:
        self.scorer, self.view, self.others = scorer, view, others
        self._fitted: Scorer | None = None

    def score(
        self, targets: Sequence[Candidate], settings: Settings, progress: Callable[[int], object] | None
    ) -> MethodScores:
        """Score some of the view's facts and select neurons."""
        queries = [query for c in targets for text in c.prompts for query in text.queries]
        with spending(self.view.model.execution.cost) as spent:
            if self._fitted is None:
                self._fitted = fit(self.scorer, self.view.model, self.view.queries, self.others)
            scores = score_prompts(self.view.model, queries, self._fitted, progress=progress)
        sets = {name: refine_all(scores, each) for name, each in selections(self.scorer, settings, scores).items()}
        each_fact = {fact: scores.for_fact(fact) for fact in scores.fact_ids}
        return MethodScores(
            {fact: own.values.double().mean(0).float() for fact, own in each_fact.items()},
            sets,
            {fact: stability(own) for fact, own in each_fact.items()},
            relative_gaps(scores),
            spent,
            len(scores),
        )


def selections(scorer: Scorer, settings: Settings, scores: NeuronScores) -> dict[str, Refinement]:
    """How neurons are chosen, by name: ``"refined"``, and ``"k=…"`` for each budget that the units allow."""
    chosen = Refinement.preset(settings.refinement) if settings.refinement else Refinement(threshold=scorer.threshold)
    threshold, share = settings.threshold, settings.share
    chosen = replace(
        chosen,
        threshold=chosen.threshold if threshold is None else threshold,
        share=chosen.share if share is None else share,
    )
    size = math.prod(scores.shape[1:])
    return {"refined": chosen} | {f"k={k}": replace(chosen, k=k) for k in settings.budgets if k <= size}


def stability(own: NeuronScores) -> float:
    """Jaccard overlap of the top neurons of one fact's odd and even prompts; nan for a single prompt."""
    if len(own) < 2:
        return math.nan
    k = min(STABLE_AT, math.prod(own.shape[1:]))
    return own[range(0, len(own), 2)].top_k(k).jaccard(own[range(1, len(own), 2)].top_k(k))


def relative_gaps(scores: NeuronScores) -> Tensor | None:
    """Completeness gaps as shares of the differences, where the method has them."""
    if scores.gap is None or scores.difference is None:
        return None
    return scores.gap.abs() / scores.difference.abs().clamp_min(1e-12)
