"""What a zoo model knows and where: accuracies, and what zeroing feed-forward neurons does to its answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.prompts import Batch, Prompt, Split, Text, by_text, texts_of
from kn_attrib.forward.plain import PlainForward
from kn_attrib.forward.rows import Rows
from kn_attrib.interventions.activations import ablate_layers, scale_rows
from kn_attrib.models.neuron_model import NeuronModel, all_neurons
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.refinement import Refinement

NODES = 8
FACTS_MEASURED = 136
ROWS = 256


def accuracy(model: NeuronModel, facts: FactSet, split: Split) -> dict[str, object]:
    """Share of texts whose gold answer's every token is the most likely, over all and over several kinds of facts."""
    prompts = model.encode(facts, split).prompts
    misses = torch.zeros(len(prompts))
    for indices, batch in model.batches(prompts, ROWS):
        misses[indices] = (model.answers(batch).rank > 1).float()
    hits = (by_text(misses, prompts) == 0).tolist()
    rows = [(text.fact, hit) for text, hit in zip(texts_of(prompts), hits, strict=True)]
    times = Counter(fact.subject for fact in facts)
    shared = [(fact, hit) for fact, hit in rows if times[fact.subject] > 1]

    def share(chosen: Iterable[bool]) -> float | None:
        found = list(chosen)
        return round(sum(found) / len(found), 4) if found else None

    return {
        "all": share(hit for _, hit in rows),
        "unambiguous": share(hit for fact, hit in rows if not fact.is_ambiguous),
        "shared_subjects": share(hit for fact, hit in shared),
        "shared_subjects_unambiguous": share(hit for fact, hit in shared if not fact.is_ambiguous),
        "two_token_answers": share(hit for fact, hit in rows if len(fact.answer.split()) == 2),
        "by_relation": {r: share(hit for fact, hit in rows if fact.relation == r) for r in facts.relations},
    }


def known_facts(model: NeuronModel, facts: FactSet) -> FactSet:
    """Unambiguous facts that the model answers rightly in every text, training and held-out."""
    clear = FactSet(tuple(f for f in facts if not f.is_ambiguous and not f.leaks_answer))
    wrong = set()
    for split in ("prompts", "held_out"):
        prompts = model.encode(clear, split).prompts
        for indices, batch in model.batches(prompts, ROWS):
            ranks = model.answers(batch).rank.tolist()
            wrong |= {prompts[i].fact.id for i, rank in zip(indices, ranks, strict=True) if rank > 1}
    return FactSet(tuple(f for f in clear if f.id not in wrong))


@dataclass(frozen=True)
class Effects:
    """Relative changes of the mean p(answer) on held-out texts, and the neurons that caused them."""

    ffn_zeroed_train: float
    ffn_zeroed: float
    integrated_gradients: float
    activation: float
    random: float
    doubled: float
    other_facts: float
    same_answer: float
    neurons_per_fact: float
    facts_without_neurons: int
    facts: int
    layers: dict[int, int]


