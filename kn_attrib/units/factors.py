"""Directions fitted on a relation's activations as units: factors of NMF, principal components."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn import decomposition
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.units.view import Basis, UnitModel, Units

Array = NDArray[np.float64]
RIDGE = 1e-10
"""Added to the diagonal of Gram matrices of factors of length about 1."""


class FactorBasis(Basis):
    """Fixed directions of each layer and, as the last unit, what they leave over of a vector.

    Parameters
    ----------
    directions : ``[layer, factor, neuron]``, each of length 1 (or 0: a factor that the fit had no use for).
    """

    def __init__(self, directions: Tensor) -> None:
        self.fixed = directions
        self.n_units = directions.shape[1] + 1

    @abstractmethod
    def coefficients(self, layer: int, vectors: Tensor) -> Tensor:
        """Coefficients of the fixed directions: ``[row, neuron]`` -> ``[row, factor]``."""

    def encode(self, layer: int, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of the fixed directions, then the length of the rest; and the rest's direction."""
        found = self.coefficients(layer, vectors)
        rest = vectors - found @ self.fixed[layer]
        size = rest.norm(dim=-1, keepdim=True)
        return torch.cat([found, size], dim=-1), rest / size.clamp_min(torch.finfo(size.dtype).tiny)

    def decode(self, layer: int, coefficients: Tensor, own: Tensor) -> Tensor:
        """The sum of coefficients times directions."""
        return coefficients[:, :-1] @ self.fixed[layer] + coefficients[:, -1:] * own


class Components(FactorBasis):
    """Orthonormal directions: a coefficient is the projection of the vector."""

    def coefficients(self, layer: int, vectors: Tensor) -> Tensor:
        """Projections: ``[row, neuron]`` -> ``[row, factor]``."""
        return vectors @ self.fixed[layer].T


class NonNegative(FactorBasis):
    """Non-negative factors of the vectors' positive and negative parts; coefficients are ≥ 0.

    Parameters
    ----------
    factors : ``[layer, factor, 2 × neuron]``: what each adds to the positive parts, then to the negative parts.
    dtype : of the vectors; coefficients are found in double precision.
    """

    def __init__(self, factors: Tensor, dtype: torch.dtype) -> None:
        positive, negative = factors.double().chunk(2, dim=-1)
        # A coefficient shall be a length along the direction in which its factor moves the vector.
        size = (positive - negative).norm(dim=-1, keepdim=True)
        self.factors = torch.where(size > 0, factors.double() / size, 0.0)
        positive, negative = self.factors.chunk(2, dim=-1)
        super().__init__((positive - negative).to(dtype))
        self._gram = self.factors @ self.factors.mT

    def coefficients(self, layer: int, vectors: Tensor) -> Tensor:
        """What NMF's transform looks for, the least-squares coefficients ≥ 0: exactly, and each row for itself."""
        products = signed_parts(vectors.double()) @ self.factors[layer].T
        chosen = self._chosen(layer, products.detach())
        # With the factors that take part known they are linear in the vector, so gradients are exact too.
        gram = self._gram[layer] * chosen[:, :, None] * chosen[:, None, :] + torch.diag_embed(1 - chosen)
        # NMF may find the same factor twice: a ridge far below the coefficients' own digits shares it out evenly.
        ridge = RIDGE * torch.eye(len(gram[0]), dtype=gram.dtype, device=gram.device)
        found: Tensor = torch.linalg.solve(gram + ridge, products * chosen)
        return found.clamp_min(0).to(vectors.dtype)

    def _chosen(self, layer: int, products: Tensor) -> Tensor:
        """1 for the factors that take part in a row, else 0: ``[row, factor]``."""
        values, vectors = np.linalg.eigh(self._gram[layer].cpu().numpy())
        kept = values > 1e-12 * values.max()
        # ‖w H − x‖ in as few dimensions as there are factors: a root of the Gram matrix instead of H.
        found = np.zeros(products.shape)
        if not kept.any():
            return torch.as_tensor(found).to(products)
        root = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
        targets = products.cpu().numpy() @ (vectors[:, kept] / np.sqrt(values[kept]))
        for row, target in enumerate(targets):
            found[row], _ = nnls(root, target, maxiter=100 * len(values))
        return torch.as_tensor(found > 0).to(products)


