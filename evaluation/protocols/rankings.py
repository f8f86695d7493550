"""From scores to a share of the neurons, by layer or over the model, and how many of the true ones are in it."""

from __future__ import annotations

import math

from torch import Tensor

from kn_attrib.errors import ConfigError
from kn_attrib.neurons import Neuron, NeuronSet

CHANCE = "random"
"""The method that every other one is held against."""


def share_of(total: int, share: float) -> int:
    """How many of ``total`` neurons a share is: rounded, and at least one.

    >>> share_of(320, 0.05), share_of(320, 0.001)
    (16, 1)

    Raises
    ------
    ConfigError : the share is not above 0 and up to 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"ratio is {share}; expected a share of the neurons, above 0 and up to 1 (0.01 is 1 %).")
    return max(1, round(total * share))


def top_of_layers(values: Tensor, share: float, first_layer: int = 0) -> NeuronSet:
    """The highest scores of each layer, ``max(1, round(share · neurons))`` of them (ties: the earlier neuron).

    Parameters
    ----------
    values : ``[layer, neuron]``.
    first_layer : layers below it give none.
    """
    count = share_of(values.shape[1], share)
    order = values.double().sort(dim=1, descending=True, stable=True).indices[:, :count].tolist()
    return NeuronSet(Neuron(layer, i) for layer, row in enumerate(order) for i in row if layer >= first_layer)


def top_of_model(values: Tensor, share: float) -> NeuronSet:
    """The highest scores of the whole model (parameters as in `top_of_layers`)."""
    order = values.double().flatten().sort(descending=True, stable=True).indices
    chosen = order[: share_of(values.numel(), share)].tolist()
    return NeuronSet(Neuron(*divmod(i, values.shape[1])) for i in chosen)


def recall(predicted: NeuronSet, truth: NeuronSet) -> float:
    """``|predicted ∩ truth| / |truth|``; not a number where there is no truth.

    >>> recall(NeuronSet([(0, 1), (0, 2), (1, 4)]), NeuronSet([(0, 2), (1, 5)]))
    0.5
    """
    return len(predicted & truth) / len(truth) if len(truth) else math.nan
