"""Frozen float32 linears on CPUs, multiplied by whichever of two libraries is faster (`kn_attrib.models.products`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kn_attrib.models.products import HAS_ONEDNN, Products, is_small

SINGLE = torch.float32


class _Product(torch.autograd.Function):
    """``x Wᵀ + b``, differentiable any number of times with respect to ``x`` alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, products: Products) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.products = products
        return products.multiply(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        slope: Tensor = _Product.apply(outer[0], weight.t(), None, ctx.products)  # type: ignore[no-untyped-call]
        return slope, None, None, None


def linears_of(model: nn.Module) -> list[nn.Module]:
    """The plain linears of a model: subclasses may do more than multiply."""
    if not HAS_ONEDNN:
        return []
    return [module for module in model.modules() if type(module) in (nn.Linear, Conv1D)]


def copied_bytes(linears: Sequence[Any]) -> int:
    """Most bytes of weights that oneDNN lays out anew: the largest one, for a product and for its gradient."""
    weights = [module.weight for module in linears]
    sizes = [weight.numel() for weight in weights if weight.is_cpu and weight.dtype == torch.float32]
    return 2 * torch.float32.itemsize * max(sizes, default=0)


@contextmanager
def fast_linears(linears: Sequence[nn.Module], products: Products) -> Iterator[None]:
    """While active, large products of these linears are done by the libraries chosen for them; may be nested.

    Parameters
    ----------
    linears : from `linears_of`. Only what is frozen, on the CPU and in float32 is run otherwise than before.
    products : chooses. PyTorch's own linears run as they are if it always says so; so they do, unless a library is
        asked for, where the caller wants deterministic algorithms: what timing chooses may change from run to run.
    """
    if not _may_choose(products):
        yield
        return
    # What has a forward of its own is inside another such context, or somebody else's business.
    own = [module for module in linears if "forward" not in vars(module)]
    for module in own:
        vars(module)["forward"] = partial(_forward, module, products)
    try:
        yield
    finally:
        for module in own:
            del vars(module)["forward"]


def multiply_frozen(products: Products, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x Wᵀ + b`` where nothing is recorded for gradients, by the library chosen for it."""
    own = [weight] if bias is None else [weight, bias]
    if not _may_choose(products) or is_small(inputs, weight) or not _are_single(inputs, *own):
        return nn.functional.linear(inputs, weight, bias)
    return products.multiply(inputs, weight, bias)


def _may_choose(products: Products) -> bool:
    """Whether anything but PyTorch's own linears may come of it: what timing chooses may change from run to run."""
    timed = products.asked == "auto"
    return HAS_ONEDNN and products.asked != "pytorch" and not (timed and torch.are_deterministic_algorithms_enabled())


def _are_single(*tensors: Tensor) -> bool:
    return all(each.is_cpu and each.dtype == SINGLE for each in tensors)


def _forward(module: Any, products: Products, inputs: Tensor) -> Tensor:
    weight = module.weight.t() if isinstance(module, Conv1D) else module.weight
    if is_small(inputs, weight) or not _fits(module, inputs) or products.are_pytorchs(inputs, weight):
        result: Tensor = type(module).forward(module, inputs)
    else:
        result = _Product.apply(inputs, weight, module.bias, products)  # type: ignore[no-untyped-call]
    return result


def _fits(module: Any, inputs: Tensor) -> bool:
    own = [module.weight] if module.bias is None else [module.weight, module.bias]
    # Other classes of parameters, such as quantized ones, multiply in their own way.
    if torch.is_autocast_enabled("cpu") or any(type(each) is not nn.Parameter or each.requires_grad for each in own):
        return False
    return _are_single(inputs, *own)
