"""Which neurons are alike in strength."""

from __future__ import annotations

from torch import Tensor

DECILES = 10


def deciles(values: Tensor) -> Tensor:
    """Which tenth of its layer each value is in, 0 the lowest: ``[prompt, layer, neuron]``."""
    ranks = values.argsort(dim=-1, stable=True).argsort(dim=-1)
    return ranks * DECILES // values.shape[-1]
