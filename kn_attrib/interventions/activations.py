"""Context managers that change neurons' activations; every change is undone on any exit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from kn_attrib.errors import ConfigError, NeuronError
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import Edit, NeuronModel, check_neurons
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.neurons import NeuronSet

Positions = Literal["answer", "all"]
Neurons = NeuronSet | Iterable[tuple[int, int]]


@contextmanager
def suppress(model: NeuronModel, neurons: Neurons, positions: Positions = "answer") -> Iterator[None]:
    """While active, the neurons' activations are zero.

    Parameters
    ----------
    model : the model to intervene on.
    neurons : which neurons.
    positions : ``"answer"`` (only where the answer is predicted) or ``"all"`` tokens.

    Raises
    ------
    NeuronError : a neuron does not exist in the model.
    """
    with amplify(model, neurons, 0.0, positions):
        yield


@contextmanager
def amplify(
    model: NeuronModel, neurons: Neurons, factor: float = 2.0, positions: Positions = "answer"
) -> Iterator[None]:
    """While active, the neurons' activations are multiplied by ``factor`` (parameters as in `suppress`)."""
    with _changed(model, neurons, positions, lambda vectors, _: vectors * factor):
        yield


@contextmanager
def set_activation(
    model: NeuronModel, neurons: Neurons, value: float | Tensor, positions: Positions = "answer"
) -> Iterator[None]:
    """While active, the neurons' activations are ``value``.

    Parameters
    ----------
    value : one number for all, or a tensor ``[neuron]`` in the set's sorted order.

    Raises
    ------
    NeuronError : a neuron does not exist, or ``value`` has another length than the set.
    """
    check_model(model)
    chosen = NeuronSet(neurons)
    with torch_defaults(gradients=False):
        values = torch.as_tensor(value, device=model.device, dtype=model.dtype)
    if values.ndim and values.shape != (len(chosen),):
        raise NeuronError(f"value has shape {list(values.shape)}; expected one number or [{len(chosen)}].")
    values = values.expand(len(chosen))
    with _changed(model, chosen, positions, lambda _, members: values[members]):
        yield


@contextmanager
def scale_rows(
    model: NeuronModel,
    sets: Sequence[NeuronSet],
    factor: float | Sequence[float],
    shifts: Sequence[Sequence[float]] | None = None,
    positions: Positions = "answer",
) -> Iterator[None]:
    """While active, in row ``r`` of a batch the neurons of ``sets[r]`` are ``factor · a + shift``.

    Parameters
    ----------
    sets : one per row.
    factor : one for all rows, or one per row.
    shifts : for each row nothing, or one number per neuron of its set.
    positions : ``"answer"`` or ``"all"`` tokens.

    The many-sets-at-once form of `suppress` and `amplify`: rows never influence one another, so one forward
    pass evaluates as many different sets as it has rows.
    """
    _check_positions(positions)
    by = [factor] * len(sets) if isinstance(factor, int | float) else factor
    plus = shifts or [()] * len(sets)
    entries: dict[int, list[tuple[int, int, float, float]]] = defaultdict(list)
    for row, neurons in enumerate(sets):
        own = plus[row] or [0.0] * len(neurons)
        for (layer, index), shift in zip(check_neurons(model, neurons), own, strict=True):
            entries[layer].append((row, index, by[row], shift))
    with model.edited({layer: _scale(model, found, positions) for layer, found in entries.items()}):
        yield


def _check_positions(positions: str) -> None:
    if positions not in ("answer", "all"):
        raise ConfigError(f"positions is {positions!r}; expected 'answer' or 'all'.")


@contextmanager
def ablate_layers(model: NeuronModel, layers: Iterable[int] | None = None) -> Iterator[None]:
    """While active, whole feed-forward vectors are zero at the answer position (default: in every layer)."""

    def zero(vectors: Tensor) -> Tensor:
        vectors = vectors.clone()
        vectors[torch.arange(len(vectors), device=vectors.device), model.positions] = 0
        return vectors

    chosen = range(model.n_layers) if layers is None else layers
    with model.edited(dict.fromkeys(chosen, zero)):
        yield


@torch_defaults()
def _scale(model: NeuronModel, entries: Sequence[tuple[int, int, float, float]], positions: Positions) -> Edit:
    """Change neurons of rows: ``(row, neuron, factor, shift)``."""
    where, neurons, by, plus = zip(*entries, strict=True)
    rows = torch.tensor(where, device=model.device)
    indices = torch.tensor(neurons, device=model.device)
    factors = torch.tensor(by, device=model.device, dtype=model.dtype)
    shifts = torch.tensor(plus, device=model.device, dtype=model.dtype)

    def edit(vectors: Tensor) -> Tensor:
        vectors = vectors.clone()
        if positions == "all":
            vectors[rows, :, indices] = vectors[rows, :, indices] * factors[:, None] + shifts[:, None]
        else:
            at = model.positions[rows]
            vectors[rows, at, indices] = vectors[rows, at, indices] * factors + shifts
        return vectors

    return edit


@contextmanager
def _changed(
    model: NeuronModel, neurons: Neurons, positions: Positions, change: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Apply ``change(vectors [..., member], members)`` to the neurons of each layer."""
    check_model(model)
    _check_positions(positions)
    chosen = check_neurons(model, NeuronSet(neurons))
    members: dict[int, list[int]] = defaultdict(list)
    for member, neuron in enumerate(chosen):
        members[neuron.layer].append(member)

    @torch_defaults()  # indices made in inference mode could not be used where gradients are recorded
    def edit_of(layer: int) -> Edit:
        ids = torch.tensor(members[layer], device=model.device)
        indices = torch.tensor([chosen.neurons[m].index for m in members[layer]], device=model.device)

        def edit(vectors: Tensor) -> Tensor:
            vectors = vectors.clone()
            if positions == "all":
                vectors[..., indices] = change(vectors[..., indices], ids)
            else:
                rows = torch.arange(len(vectors), device=vectors.device)[:, None]
                at = model.positions[:, None]
                vectors[rows, at, indices] = change(vectors[rows, at, indices], ids)
            return vectors

        return edit

    with model.edited({layer: edit_of(layer) for layer in members}):
        yield
