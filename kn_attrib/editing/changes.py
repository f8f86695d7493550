"""The two forms of a change of one layer's value vectors, the matrix ``[neuron, hidden]``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from kn_attrib.errors import EditError
from kn_attrib.interventions.value_vectors import RowIndices

NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Kinds of numbers that a change may have: those that can be added to weights of any of them."""


@dataclass(frozen=True, eq=False)
class Change(ABC):
    """What is added to the value vectors of one layer.

    Parameters
    ----------
    layer : which one.
    """

    layer: int

    @property
    @abstractmethod
    def rows(self) -> RowIndices:
        """The neurons whose vectors change."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of what is added."""

    @abstractmethod
    def added(self) -> Tensor:
        """What is added to these: ``[row, hidden]``."""

    @abstractmethod
    def check(self, shape: tuple[int, ...]) -> None:
        """Raise EditError where a matrix of such a shape cannot be changed so."""

    @abstractmethod
    def norm(self) -> float:
        """Euclidean length of what is added."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that it consists of, by name."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def same(self, other: Change) -> bool:
        """Whether another change is the same, to the last bit."""
        if type(self) is not type(other) or self.layer != other.layer:
            return False
        pairs = zip(self.tensors().values(), other.tensors().values(), strict=True)
        return all(a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()) for a, b in pairs)


@dataclass(frozen=True, eq=False)
class ValueVectors(Change):
    """Vectors that are added to some neurons' value vectors.

    Parameters
    ----------
    neurons : ``[n]``, indices in the layer, each once.
    vectors : ``[n, hidden]``.
    """

    neurons: Tensor
    vectors: Tensor

    def __post_init__(self) -> None:
        neurons, vectors = self.neurons, self.vectors
        if neurons.ndim != 1 or neurons.dtype != torch.int64 or vectors.ndim != 2 or len(neurons) != len(vectors):
            raise EditError(
                f"layer {self.layer}: neurons of shape {list(neurons.shape)} ({neurons.dtype}) and vectors of shape "
                f"{list(vectors.shape)}; expected [n] (int64) and [n, hidden]."
            )
        if vectors.dtype not in NUMBERS or len(neurons.unique()) < len(neurons):
            raise EditError(f"layer {self.layer}: expected each neuron once, and vectors of numbers of 16 to 64 bits.")

    @property
    def rows(self) -> RowIndices:
        """The neurons."""
        return self.neurons

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors."""
        return self.vectors.dtype

    def added(self) -> Tensor:
        """The vectors."""
        return self.vectors

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise where a neuron does not exist, or vectors are of another width.

        Raises
        ------
        EditError : one of these.
        """
        outside = [i for i in self.neurons.tolist() if not 0 <= i < shape[0]]
        if outside or self.vectors.shape[1] != shape[1]:
            what = f"neuron {outside[0]}" if outside else f"vectors of {self.vectors.shape[1]} numbers"
            raise EditError(f"layer {self.layer}: the edit has {what}; value vectors here are {list(shape)}.")

    def norm(self) -> float:
        """``‖vectors‖``."""
        return float(self.vectors.double().norm())


@dataclass(frozen=True, eq=False)
class RankOne(Change):
    """An outer product that is added to all of a layer's value vectors: ``left ⊗ right``.

    Parameters
    ----------
    left : ``[neuron]``.
    right : ``[hidden]``.
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        for name, vector in self.tensors().items():
            if vector.ndim != 1 or vector.dtype not in NUMBERS:
                raise EditError(
                    f"layer {self.layer}: {name} is {vector.dtype} of shape {list(vector.shape)}; expected one vector "
                    "of floating-point numbers of 16 to 64 bits."
                )

    @property
    def rows(self) -> RowIndices:
        """All."""
        return slice(None)

    @property
    def dtype(self) -> torch.dtype:
        """Of the product."""
        return torch.promote_types(self.left.dtype, self.right.dtype)

    def added(self) -> Tensor:
        """The product, one multiplication for each number."""
        return self.left[:, None] * self.right[None, :]

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise where the vectors are of other lengths.

        Raises
        ------
        EditError : they are.
        """
        own = (len(self.left), len(self.right))
        if own != shape:
            raise EditError(f"layer {self.layer}: the edit is of shape {list(own)}; value vectors are {list(shape)}.")

    def norm(self) -> float:
        """``‖left‖ · ‖right‖``."""
        return float(self.left.double().norm() * self.right.double().norm())
