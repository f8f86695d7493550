"""Activation rows of a batch: one for each prompt and layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """All (prompt, layer) rows of a batch, prompt-major.

    Attributes
    ----------
    activations : ``[row, neuron]`` (or ``[row, token, neuron]``), the clean activations.
    layers, prompts : ``[row]``.
    """

    activations: Tensor
    layers: Tensor
    prompts: Tensor

    @classmethod
    def of(cls, activations: Tensor) -> Rows:
        """Rows of recorded activations ``[prompt, layer, neuron]`` or ``[prompt, layer, token, neuron]``."""
        n_prompts, n_layers = activations.shape[:2]
        layers = torch.arange(n_layers, device=activations.device).repeat(n_prompts)
        prompts = torch.arange(n_prompts, device=activations.device).repeat_interleave(n_layers)
        return cls(activations.flatten(0, 1), layers, prompts)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, part: slice | Tensor) -> Rows:
        return Rows(self.activations[part], self.layers[part], self.prompts[part])

    def chunks(self, size: int) -> list[Rows]:
        """Consecutive pieces of at most ``size`` rows (at least one row each)."""
        size = max(1, size)
        return [self[start : start + size] for start in range(0, len(self), size)]
