"""Weights of linears as matrices, whatever way a family stores them."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kn_attrib.errors import ModelError


def value_matrix(site: nn.Module) -> nn.Parameter:
    """The weight of a feed-forward output linear as ``[neuron, hidden]``, whatever way it is stored.

    Raises
    ------
    ModelError : the module is neither a Linear nor a Conv1D.
    """
    if isinstance(site, nn.Linear):
        return site.weight.T  # type: ignore[return-value]  # a view of the parameter
    if isinstance(site, Conv1D):
        return site.weight
    raise ModelError(f"feed-forward output is a {type(site).__name__}; expected torch.nn.Linear or Conv1D.")


def input_matrix(linear: nn.Linear | Conv1D) -> Tensor:
    """The weight of a linear as ``[output, input]``, whatever way it is stored."""
    return linear.weight if isinstance(linear, nn.Linear) else linear.weight.T
