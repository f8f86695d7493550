"""Layer by layer what tracing is compared with: scores of methods, their neurons, and what suppressing them does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.many_rows import answers_of_rows
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.refinement import refine

SCORES, REFINED, SUPPRESSED = "score_share", "refined_share", "suppression"
"""Metrics of layers: the share of a method's ``|score|``, of its refined neurons, and what p(answer) loses when the
layer's neurons are silent."""
ALL_NEURONS = "all neurons"
"""In the place of a method: a layer's feed-forward neurons, all of them."""


def score_shares(scores: NeuronScores) -> Tensor:
    """Each layer's share of ``Σ |score|``, mean over prompts: ``[layer]``."""
    sizes = scores.values.double().abs().sum(-1)
    return (sizes / sizes.sum(-1, keepdim=True).clamp_min(torch.finfo(sizes.dtype).tiny)).mean(0)


def refined_shares(scores: NeuronScores) -> Tensor:
    """Each layer's share of the refined neurons: ``[layer]``; zeros where there are none."""
    layers = torch.tensor([neuron.layer for neuron in refine(scores)], dtype=torch.long)
    counts = torch.bincount(layers, minlength=scores.values.shape[1]).double()
    return counts / max(1, len(layers))


def top_of_each_layer(scores: NeuronScores, k: int) -> list[NeuronSet]:
    """The k neurons of each layer with the highest mean score (ties: the earlier neuron)."""
    order = scores.values.double().mean(0).sort(dim=1, descending=True, stable=True).indices[:, :k].tolist()
    return [NeuronSet(Neuron(layer, index) for index in row) for layer, row in enumerate(order)]


def layers_of(model: NeuronModel) -> list[NeuronSet]:
    """All neurons of each layer."""
    return [NeuronSet(Neuron(layer, i) for i in range(model.n_neurons)) for layer in range(model.n_layers)]


def suppression(
    model: NeuronModel, queries: Sequence[Prompt], sets: Mapping[str, Sequence[NeuronSet]]
) -> dict[str, Tensor]:
    """By how much p(answer) falls when one set is silent at the answer position, mean over queries.

    Parameters
    ----------
    sets : name -> one set for each layer.

    Returns
    -------
    name -> ``[layer]``
    """
    every = [each for own in sets.values() for each in own]
    lost = torch.zeros(len(queries), len(every), dtype=torch.float64)
    for indices, batch in model.batches(queries):
        before = model.answers(batch).logprob.double().exp().cpu()
        owners = [prompt for prompt in range(len(batch)) for _ in every]
        found = answers_of_rows(model, batch, every * len(batch), owners, [0.0] * len(owners))
        for rows, answer in found:
            after = answer.logprob.double().exp().cpu()
            for row, p in zip(rows, after.tolist(), strict=True):
                prompt, number = divmod(row, len(every))
                lost[indices[prompt], number] = before[prompt] - p
    by_set = lost.mean(0).split([len(own) for own in sets.values()])
    return dict(zip(sets, by_set, strict=True))
