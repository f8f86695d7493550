"""Activations at all tokens, and from there to the answer position."""

from __future__ import annotations

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import Edit, NeuronModel


def at_answer(vectors: Tensor, batch: Batch) -> Tensor:
    """``[prompt, token, neuron]`` -> ``[prompt, neuron]`` at each prompt's answer position."""
    return vectors[torch.arange(len(batch), device=vectors.device), batch.positions]


def record_all(model: NeuronModel, positions: Tensor, **inputs: Tensor) -> Tensor:
    """Neuron activations at all tokens, ``[prompt, layer, token, neuron]``; parameters as of `NeuronModel.logits`."""
    recorded: dict[int, Tensor] = {}

    def keep(layer: int) -> Edit:
        return lambda vectors: recorded.setdefault(layer, vectors)

    with torch.no_grad(), model.edited({layer: keep(layer) for layer in range(model.n_layers)}):
        model.final(positions, **inputs)
    return torch.stack([recorded[layer] for layer in range(model.n_layers)], dim=1)
