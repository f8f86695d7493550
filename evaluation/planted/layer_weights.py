"""Feed-forward neurons whose weights are being written: read, held and put in place by hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kn_attrib.models.anatomy import input_linears
from kn_attrib.models.matrices import value_matrix
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron


class Start(NamedTuple):
    """What the training of one neuron starts from."""

    neuron: Neuron
    key: Tensor
    bias: Tensor
    value: Tensor
    scale: float
    """How much of its value it writes."""
    fixed: bool
    """A decoy: its value is not trained."""
    fresh: bool
    """What it did before is lost."""


@dataclass
class PlantedLayer:
    """The weights of one layer's neurons that are being written."""

    paths: list[nn.Linear | Conv1D]
    """The linears that make the neurons (`input_linears`)."""
    neurons: list[Neuron]
    keys: Tensor
    biases: Tensor | None
    values: Tensor
    scale: Tensor
    """How much of its value a neuron writes: ``[neuron]``."""
    fixed: Tensor
    """1 for decoys, whose values are not trained: ``[neuron]``."""
    fresh: Tensor
    """1 for neurons that shall be silent at other positions, 0 for those that keep what they did: ``[neuron]``."""
    activity: Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def of(cls, paths: list[nn.Linear | Conv1D], starts: Sequence[Start]) -> PlantedLayer:
        """The weights that training starts from."""
        keys = torch.stack([start.key for start in starts])
        values = torch.stack([start.value for start in starts])
        biases = None
        if isinstance(paths[0].bias, Tensor):
            biases = torch.stack([start.bias for start in starts]).requires_grad_()
        return cls(
            paths=paths,
            neurons=[start.neuron for start in starts],
            keys=keys.requires_grad_(),
            biases=biases,
            values=values.requires_grad_(),
            scale=torch.tensor([start.scale for start in starts]).to(keys),
            fixed=torch.tensor([float(start.fixed) for start in starts]).to(keys),
            fresh=torch.tensor([float(start.fresh) for start in starts]).to(keys),
        )

    @property
    def index(self) -> list[int]:
        """The neurons' places in the layer."""
        return [n.index for n in self.neurons]

    @property
    def written(self) -> Tensor:
        """What each neuron writes: ``[neuron, hidden]``; decoys get no gradient."""
        held = self.fixed[:, None]
        return self.scale[:, None] * (self.values.detach() * held + self.values * (1 - held))


@contextmanager
def seen_inputs(model: NeuronModel, layer: int) -> Iterator[list[Tensor]]:
    """While active, what enters a layer's feed-forward block is put in the list."""
    seen: list[Tensor] = []
    handle = input_linears(model, layer)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def written(model: NeuronModel, layer: int, weights: PlantedLayer, decoys: bool = False) -> Iterator[None]:
    """While active, the layer's neurons have the weights that are being trained; gradients reach these.

    Parameters
    ----------
    decoys : gradients reach the values of decoys too.
    """
    index = torch.tensor(weights.index, device=model.device)
    handles = []
    for path, linear in enumerate(weights.paths):

        def keyed(_: object, inputs: tuple[Tensor, ...], output: Tensor, path: int = path) -> Tensor:
            found = inputs[0] @ weights.keys[:, path].T
            found = found if weights.biases is None else found + weights.biases[:, path]
            return output.index_copy(-1, index, found)

        handles.append(linear.register_forward_hook(keyed))
    old = value_matrix(model.ffn_outputs[layer]).detach()[index]

    def valued(_: object, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        active = inputs[0][..., index]
        whole = active.reshape(len(model.positions), -1, len(index))
        asked = torch.arange(whole.shape[1], device=model.device) == model.positions[:, None]
        weights.activity = ((whole.square() * weights.fresh).mean(-1) * ~asked).sum() / (~asked).sum().clamp_min(1)
        return output + active @ ((weights.values if decoys else weights.written) - old)

    handles.append(model.ffn_outputs[layer].register_forward_hook(valued))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
