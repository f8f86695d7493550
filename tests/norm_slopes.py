"""Slopes of norms, written out."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def ln_slope(norm: Any, states: Tensor) -> Tensor:
    """``γ/σ`` of a layer norm."""
    slope: Tensor = norm.weight / (states.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return slope


def rms_slope(gamma: Tensor, states: Tensor, epsilon: float) -> Tensor:
    return gamma / (states.square().mean(-1, keepdim=True) + epsilon).sqrt()