@dataclass(frozen=True)
class Factors(Units):
    """Directions that `sklearn.decomposition` finds in a relation's activations at the answer position.

    Each relation has ``k`` in each layer, and the reconstruction error as one more unit, the last, so that a layer's
    units add up to its vector. A relation's units live in a view of its own, which reads prompts of any relation.

    Parameters
    ----------
    k : directions in each layer.
    seed : of the fit.

    Raises
    ------
    MethodError : ``k`` is not positive.
    """

    k: int = 16
    seed: int = 0
    spare: ClassVar[int] = 0
    """How many more prompts than directions a fit needs."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise MethodError(f"{self.name}: k is {self.k}; expected at least 1.")

    @abstractmethod
    def basis(self, activations: Tensor) -> FactorBasis:
        """Fit on ``activations [prompt, layer, neuron]``."""

    def views(self, model: NeuronModel, prompts: Sequence[Prompt]) -> dict[str, UnitModel]:
        """A view for each relation, fitted on its own prompts.

        Raises
        ------
        MethodError : a relation has fewer prompts, or a layer fewer neurons, than directions are asked for.
        """
        groups: dict[str, list[Prompt]] = {}
        for prompt in prompts:
            groups.setdefault(prompt.fact.relation, []).append(prompt)
        least = min(groups, key=lambda relation: len(groups[relation]))
        most = min(len(groups[least]) - self.spare, model.n_neurons)
        if self.k > most:
            advice = f"expected at most {most}: {self.name}(k={most})" if most else "give the relation more prompts"
            raise MethodError(
                f"{self.name}: k is {self.k}, but relation {least!r} has {len(groups[least])} prompts to fit on and a "
                f"layer {model.n_neurons} neurons; {advice}."
            )
        return {relation: self._view(model, group) for relation, group in groups.items()}

    def _view(self, model: NeuronModel, prompts: Sequence[Prompt]) -> UnitModel:
        shape = (len(prompts), model.n_layers, model.n_neurons)
        activations = torch.empty(shape, dtype=model.dtype, device=model.device)
        for indices, batch in model.batches(prompts):
            activations[indices] = model.record(batch)
        return UnitModel(model, self.basis(activations), str(self))


@dataclass(frozen=True)
class PCA(Factors):
    """Principal components (parameters as in `Factors`).

    A coefficient is the projection of the vector itself, not of its distance from the mean, so that a unit at zero is
    a vector without that direction. The sign of a direction is the one in which its mean coefficient is positive.
    """

    name: ClassVar[str] = "pca"
    # About their mean, n prompts vary in n − 1 directions.
    spare: ClassVar[int] = 1

    def basis(self, activations: Tensor) -> Components:
        """Fit on ``activations [prompt, layer, neuron]``."""
        layers = activations.double().cpu().numpy().swapaxes(0, 1)
        return Components(torch.as_tensor(np.stack([self._fit(layer) for layer in layers])).to(activations))

    def _fit(self, layer: Array) -> Array:
        found = decomposition.PCA(self.k, svd_solver="full", random_state=self.seed).fit(layer).components_
        signs = np.where(layer.mean(0) @ found.T < 0, -1.0, 1.0)
        return np.asarray(signs[:, None] * found)


@dataclass(frozen=True)
class NMF(Factors):
    """Factors of a non-negative matrix factorisation (parameters as in `Factors`).

    One factorisation of the positive and the negative parts of the activations, side by side: a factor is a group of
    neurons that are active together, each with its sign, and a vector has coefficients ≥ 0 of the factors.
    """

    name: ClassVar[str] = "nmf"

    def basis(self, activations: Tensor) -> NonNegative:
        """Fit on ``activations [prompt, layer, neuron]``."""
        layers = signed_parts(activations.double()).cpu().numpy().swapaxes(0, 1)
        factors = torch.as_tensor(np.stack([self._fit(layer) for layer in layers]))
        return NonNegative(factors.to(activations.device), activations.dtype)

    def _fit(self, layer: Array) -> Array:
        if not layer.any():
            return np.zeros((self.k, layer.shape[1]))
        model = decomposition.NMF(self.k, init="nndsvda", random_state=self.seed, max_iter=1000)
        with warnings.catch_warnings():
            # What a factorisation leaves over is a unit: one that could still improve is as exact a basis.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return np.asarray(model.fit(layer).components_)


def signed_parts(vectors: Tensor) -> Tensor:
    """Positive and negative parts side by side, both ≥ 0: ``[…, neuron]`` -> ``[…, 2 × neuron]``."""
    return torch.cat([vectors.clamp_min(0), (-vectors).clamp_min(0)], dim=-1)
