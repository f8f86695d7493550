"""Slopes of norms by hand, and norms held fixed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from kn_attrib.errors import MethodError
from kn_attrib.techniques.frozen_norms import frozen, norm_slope, norms_replaced
from norm_slopes import ln_slope, rms_slope


class Squash(nn.Module):
    """Not a norm, whatever its name."""

    def forward(self, states: Tensor) -> Tensor:
        return states.tanh()


SquashNorm = type("SquashNorm", (Squash,), {})


@pytest.mark.parametrize("width", [2, 7, 32])
@pytest.mark.parametrize("kind", ["layer", "plain layer", "llama", "gemma"])
def test_slope_of_a_norm_is_gamma_over_sigma(kind: str, width: int) -> None:
    norms: dict[str, Any] = {
        "layer": nn.LayerNorm(width), "plain layer": nn.LayerNorm(width, elementwise_affine=False),
        "llama": LlamaRMSNorm(width, eps=0.1), "gemma": GemmaRMSNorm(width, eps=0.1),
    }  # fmt: skip
    norm = norms[kind]
    torch.manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    states = 3 * torch.randn(2, 3, width) + 1
    gamma = torch.ones(width) if kind == "plain layer" else norm.weight + (kind == "gemma")
    variance = states.var(-1, unbiased=False, keepdim=True) + 1e-5
    expected = gamma / variance.sqrt() if "layer" in kind else rms_slope(gamma, states, 0.1)
    with torch.no_grad():
        assert torch.allclose(norm_slope(norm, states, norm(states)), expected, rtol=1e-4)


def test_what_is_no_norm_is_refused_by_name() -> None:
    states = torch.randn(3, 8)
    with pytest.raises(MethodError, match="SquashNorm is neither a layer norm nor an RMS norm"):
        norm_slope(SquashNorm(), states, states.tanh())


def test_a_frozen_norm_gives_the_same_and_is_linear() -> None:
    norm = nn.LayerNorm(6, dtype=torch.float64)
    states = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    with norms_replaced(nn.Sequential(norm), frozen):
        output = norm(states)
    assert torch.equal(output, norm(states))
    (gradient,) = torch.autograd.grad(output[:, 2].sum(), states)
    assert torch.allclose(gradient[:, 2], ln_slope(norm, states)[:, 2], atol=1e-8)
    assert not gradient[:, [0, 1, 3, 4, 5]].any()
    assert not norm._forward_hooks
