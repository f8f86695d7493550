"""What sets of neurons are worth: the answer's probability over a fact's texts with a set silent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Prompt, by_text
from kn_attrib.forward.batching import batches_of
from kn_attrib.interventions.many_rows import answers_of_rows
from kn_attrib.interventions.masks import masked_logprob
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet

QUERIES_AT_ONCE = 256
Measure = Literal["prob", "logodds"]
"""Of a text's answer: its probability, or ``log p/(1 − p)``, which still falls where the probability is almost 1."""


class _Place(NamedTuple):
    """A query, the index of its fact, and which of the fact's queries it is."""

    fact: int
    place: int
    query: Prompt


def _places(queries: Sequence[Sequence[Prompt]]) -> list[_Place]:
    return [_Place(fact, place, query) for fact, own in enumerate(queries) for place, query in enumerate(own)]


def values_of_sets(
    model: NeuronModel,
    queries: Sequence[Sequence[Prompt]],
    jobs: Sequence[tuple[int, NeuronSet]],
    measure: Measure = "prob",
) -> Tensor:
    """Mean over a fact's texts of the answer's measure while the neurons of a set are silent at the answer position.

    Parameters
    ----------
    queries : the queries of each fact, a text's side by side.
    jobs : index of the fact, and a set.
    measure : what is averaged over texts.

    Returns
    -------
    ``[job]``
    """
    jobs_of: dict[int, list[int]] = defaultdict(list)
    for job, (fact, _) in enumerate(jobs):
        jobs_of[fact].append(job)
    logprobs = [torch.zeros(len(queries[fact]), dtype=torch.float64) for fact, _ in jobs]
    wanted = [each for each in _places(queries) if each.fact in jobs_of]
    for indices, batch in batches_of(model, [each.query for each in wanted], QUERIES_AT_ONCE, any_length=True):
        # A row for each set that a query is asked with.
        rows = [(prompt, wanted[i].place, job) for prompt, i in enumerate(indices) for job in jobs_of[wanted[i].fact]]
        sets = [jobs[job][1] for _, _, job in rows]
        prompts = [prompt for prompt, _, _ in rows]
        for some, found in answers_of_rows(model, batch, sets, prompts, [0.0] * len(rows)):
            for row, value in zip(some, found.logprob.tolist(), strict=True):
                _, place, job = rows[row]
                logprobs[job][place] = value
    means = torch.zeros(len(jobs), dtype=torch.float64)
    for job, (fact, _) in enumerate(jobs):
        means[job] = _measured(by_text(logprobs[job], queries[fact]), measure).mean()
    return means


def _measured(logprobs: Tensor, measure: Measure) -> Tensor:
    if measure == "prob":
        return logprobs.exp()
    return logprobs - _log_of_rest(logprobs)


def _log_of_rest(logprobs: Tensor) -> Tensor:
    """``log(1 − p)``; as small as single precision can tell where p is 1 to its last digit."""
    return torch.log(-torch.expm1(logprobs.clamp_max(-1e-7)))


def slopes_of_sets(
    model: NeuronModel, queries: Sequence[Sequence[Prompt]], sets: Sequence[NeuronSet], measure: Measure = "prob"
) -> Tensor:
    """First-order estimate of what removing one more neuron costs while each fact's set is silent.

    ``d mean measure / d m_i`` at the mask that is 0 on the set and 1 elsewhere: activation times gradient in the
    model as it is with the set silent.

    Returns
    -------
    ``[fact, layer, neuron]``, 0 on the set itself.
    """
    masks = torch.ones(len(sets), model.n_layers, model.n_neurons, dtype=model.dtype, device=model.device)
    for mask, neurons in zip(masks, sets, strict=True):
        for neuron in neurons:
            mask[neuron.layer, neuron.index] = 0
    present = masks.clone()
    places = _places(queries)
    gradients: list[list[Tensor]] = [[masks[0]] * len(own) for own in queries]
    logprobs = [torch.zeros(len(own), dtype=torch.float64) for own in queries]
    for indices, batch in model.batches([each.query for each in places], QUERIES_AT_ONCE):
        with torch.enable_grad():
            leaf = masks[[places[i].fact for i in indices]].requires_grad_()
            values = masked_logprob(model, batch, leaf)
            (slope,) = torch.autograd.grad(values.sum(), leaf)
        for row, i in enumerate(indices):
            fact, place, _ = places[i]
            gradients[fact][place] = slope[row]
            logprobs[fact][place] = float(values[row].detach())
    slopes = [
        _joined(of_queries, logprob, own, measure)
        for of_queries, logprob, own in zip(gradients, logprobs, queries, strict=True)
    ]
    return torch.stack(slopes) * present


def _joined(gradients: list[Tensor], logprobs: Tensor, queries: Sequence[Prompt], measure: Measure) -> Tensor:
    """Gradient of the mean over texts of the measure of ``Σ log p`` from those of the single tokens' ``log p``."""
    sums = by_text(logprobs, queries)
    weights = sums.exp() if measure == "prob" else (-_log_of_rest(sums)).exp()
    texts = by_text(torch.stack(gradients), queries)
    return (weights.to(texts)[:, None, None] * texts).mean(0)