def effects(model: NeuronModel, known: FactSet, seed: int, limit: int = FACTS_MEASURED) -> Effects:
    """Zero the whole feed-forward vector, and each fact's refined neurons, at the answer position.

    ``score_i = a_i / 8 * sum_k dF(alpha_k a)/da_i``, layer by layer, with Gauss-Legendre nodes and ``F = p(answer)``;
    a neuron is kept if its score is at least 0.2 of the prompt's highest in at least 70 % of the fact's prompts.
    Activation and random sets have the same size. *Other facts* are asked with the neurons of a fact of the next
    relation zeroed, *same answer* facts with those of a fact that has the same answer but another subject.

    Parameters
    ----------
    model, known : the model and facts that it knows.
    seed : chooses the random sets.
    limit : facts measured, spread over the relations.
    """
    facts = known.spread(limit)
    prompts = model.encode(facts, "prompts").prompts
    held_out = model.encode(facts, "held_out").prompts
    by_query, active = _scores(model, prompts)
    gradients = by_text(by_query, prompts, mean=True)
    activations = by_text(active, prompts, mean=True)
    texts = texts_of(prompts)
    chosen = {f.id: _kept(gradients[_of(texts, f)]) for f in facts}
    loudest = {f.id: _top(activations[_of(texts, f)].mean(0), len(chosen[f.id])) for f in facts}
    dice = random.Random(seed)
    everything = list(all_neurons(model))
    chance = {f.id: NeuronSet(dice.sample(everything, len(chosen[f.id]))) for f in facts}
    twins = {g.id: chosen[f.id] for f in facts for g in known if g.answer == f.answer and g.subject != f.subject}
    twin_texts = model.encode([f for f in known if f.id in twins], "held_out").prompts
    neighbours = {f.id: chosen[g.id] for f, g in zip(facts, [*facts[1:], facts[0]], strict=True)}
    return Effects(
        ffn_zeroed_train=_change(model, prompts, None),
        ffn_zeroed=_change(model, held_out, None),
        integrated_gradients=_change(model, held_out, chosen),
        activation=_change(model, held_out, loudest),
        random=_change(model, held_out, chance),
        doubled=_change(model, held_out, chosen, 2.0),
        other_facts=_change(model, held_out, neighbours),
        same_answer=_change(model, twin_texts, twins),
        neurons_per_fact=round(sum(len(s) for s in chosen.values()) / len(facts), 2),
        facts_without_neurons=sum(not s for s in chosen.values()),
        facts=len(facts),
        layers=dict(sorted(Counter(n.layer for s in chosen.values() for n in s).items())),
    )


def _of(texts: Sequence[Text], fact: Fact) -> list[int]:
    return [i for i, text in enumerate(texts) if text.fact.id == fact.id]


def _kept(scores: Tensor) -> NeuronSet:
    rule = Refinement(threshold=0.2, share=0.7)
    return rule.keep(rule.shares(scores), len(scores))


def _top(values: Tensor, size: int) -> NeuronSet:
    width = values.shape[1]
    best = values.flatten().topk(size).indices.tolist()
    return NeuronSet(Neuron(*divmod(index, width)) for index in best)


def _scores(model: NeuronModel, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Integrated gradients and activations: ``[prompt, layer, neuron]`` each."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    scores = torch.zeros(len(prompts), model.n_layers, model.n_neurons)
    activations = torch.zeros_like(scores)
    for indices, batch in model.batches(prompts, ROWS // model.n_layers):
        activations[indices] = model.record(batch)
        rows = Rows.of(activations[indices])
        forward = PlainForward(model, batch)
        total = torch.zeros_like(rows.activations)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            scaled = (rows.activations * float(node)).requires_grad_()
            (gradient,) = torch.autograd.grad(forward(scaled, rows.layers, rows.prompts).sum(), scaled)
            total += gradient * float(weight)
        scores[indices] = (total * rows.activations).view(len(batch), model.n_layers, -1)
    return scores, activations


def _change(
    model: NeuronModel, prompts: Sequence[Prompt], sets: dict[str, NeuronSet] | None, factor: float = 0.0
) -> float:
    """Relative change of the mean p(answer); the whole feed-forward vectors are zeroed if no sets are given."""

    def context(batch: Batch) -> AbstractContextManager[None]:
        if sets is None:
            return ablate_layers(model)
        return scale_rows(model, [sets[fact.id] for fact in batch.facts], factor)

    clean = torch.zeros(len(prompts))
    edited = torch.zeros(len(prompts))
    for indices, batch in model.batches(prompts, ROWS):
        clean[indices] = model.answers(batch).logprob
        with context(batch):
            edited[indices] = model.answers(batch).logprob
    before = by_text(clean, prompts).exp().mean()
    after = by_text(edited, prompts).exp().mean()
    return round(float(after / before) - 1, 4)
