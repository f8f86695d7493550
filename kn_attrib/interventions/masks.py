"""Facts under masks on all feed-forward neurons: differentiable, and learnt for many facts side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch, Prompt, texts_of
from kn_attrib.models.neuron_model import Edit, NeuronModel

Gates = Callable[[Tensor, int], Tensor]
"""Parameters ``[fact, layer, neuron]`` and the number of the step -> masks of the same shape."""


def masked_logprob(model: NeuronModel, batch: Batch, masks: Tensor, baselines: Tensor | None = None) -> Tensor:
    """Log-probability of each gold token with the activations at the answer position under ``masks``.

    ``b + m ⊙ (a − b)`` in every layer at once, ``a`` as it then stands, so that early gates act on late activations.

    Parameters
    ----------
    masks : ``[prompt, layer, neuron]``; the result can be differentiated with respect to them.
    baselines : ``b``, of the same shape; zero if not given.

    Returns
    -------
    ``[prompt]``
    """

    def edit_of(layer: int) -> Edit:
        def edit(vectors: Tensor) -> Tensor:
            rows = torch.arange(len(vectors), device=vectors.device)
            vectors = vectors.clone()
            mask = masks[:, layer].to(vectors.dtype)
            away: Tensor | float = 0.0 if baselines is None else baselines[:, layer].to(vectors.dtype)
            vectors[rows, model.positions] = away + mask * (vectors[rows, model.positions] - away)
            return vectors

        return edit

    with model.edited({layer: edit_of(layer) for layer in range(model.n_layers)}):
        return model.gold(batch.positions, batch.answers, **batch.inputs()).logprob


@dataclass(frozen=True)
class MaskedQuery:
    """One query under the mask of one fact.

    Attributes
    ----------
    prompt : the query, of that fact or of another one (a control).
    fact : index of the fact whose mask is applied.
    weight : its part of the fact's loss.
    control : whether it is a control.
    """

    prompt: Prompt
    fact: int
    weight: float
    control: bool = False


def own_queries(prompts: Sequence[Prompt], facts: Sequence[str]) -> list[MaskedQuery]:
    """Each fact's queries under its own mask, weighted so that they make the mean over its texts.

    Parameters
    ----------
    facts : ids; a fact's mask has its index in this list.
    """
    place = {fact: index for index, fact in enumerate(facts)}
    texts = [text for text in texts_of(prompts) if text.fact.id in place]
    counts = [0] * len(facts)
    for text in texts:
        counts[place[text.fact.id]] += 1
    return [
        MaskedQuery(query, place[text.fact.id], 1 / counts[place[text.fact.id]])
        for text in texts
        for query in text.queries
    ]


def masked_batches(
    model: NeuronModel, queries: Sequence[MaskedQuery], max_rows: int
) -> Iterator[tuple[list[MaskedQuery], Batch]]:
    """Queries of equal length together, with their batch."""
    for indices, batch in model.batches([query.prompt for query in queries], max_rows):
        yield [queries[i] for i in indices], batch


def learn_masks(
    model: NeuronModel,
    queries: Sequence[MaskedQuery],
    start: Tensor,
    gates: Gates,
    loss: Callable[[Tensor, Sequence[MaskedQuery]], Tensor],
    penalty: Callable[[Tensor], Tensor],
    steps: int,
    rate: float,
    limits: tuple[float, float] | None = None,
    max_rows: int = 256,
) -> Tensor:
    """Minimise, for every fact on its own, the loss of its queries under its mask plus a penalty on the mask.

    Adam moves each entry by its own gradients alone, so facts learnt side by side are learnt as if one by one.

    Parameters
    ----------
    start : parameters ``[fact, layer, neuron]`` to begin with.
    gates : from parameters and step to masks.
    loss : log-probabilities ``[query]`` and their queries -> summed loss, weights included.
    penalty : parameters -> summed penalty.
    steps, rate : of Adam.
    limits : parameters are kept between them.

    Returns
    -------
    Parameters ``[fact, layer, neuron]`` after the last step.
    """
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameters], rate)
    groups = list(masked_batches(model, queries, max_rows))
    for step in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            for some, batch in groups:
                facts = torch.tensor([query.fact for query in some], device=parameters.device)
                masks = gates(parameters, step)[facts]
                loss(masked_logprob(model, batch, masks), some).backward()
            penalty(parameters).backward()
        optimizer.step()
        if limits is not None:
            with torch.no_grad():
                parameters.clamp_(*limits)
    return parameters.detach()


def weights_of(queries: Sequence[MaskedQuery], like: Tensor) -> Tensor:
    """Weights of queries as a tensor ``[query]``."""
    return torch.tensor([query.weight for query in queries], dtype=like.dtype, device=like.device)


def negative_log_likelihood(logprobs: Tensor, queries: Sequence[MaskedQuery]) -> Tensor:
    """``−Σ weight · log p``: the sum over facts of the mean over a fact's texts."""
    return -(weights_of(queries, logprobs) * logprobs).sum()
