"""Frozen float32 linears on CPUs, multiplied by oneDNN: as exact as PyTorch's own choice and often twice as fast.

PyTorch ships two libraries of matrix products. At full precision its linears go to MKL, which holds back on processors
of other makers; oneDNN, asked directly, computes the same float32 products there at full speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

WORTH_IT = 2**20
"""Multiplications of a product below which asking costs more than it saves."""
SINGLE = torch.float32
_HAS_OP = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Product(torch.autograd.Function):
    """``x Wᵀ + b``, differentiable any number of times with respect to ``x`` alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs.contiguous(), weight, bias, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _Product.apply(outer[0], weight.t(), None), None, None  # type: ignore[no-untyped-call]


def linears_of(model: nn.Module) -> list[nn.Module]:
    """The plain linears of a model: subclasses may do more than multiply."""
    if not _HAS_OP:
        return []
    return [module for module in model.modules() if type(module) in (nn.Linear, Conv1D)]


def copied_bytes(linears: Sequence[Any]) -> int:
    """Most bytes of weights that oneDNN lays out anew: the largest one, for a product and for its gradient."""
    weights = [module.weight for module in linears]
    sizes = [weight.numel() for weight in weights if weight.is_cpu and weight.dtype == torch.float32]
    return 2 * torch.float32.itemsize * max(sizes, default=0)


@contextmanager
def fast_linears(linears: Sequence[nn.Module]) -> Iterator[None]:
    """While active, large products of these linears are oneDNN's; may be nested.

    Parameters
    ----------
    linears : from `linears_of`. Only what is frozen, on the CPU and in float32 is run otherwise than before.
    """
    # What has a forward of its own is inside another such context, or somebody else's business.
    own = [module for module in linears if "forward" not in vars(module)]
    for module in own:
        vars(module)["forward"] = partial(_forward, module)
    try:
        yield
    finally:
        for module in own:
            del vars(module)["forward"]


def _forward(module: Any, inputs: Tensor) -> Tensor:
    weight = module.weight.t() if isinstance(module, Conv1D) else module.weight
    if inputs.numel() * len(weight) < WORTH_IT or not _fits(module, inputs):
        result: Tensor = type(module).forward(module, inputs)
    else:
        result = _Product.apply(inputs, weight, module.bias)  # type: ignore[no-untyped-call]
    return result


def _fits(module: Any, inputs: Tensor) -> bool:
    own = [module.weight] if module.bias is None else [module.weight, module.bias]
    # Other classes of parameters, such as quantized ones, multiply in their own way.
    if torch.is_autocast_enabled("cpu") or any(type(each) is not nn.Parameter or each.requires_grad for each in own):
        return False
    return all(each.is_cpu and each.dtype == SINGLE for each in (inputs, *own))
