"""Units other than neurons: a model seen as layers of directions or of attention heads.

A vector that a layer's linear reads is a sum of *units*, each a coefficient times a direction of length 1:
``vector = w @ B``, exactly. Directions are fixed or the vector's own (a reconstruction error, a head's share of the
vector). A `UnitModel` is read, scored and changed through its coefficients ``w`` as a `NeuronModel` is through its
activations, at the answer position.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from kn_attrib.errors import ConfigError, MethodError
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.forward.row_objective import RowObjective, objective_function
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import Edit, NeuronModel

ELSEWHERE = math.pi
"""What edits are shown at tokens that units are not read at: a value by which a change there can be told."""


class Basis(ABC):
    """How the vectors of each layer are made of units.

    Attributes
    ----------
    n_units : units of each layer.
    """

    n_units: int

    @abstractmethod
    def encode(self, layer: int, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """``vectors [row, neuron]`` -> coefficients ``[row, unit]``, and the directions that are the vectors' own,
        ``[row, neuron]``."""

    @abstractmethod
    def decode(self, layer: int, coefficients: Tensor, own: Tensor) -> Tensor:
        """Coefficients ``[row, unit]`` and own directions ``[row, neuron]`` -> ``[row, neuron]``; linear in the
        coefficients, and the inverse of `encode`."""


class Units(ABC):
    """A kind of units: a frozen dataclass whose fields are its parameters, with one method, `views`."""

    name: ClassVar[str] = ""

    @abstractmethod
    def views(self, model: NeuronModel, prompts: Sequence[Prompt]) -> dict[str, UnitModel]:
        """Views of a model, fitted where the kind asks for it on clean prompts: relation -> view.

        Every relation of the prompts has one; relations may share it. A view reads prompts of any relation.
        """

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Parameters and their default values."""
        return {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]  # its subclasses are dataclasses

    def params(self) -> dict[str, Any]:
        """The kind's parameters."""
        return {name: getattr(self, name) for name in self.defaults()}

    def __str__(self) -> str:
        changed = [f"{name}={value!r}" for name, value in self.params().items() if value != self.defaults()[name]]
        return f"{self.name}({', '.join(changed)})" if changed else self.name


