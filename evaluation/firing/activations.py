"""Mean activations of all neurons over groups of texts, set against random texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.neuron_model import NeuronModel

OWN, OTHERS = "own", "same layers"
OF = {OWN: "the fact's neurons", OTHERS: "all other neurons of the same layers"}
STANDARDISED, ACTIVATION = "standardised", "activation"


class Normal(NamedTuple):
    """Mean and standard deviation of every neuron over random words of random texts: ``[layer, neuron]``."""

    mean: Tensor
    deviation: Tensor

    def standardised(self, values: Tensor) -> Tensor:
        """``(a − μ) / (σ + s₀)`` of activations ``[layer, neuron]``; ``s₀`` is the root mean square ``σ`` of the layer.

        Without ``s₀`` neurons that are all but silent on random text would be hundreds of deviations away wherever they
        fire, and a mean over neurons would be about these alone. In a layer that is silent throughout all are at 0.

        Reference
        ---------
        Tusher, Tibshirani, Chu 2001, PNAS 98: 5116 (the constant added to the deviation in SAM).
        """
        unit = self.deviation + self.deviation.pow(2).mean(1, keepdim=True).sqrt()
        return torch.where(unit > 0, (values - self.mean) / unit, 0.0)


def group_means(model: NeuronModel, groups: Sequence[Sequence[Prompt]]) -> Tensor:
    """Mean activations at the answer position over each of some groups of prompts: ``[group, layer, neuron]``."""
    sums, _ = _sums(model, groups)
    return sums / torch.tensor([len(prompts) for prompts in groups])[:, None, None]


def normal_of(model: NeuronModel, prompts: Sequence[Prompt]) -> Normal:
    """Mean and standard deviation (``n − 1``) of every neuron over some prompts."""
    (total,), (squares,) = _sums(model, [prompts])
    n = len(prompts)
    mean = total / n
    return Normal(mean, ((squares - n * mean**2).clamp_min(0) / max(1, n - 1)).sqrt())


def _sums(model: NeuronModel, groups: Sequence[Sequence[Prompt]]) -> tuple[Tensor, Tensor]:
    """Sums of activations and of their squares over each group, in double precision."""
    owners = torch.tensor([number for number, prompts in enumerate(groups) for _ in prompts])
    sums = torch.zeros(len(groups), model.n_layers, model.n_neurons, dtype=torch.float64)
    squares = torch.zeros_like(sums)
    for indices, batch in model.batches([prompt for prompts in groups for prompt in prompts]):
        activations = model.record(batch).cpu().double()
        sums.index_add_(0, owners[indices], activations)
        squares.index_add_(0, owners[indices], activations**2)
    return sums, squares


def measures(mean: Tensor, signs: Tensor, normal: Normal, chosen: Tensor) -> Iterator[tuple[str, str, float]]:
    """Of whom, metric and value: of some neurons, and of the other neurons of their layers.

    Parameters
    ----------
    mean : ``[layer, neuron]``, mean activations over a group of texts.
    signs : ``[layer, neuron]``, 1 or −1.
    chosen : ``[neuron]``, places in the flattened layers.
    """
    far = signs * normal.standardised(mean)
    layers = chosen // mean.shape[1]
    left = torch.ones_like(mean, dtype=torch.bool)
    left.view(-1)[chosen] = False
    for metric, values in ((STANDARDISED, far), (ACTIVATION, mean)):
        others = torch.where(left, values, 0).sum(1) / left.sum(1)
        yield OWN, metric, float(values.flatten()[chosen].mean())
        yield OTHERS, metric, float(others[layers].mean())
