"""Vectors that are added to value vectors, learnt by gradient so that the target is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.value_vectors import add_values
from kn_attrib.models.answer_loss import answer_loss
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet


@dataclass(frozen=True)
class Learning:
    """How vectors are learnt.

    Parameters
    ----------
    steps : most steps of Adam.
    rate : of Adam, in units of ``sizes``.
    stop : stop below this mean −log p of the target, in nats.
    limit : what holds the vectors small after each step, as a function of them in units of ``sizes``.
    """

    steps: int
    rate: float
    stop: float
    limit: Callable[[Tensor], Tensor]


def learnt_vectors(
    model: NeuronModel, queries: Sequence[Prompt], neurons: NeuronSet, sizes: Tensor, learning: Learning
) -> Tensor:
    """What is to be added to the neurons' value vectors, ``[neuron, hidden]``; no weight is touched.

    Minimises the mean over texts of the mean over tokens of −log p(token) by Adam on ``added / sizes``, from 0.

    Parameters
    ----------
    queries : of the edit's texts, asked for the target.
    sizes : ``[neuron, 1]``, in at least single precision.
    """
    scaled = torch.zeros(len(neurons), model.value_vectors(0).shape[1], dtype=sizes.dtype, device=sizes.device)
    optimizer = torch.optim.Adam([scaled], learning.rate)
    for _ in range(learning.steps):
        added = (sizes * scaled).requires_grad_()
        with add_values(model, neurons, added):
            loss = answer_loss(model, queries, backward=True)
        # Where every neuron is silent there is no gradient, and nothing can be learnt.
        if loss < learning.stop or added.grad is None or not bool(added.grad.any()):
            break
        scaled.grad = sizes * added.grad
        optimizer.step()
        scaled.copy_(learning.limit(scaled))
    return sizes * scaled
