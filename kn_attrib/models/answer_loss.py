"""How far a model is from giving the answers that queries ask for, and the gradient of that."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kn_attrib.facts.prompts import Prompt, texts_of
from kn_attrib.models.answers import objective_value
from kn_attrib.models.neuron_model import NeuronModel


def answer_loss(model: NeuronModel, prompts: Sequence[Prompt], backward: bool = False) -> float:
    """Mean over texts of the mean over answer tokens of −log p(token), in nats.

    Parameters
    ----------
    prompts : the queries of a fact.
    backward : also differentiate it, batch by batch.
    """
    count, total = len(texts_of(prompts)), 0.0
    for _, batch in model.batches(prompts):
        with torch.set_grad_enabled(backward):
            logits = model.logits(batch.positions, **batch.inputs())
            logprobs = objective_value(logits, batch.answers, "logprob")
            weights = torch.tensor([1 / (count * p.tokens) for p in batch.prompts], dtype=torch.float64).to(logprobs)
            loss = -(weights * logprobs).sum()
            if backward:
                loss.backward()
        total += float(loss.detach())
    return total
