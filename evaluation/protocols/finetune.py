"""Fine-tuning of a few value vectors, and nothing else, on one fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.value_vectors import add_values, values_of, write_values
from kn_attrib.models.answer_loss import answer_loss
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet


@dataclass(frozen=True)
class Injection:
    """Value vectors that hold a new fact.

    Attributes
    ----------
    neurons : those that could be changed, the ground truth.
    changed : those of them that fine-tuning did change (a neuron that is silent at every token has no gradient).
    speaking : those changed ones that are active at the answer position of some prompt; the others, if they matter, do
        so at tokens before it, where no method here looks.
    vectors : their value vectors ``[neuron, hidden]`` afterwards.
    loss_before, loss : mean −log p of the new answer, in nats, before and with these vectors.
    steps : of Adam.
    """

    neurons: NeuronSet
    changed: NeuronSet
    speaking: NeuronSet
    vectors: Tensor
    loss_before: float
    loss: float
    steps: int


def inject(
    model: NeuronModel,
    prompts: Sequence[Prompt],
    neurons: NeuronSet,
    loss: float = 0.05,
    steps: int = 200,
    rate: float = 0.05,
) -> Injection:
    """Fine-tune the value vectors of some neurons, and nothing else, until a fact's answer is learnt.

    Adam on the sum that is added to the vectors, which moves them as Adam on the vectors themselves would; the model's
    weights are not touched (`write_values` puts the result there).

    Parameters
    ----------
    prompts : queries of the fact, whose answer is the new one.
    neurons : whose vectors may change.
    loss : stop below this mean −log p, in nats.
    steps : most steps.
    rate : of Adam.
    """
    before = values_of(model, neurons)
    deltas = torch.zeros_like(before, dtype=torch.promote_types(model.dtype, torch.float32)).requires_grad_()
    optimizer = torch.optim.Adam([deltas], rate)
    losses: list[float] = []
    while True:
        optimizer.zero_grad()
        with add_values(model, neurons, deltas):
            losses.append(answer_loss(model, prompts, backward=True))
        # Where every neuron is silent there is no gradient, and nothing can be learnt.
        if losses[-1] < loss or len(losses) > steps or deltas.grad is None or not bool(deltas.grad.any()):
            break
        optimizer.step()
    vectors = (before + deltas.detach()).to(before)
    moved = (vectors != before).any(1).tolist()
    changed = NeuronSet(neuron for neuron, did in zip(neurons, moved, strict=True) if did)
    with write_values(model, neurons, vectors):
        now = answer_loss(model, prompts)
    speaking = changed & active_at_answer(model, prompts)
    return Injection(neurons, changed, speaking, vectors, losses[0], now, len(losses) - 1)


def active_at_answer(model: NeuronModel, prompts: Sequence[Prompt]) -> NeuronSet:
    """Neurons whose activation at the answer position is not zero in some query.

    Parameters
    ----------
    prompts : at least one query.
    """
    active = torch.zeros(model.n_layers, model.n_neurons, dtype=torch.bool)
    for _, batch in model.batches(prompts):
        active |= (model.record(batch) != 0).any(0).cpu()
    return NeuronSet(Neuron(layer, i) for layer, i in active.nonzero().tolist())
