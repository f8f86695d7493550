"""Deletion and insertion: the answer without a method's best neurons, and with nothing but them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kn_attrib.evaluation.measure.outcomes import Evaluator, Outcome, Single
from kn_attrib.evaluation.vocabulary import DELETE, KEEP, SHARES
from kn_attrib.facts.prompts import Text
from kn_attrib.interventions.masks import masked_logprob

ROWS_AT_ONCE = 256


def masks_of(mean: Tensor) -> tuple[list[str], Tensor]:
    """Names and masks ``[mask, layer, neuron]`` of all points of both curves.

    Parameters
    ----------
    mean : scores ``[layer, neuron]``; the highest go (or stay) first, ties: the earlier neuron.
    """
    order = mean.double().flatten().sort(descending=True, stable=True).indices
    names, masks = [], []
    for share in SHARES:
        top = torch.zeros(mean.numel())
        top[order[: round(share * mean.numel())]] = 1
        names += [f"{DELETE} {share}", f"{KEEP} {share}"]
        masks += [1 - top, top]
    return names, torch.stack(masks).view(-1, *mean.shape)


def curve_outcomes(evaluator: Evaluator, texts: Sequence[Text], masks: Tensor) -> list[list[Outcome]]:
    """Outcomes of every text under every mask: mask -> text -> outcome."""
    model = evaluator.model
    jobs = [(m, query) for m in range(len(masks)) for text in texts for query in text.queries]
    found: list[Single] = [(0.0, 0, 0)] * len(jobs)
    for indices, batch in model.batches([query for _, query in jobs], ROWS_AT_ONCE):
        which = torch.tensor([jobs[i][0] for i in indices])
        with torch.no_grad():
            logprobs = masked_logprob(model, batch, masks[which].to(model.device)).tolist()
        for index, logprob in zip(indices, logprobs, strict=True):
            found[index] = (logprob, 0, 0)
    size = sum(len(text) for text in texts)
    return [evaluator.joined(texts, found[m * size : (m + 1) * size]) for m in range(len(masks))]
