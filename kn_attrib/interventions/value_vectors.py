"""Context managers that change value vectors; weights are put back bit for bit on any exit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.errors import ModelError, NeuronError
from kn_attrib.interventions.activations import Neurons
from kn_attrib.models.matrices import value_matrix
from kn_attrib.models.neuron_model import NeuronModel, check_neurons
from kn_attrib.neurons import NeuronSet

RowIndices = Tensor | list[int] | slice


def values_of(model: NeuronModel, neurons: Neurons) -> Tensor:
    """Copies of the neurons' value vectors: ``[neuron, hidden]`` in the set's sorted order.

    Raises
    ------
    NeuronError : a neuron does not exist in the model.
    """
    chosen = check_neurons(model, NeuronSet(neurons))
    width = model.value_vectors(0).shape[1]
    rows = [model.value_vectors(layer)[index] for layer, index in chosen]
    return torch.stack(rows) if rows else torch.empty(0, width, dtype=model.dtype, device=model.device)


@contextmanager
def write_values(model: NeuronModel, neurons: Neurons, vectors: Tensor) -> Iterator[None]:
    """While active, the neurons' value vectors *are* ``vectors``: the weights themselves, for all who run the model.

    Parameters
    ----------
    vectors : ``[neuron, hidden]`` in the set's sorted order.

    Raises
    ------
    NeuronError : a neuron does not exist, or ``vectors`` has another shape than the neurons' value vectors.
    ModelError : layers share their feed-forward weights, so that no layer's can be changed alone.
    """
    places = _places(model, neurons, vectors)
    with write_rows(model, [(matrix, indices, vectors[members]) for matrix, indices, members in places]):
        yield


@contextmanager
def write_rows(model: NeuronModel, places: Sequence[tuple[Tensor, RowIndices, Tensor]]) -> Iterator[None]:
    """While active, rows of some weights are others.

    Parameters
    ----------
    places : weights (``[row, …]``, also as a view), which of their rows change, and into what.
    """
    # The digest is of the weights that it was asked for.
    known = model.__dict__.pop("digest", None)
    kept = [weight.detach()[rows].clone() for weight, rows, _ in places]
    try:
        for weight, rows, new in places:
            weight.detach()[rows] = new.detach().to(weight)
        yield
    finally:
        model.__dict__.pop("digest", None)
        _put_back([(weight, rows, old) for (weight, rows, _), old in zip(places, kept, strict=True)])
        if known is not None:
            model.__dict__["digest"] = known


def _put_back(places: Sequence[tuple[Tensor, RowIndices, Tensor]]) -> None:
    """Write rows; who interrupts that has them written all the same."""
    interrupted: KeyboardInterrupt | None = None
    for weight, rows, old in places:
        try:
            weight.detach()[rows] = old
        except KeyboardInterrupt as error:
            interrupted = error
            weight.detach()[rows] = old
    if interrupted is not None:
        raise interrupted


@contextmanager
def add_values(model: NeuronModel, neurons: Neurons, deltas: Tensor) -> Iterator[None]:
    """While active, the neurons write their value vectors plus ``deltas``; results can be differentiated by these.

    ``out + a[…, chosen] @ deltas`` at every token, which is what the changed weights would give; no weight is touched.

    Parameters
    ----------
    deltas : ``[neuron, hidden]`` in the set's sorted order.

    Raises
    ------
    NeuronError, ModelError : as in `write_values`.
    """
    handles = []
    try:
        for layer, (_, indices, members) in zip(_layers(neurons), _places(model, neurons, deltas), strict=True):
            handles.append(model.ffn_outputs[layer].register_forward_hook(_adding(indices, deltas, members)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(indices: Tensor, deltas: Tensor, members: Tensor) -> Any:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + inputs[0][..., indices] @ deltas[members].to(output.dtype)

    return hook


def _layers(neurons: Neurons) -> list[int]:
    return sorted(NeuronSet(neurons).layers)


def _places(model: NeuronModel, neurons: Neurons, vectors: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each layer: its value matrix (the weights), the neurons' indices, and their rows in ``vectors``."""
    if model.architecture.shared_module:
        raise ModelError(f"{model.name}: layers share their feed-forward weights; one layer's cannot be changed alone.")
    chosen = check_neurons(model, NeuronSet(neurons))
    expected = (len(chosen), model.value_vectors(0).shape[1])
    if tuple(vectors.shape) != expected:
        raise NeuronError(f"vectors have shape {list(vectors.shape)}; expected {list(expected)}, [neuron, hidden].")
    found = []
    for layer in _layers(chosen):
        members = [row for row, neuron in enumerate(chosen) if neuron.layer == layer]
        indices = [chosen.neurons[row].index for row in members]
        matrix = value_matrix(model.ffn_outputs[layer]).detach()
        found.append((matrix, torch.tensor(indices, device=matrix.device), torch.tensor(members)))
    return found
