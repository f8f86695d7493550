"""Norms with their statistics frozen: a model's own modules, of any family, made linear at the values that they saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.errors import MethodError

LARGE = 2.0**13
"""Far above the square root of any norm's ε, its square far below what half precision overflows at in float32."""
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}  # families compute their norms in float32 even in float64
ROUGH_TOLERANCE = 5e-2

Freeze = Callable[[nn.Module, Tensor, Tensor], Tensor | None]


@contextmanager
def norms_replaced(model: nn.Module, freeze: Freeze) -> Iterator[None]:
    """While active, what each norm of a model gives is ``freeze(norm, input, output)`` (None: left as it is)."""

    def hook(norm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        return freeze(norm, args[0] if args else kwargs["hidden_states"], output)

    with ExitStack() as stack:
        for module in model.modules():
            if "norm" in type(module).__name__.lower() and not any(True for _ in module.children()):
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def frozen(norm: nn.Module, states: Tensor, output: Tensor) -> Tensor | None:
    """A norm's output whose derivative holds mean and deviation fixed; for `norms_replaced`."""
    if not states.requires_grad:
        return None
    here = states.detach()
    return output.detach() + norm_slope(norm, here, output.detach()) * (states - here)


def norm_slope(norm: nn.Module, states: Tensor, output: Tensor) -> Tensor:
    """What a norm multiplies its input by, ``γ/σ``, at ``states [..., hidden]`` where it gives ``output``.

    Found by asking the norm itself, whatever its class calls its weights: γ and β from two constant inputs so large
    that ε does not matter, σ from ``output = γ (states − μ)/σ + β``.

    Raises
    ------
    MethodError : the module is no layer norm and no RMS norm.
    """
    wide = torch.promote_types(states.dtype, torch.float32)
    x, y = states.to(wide), output.to(wide)
    ones = torch.ones_like(states[..., :1, :].flatten(0, -2)[:1])
    signs = ones.clone()
    signs[:, 1::2] = -1

    def ask(given: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = norm.forward(given[None])
        return result[0, 0].to(wide)

    beta = ask(0 * ones)
    found = ask(LARGE * signs) - beta
    removes_mean = bool((ask(LARGE * ones) - beta).abs().max() < 0.5 * found.abs().max())

    def centred(values: Tensor) -> Tensor:
        return values - values.mean(-1, keepdim=True) if removes_mean else values

    unit = centred(signs[0].to(wide))
    gamma = found * unit.square().mean().sqrt() / unit
    scaled = gamma * centred(x)
    tiny = torch.finfo(wide).tiny  # an input without any spread (an embedding of zeros) has no slope
    inverse = (scaled * (y - beta)).sum(-1, keepdim=True) / scaled.square().sum(-1, keepdim=True).clamp_min(tiny)
    error = (inverse * scaled + beta - y).norm()
    if not error <= TOLERANCE.get(states.dtype, ROUGH_TOLERANCE) * y.norm():
        raise MethodError(
            f"{type(norm).__name__} is neither a layer norm nor an RMS norm (it differs from both by "
            f"{error / y.norm():.1e}), so its statistics cannot be held fixed; use a method that runs the whole model, "
            "such as ablation."
        )
    return (inverse * gamma).to(states.dtype)
