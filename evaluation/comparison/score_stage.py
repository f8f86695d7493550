"""The first stage of a comparison: one method's scores of some facts, and the neurons that they select."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from kn_attrib.evaluation.comparison.settings import Settings
from kn_attrib.evaluation.comparison.views import FactsInView
from kn_attrib.evaluation.measure.known_facts import Candidate, queries_of
from kn_attrib.evaluation.records.journal import Entry
from kn_attrib.evaluation.vocabulary import SPECIFIC
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.cost import spending
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.guarded import MethodWarning
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.refinement import Refinement, refine_all, specific_sets
from kn_attrib.scoring.score import fit, score_prompts
from kn_attrib.scoring.scorer import Scorer

Value = TypeVar("Value")
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
    put_back : what the method left behind (`kn_attrib.scoring.guarded`).
    """

    means: Mapping[str, Tensor]
    sets: Sets
    stability: Mapping[str, float]
    gaps: Tensor | None
    spent: Mapping[str, float]
    prompts: int
    put_back: Sequence[str] = ()

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
        sets = [[name, [_pairs(chosen[fact]) for fact in facts]] for name, chosen in self.sets.items()]
        record = {
            "facts": facts,
            "sets": sets,
            "stability": dict(self.stability),
            "spent": dict(self.spent),
            "prompts": self.prompts,
            "put_back": list(self.put_back),
        }
        return Entry(tensors, record=record)

    @classmethod
    def of_entry(cls, entry: Entry) -> MethodScores:
        """What `to_entry` has made."""
        record: Mapping[str, Any] = entry.record
        facts = record["facts"]
        sets: Sets = {}
        for name, chosen in record["sets"]:
            neurons = [NeuronSet((layer, index) for layer, index in pairs) for pairs in chosen]
            sets[name] = dict(zip(facts, neurons, strict=True))
        return cls(
            means=dict(zip(facts, entry.tensors["means"], strict=True)),
            sets=sets,
            stability=record["stability"],
            gaps=entry.tensors.get("gaps"),
            spent=record["spent"],
            prompts=record["prompts"],
            put_back=record.get("put_back", ()),
        )


def warn_of_constant(label: str, scored: MethodScores) -> None:
    """Warn of facts of which a method scores all neurons alike: what it then selects is the order of the neurons."""
    alike = sum(bool((mean == mean.flatten()[0]).all()) for mean in scored.means.values())
    if alike:
        facts = f"{alike} of {len(scored.means)} facts" if alike < len(scored.means) else f"all {alike} facts"
        message = f"{label} gave the same score to every neuron for {facts}: nothing can be told from its ranking."
        warnings.warn(message, MethodWarning, stacklevel=2)


def with_specific(scored: MethodScores, relations: Mapping[str, str]) -> MethodScores:
    """The same, with what is left of the refined sets without general machinery as one more selection.

    Where all facts are of one relation there is no such thing.
    """
    refined = scored.sets["refined"]
    if len({relations[fact] for fact in refined}) < 2:
        return scored
    return replace(scored, sets={**scored.sets, SPECIFIC: specific_sets(refined, relations)})


def _pairs(neurons: NeuronSet) -> list[list[int]]:
    return [list(neuron) for neuron in neurons]


def joined_scores(parts: Sequence[MethodScores], before: Mapping[str, float]) -> MethodScores:
    """One method's scores of different facts as one, on top of what was spent before (on fitting units)."""
    gaps = [part.gaps for part in parts if part.gaps is not None]
    names = dict.fromkeys(name for part in parts for name in part.sets)
    return MethodScores(
        means=_merged([part.means for part in parts]),
        sets={name: _merged([part.sets.get(name, {}) for part in parts]) for name in names},
        stability=_merged([part.stability for part in parts]),
        gaps=torch.cat(gaps) if gaps else None,
        spent={what: spent + sum(part.spent[what] for part in parts) for what, spent in before.items()},
        prompts=sum(part.prompts for part in parts),
        put_back=list(dict.fromkeys(what for part in parts for what in part.put_back)),
    )


def _merged(parts: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    return {fact: value for part in parts for fact, value in part.items()}


class FittedScorer:
    """A method's scorer, fitted to a view's facts when it is first needed: not at all if all is scored already.

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
        queries = queries_of(targets)
        with spending(self.view.model.execution.cost) as spent:
            if self._fitted is None:
                self._fitted = fit(self.scorer, self.view.model, self.view.queries, self.others)
            scores = score_prompts(self.view.model, queries, self._fitted, progress=progress)
        by_fact = {fact: scores.for_fact(fact) for fact in scores.fact_ids}
        ways = selections(self.scorer, settings, scores)
        return MethodScores(
            means={fact: own.values.double().mean(0).float() for fact, own in by_fact.items()},
            sets={name: refine_all(scores, refinement) for name, refinement in ways.items()},
            stability={fact: stability(own) for fact, own in by_fact.items()},
            gaps=relative_gaps(scores),
            spent=spent,
            prompts=len(scores),
            put_back=scores.provenance.get("put_back", ()),
        )


def selections(scorer: Scorer, settings: Settings, scores: NeuronScores) -> dict[str, Refinement]:
    """How neurons are chosen, by name: ``"refined"``, and ``"k=…"`` for each budget that the units allow."""
    preset = settings.refinement
    refined = Refinement.preset(preset) if preset else Refinement(threshold=scorer.threshold)
    if settings.threshold is not None:
        refined = replace(refined, threshold=settings.threshold)
    if settings.share is not None:
        refined = replace(refined, share=settings.share)
    size = math.prod(scores.shape[1:])
    return {"refined": refined} | {f"k={k}": Refinement(k=k) for k in settings.budgets if k <= size}


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
