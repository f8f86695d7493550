"""Which library multiplies: PyTorch's own choice or oneDNN, whichever is found faster for a class of products.

PyTorch ships two libraries of matrix products. At full precision its linears go to MKL (or another BLAS), which holds
back on processors of other makers; oneDNN, asked directly, computes the same float32 products. Which one is faster
depends on the machine, the shapes and the layout of the weight, by up to a factor of two either way.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kn_attrib.models.torch_defaults import asked_precision

LOG = logging.getLogger(__name__)
PRODUCTS = ("auto", "pytorch", "onednn")
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
WORTH_TRYING = 2**18
"""Multiplications that PyTorch's own product is done with by the time that oneDNN's has only been called."""
FEW_ROWS = 8
"""Up to here a product is bound by reading the weight, whoever reads it, and half of it takes as long as the whole."""
TRIES = 3
"""The first one includes what oneDNN prepares for a new shape, and each library must once find the weight in cache."""


def _onednn(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs.contiguous(), weight, bias, "none", [], "")
    return product


LIBRARIES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "pytorch": nn.functional.linear,
    "onednn": _onednn,
}


class ProductClass(NamedTuple):
    """Products that the same library is taken for."""

    rows: int
    """Rounded up to a power of two."""
    inputs: int
    outputs: int
    transposed: bool
    threads: int
    precision: str | None

    def of_gradient(self) -> ProductClass:
        """The class of the gradient with respect to ``x``."""
        return ProductClass(self.rows, self.outputs, self.inputs, not self.transposed, self.threads, self.precision)


@dataclass
class Trial:
    """What timing has said about a class of products: the shortest seconds of each library, and the faster one."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LIBRARIES, float("inf")))
    tries: int = 0
    faster: str | None = None

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, timed: int) -> Tensor:
        """``x Wᵀ + b``: one library multiplies the first, the other the last ``timed`` rows, half or more of all."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        parts = []
        # The second one finds the weight in cache: they take turns.
        order = list(LIBRARIES) if self.tries % 2 == 0 else list(LIBRARIES)[::-1]
        for library, rows in zip(order, (flat[:timed], flat[-timed:]), strict=True):
            start = time.perf_counter()
            parts.append(LIBRARIES[library](rows, weight, bias))
            self.seconds[library] = min(self.seconds[library], time.perf_counter() - start)
        self.tries += 1
        if self.tries >= TRIES:
            self.faster = min(self.seconds, key=lambda library: self.seconds[library])
            took = ", ".join(f"{library} {1e3 * seconds:.3f} ms" for library, seconds in self.seconds.items())
            LOG.debug("products of %d rows with weights %s: %s", timed, tuple(weight.shape), took)
        product = torch.cat([parts[0], parts[1][2 * timed - len(flat) :]])
        return product.view(*inputs.shape[:-1], len(weight))


FOUND: dict[ProductClass, Trial] = {}
"""Of this process. Like PyTorch's number of threads it says something of the machine and nothing of a model: kept with
each model, it would be measured again for each, and two loads of one model would answer differently in the last digit.
"""


@dataclass(frozen=True)
class Products:
    """Chooses the library of each product.

    Parameters
    ----------
    asked : ``"auto"``, or the library of all products.
    met : takes the classes of products that have been met.
    """

    asked: str
    met: set[ProductClass]

    def library(self, kind: ProductClass) -> str | None:
        """The library of a class; None if it is still to be found."""
        self.met.add(kind)
        if self.asked != "auto":
            return self.asked
        return FOUND[kind].faster if kind in FOUND else None

    def are_pytorchs(self, inputs: Tensor, weight: Tensor) -> bool:
        """Whether PyTorch's own linear is the choice for ``x Wᵀ`` and, where it is recorded, for its gradient."""
        kind = class_of(inputs, weight)
        if self.library(kind) != "pytorch":
            return False
        recorded = inputs.requires_grad and torch.is_grad_enabled()
        return not recorded or self.library(kind.of_gradient()) == "pytorch"

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``x Wᵀ + b``, by the library that is the choice, or by both where it is still to be found."""
        kind = class_of(inputs, weight)
        library = self.library(kind)
        if library is not None:
            return LIBRARIES[library](inputs, weight, bias)
        return FOUND.setdefault(kind, Trial()).multiply(inputs, weight, bias, kind.rows // 2)


def is_small(inputs: Tensor, weight: Tensor) -> bool:
    """Whether ``x Wᵀ`` is PyTorch's without timing."""
    rows = inputs.numel() // weight.shape[1]
    return rows <= FEW_ROWS or rows * weight.numel() < WORTH_TRYING


def class_of(inputs: Tensor, weight: Tensor) -> ProductClass:
    """The class of ``x Wᵀ``."""
    n_outputs, n_inputs = weight.shape
    rows = 1 << (inputs.numel() // n_inputs - 1).bit_length()
    far, near = weight.stride()
    return ProductClass(rows, n_inputs, n_outputs, far < near, torch.get_num_threads(), asked_precision())


def summary_of(asked: str, met: set[ProductClass]) -> dict[str, str | int]:
    """What was asked, and for how many classes of products each library is the choice: for the record of results."""
    found = Counter(asked if asked != "auto" else _faster(kind) for kind in met)
    return {"asked": asked, **{name: found[name] for name in (*LIBRARIES, "undecided")}}


def _faster(kind: ProductClass) -> str:
    return (FOUND[kind].faster if kind in FOUND else None) or "undecided"