class UnitModel(NeuronModel):
    """A view of a model in which "neurons" are units: coefficients take the place of activations.

    It shares everything with the model that it is a view of. Units are read and changed at the answer position; an
    intervention reads the vector as it then stands, changes coefficients and leaves the rest.

    Parameters
    ----------
    site : the model whose vectors the units make up.
    basis : how.
    label : how the units are called in results.
    """

    def __init__(self, site: NeuronModel, basis: Basis, label: str) -> None:
        # Not NeuronModel.__init__, which would look for neurons again: hooks and costs are to be the same ones.
        vars(self).update(vars(site))
        self.site = site
        self.basis = basis
        self.label = label
        self.name = f"{site.name}@{label}"
        # The wave scales neurons; units are scaled by whole passes (their rows, which are vectors, still take it).
        self.execution = site.execution.on_plain_path()

    @property
    def n_neurons(self) -> int:
        """Units in each layer."""
        return self.basis.n_units

    @property
    def positions(self) -> Tensor:
        """Answer position of each row of the pass that is running, through this view or the model itself."""
        return self.site.positions

    @contextmanager
    def running(self, positions: Tensor) -> Iterator[None]:
        """As of the model itself (see `NeuronModel.running`): whose hooks are at work besides, knows the positions."""
        with self.site.running(positions):
            yield

    @property
    def hook_points(self) -> Any:  # type: ignore[override]  # an attribute there; here asking for it is the mistake
        """Not for units.

        Raises
        ------
        MethodError : always; a hook point sees neurons.
        """
        raise MethodError(_neurons_only(self.label, "hooks on the neurons themselves (model.hook_points)"))

    @override
    def value_vectors(self, layer: int) -> Tensor:
        """Not for units.

        Raises
        ------
        MethodError : always; what a unit writes may depend on the prompt.
        """
        raise MethodError(_neurons_only(self.label, "each neuron's value vector, the same for every prompt"))

    def units(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Coefficients ``[prompt, layer, unit]`` and own directions ``[prompt, layer, neuron]`` of clean prompts."""
        return self.in_units(self.site.record(batch))

    def in_units(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """`Basis.encode` of all layers: ``[prompt, layer, neuron]`` -> ``[prompt, layer, unit]`` and own directions."""
        codes = [self.basis.encode(layer, vectors[:, layer]) for layer in range(self.n_layers)]
        coefficients, own = zip(*codes, strict=True)
        return torch.stack(coefficients, dim=1), torch.stack(own, dim=1)

    def directions(self, batch: Batch) -> Tensor:
        """The basis ``B`` of each clean vector: ``[prompt, layer, unit, neuron]``; ``vector = w @ B``."""
        _, own = self.units(batch)
        each = torch.eye(self.n_neurons, dtype=own.dtype, device=own.device)
        layers = []
        for layer in range(self.n_layers):
            bases = [self.basis.decode(layer, each, rest[layer].expand(len(each), -1)) for rest in own]
            layers.append(torch.stack(bases))
        return torch.stack(layers, dim=1)

    @contextmanager
    def edited(self, edits: dict[int, Edit]) -> Iterator[None]:
        """While active, the coefficients of each given layer's units pass through its edit.

        Parameters
        ----------
        edits : layer -> function of the coefficients ``[row, token, unit]``, to be changed at the answer position.

        Raises
        ------
        ConfigError : an edit changes another token.
        """
        with self.site.edited({layer: self._wrapped(layer, edit) for layer, edit in edits.items()}):
            yield

    def _wrapped(self, layer: int, edit: Edit) -> Edit:
        def change(vectors: Tensor) -> Tensor:
            rows = torch.arange(len(vectors), device=vectors.device)
            at = self.positions
            coefficients, own = self.basis.encode(layer, vectors[rows, at])
            shown = vectors.new_full((*vectors.shape[:2], self.n_neurons), ELSEWHERE)
            shown[rows, at] = coefficients
            found = edit(shown)
            touched = found.detach() != found.new_tensor(ELSEWHERE)
            touched[rows, at] = False
            if touched.any():
                raise ConfigError(
                    f"units of {self.name} are read and changed at the answer position only; use positions='answer'."
                )
            vectors = vectors.clone()
            vectors[rows, at] += self.basis.decode(layer, found[rows, at] - coefficients, own)
            return vectors

        return change


class UnitObjective(RowObjective):
    """``f_l(w @ B)``: the objective as a function of a view's coefficients, ``B`` that of the clean prompt.

    Parameters
    ----------
    view : whose coefficients rows are.
    function : the objective as a function of the vectors.
    """

    is_of_neurons = False

    def __init__(self, view: UnitModel, function: RowObjective) -> None:
        super().__init__(function.forward, function.budget)
        self.view = view
        self._activations, self._own = view.in_units(function.activations)

    @cached_property
    def activations(self) -> Tensor:
        """Clean coefficients: ``[prompt, layer, unit]``."""
        return self._activations

    def evaluate(self, rows: Tensor, layers: Tensor, prompts: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Objective of each row of coefficients and, if asked for, its gradient ``[row, unit]``."""
        with torch.set_grad_enabled(gradient):
            leaf = rows.detach().requires_grad_()
            vectors = self._vectors(leaf, layers, prompts)
            values, slopes = super().evaluate(vectors.detach(), layers, prompts, gradient)
            if slopes is None:
                return values, None
            (slope,) = torch.autograd.grad(vectors, leaf, slopes.to(vectors))
        return values, slope

    def _vectors(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        where = [(layers == layer).nonzero()[:, 0] for layer in range(self.view.n_layers)]
        parts = [
            self.view.basis.decode(layer, rows[here].to(self._own), self._own[prompts[here], layer])
            for layer, here in enumerate(where)
        ]
        return torch.cat(parts)[torch.cat(where).argsort()]


@objective_function.register
def unit_objective(model: UnitModel, batch: Batch, objective: Objective = "prob") -> RowObjective:
    """`objective_function` of a view's coefficients."""
    return UnitObjective(model, objective_function(model.site, batch, objective))


def _neurons_only(label: str, what: str) -> str:
    return (
        f"this method reads {what}, so it cannot score units ({label!r}); use it without '@…', or a method that goes "
        "through model.record or objective_function, such as integrated_gradients or ablation."
    )
