"""Integrals ∫ g · dh of one curve against another, both known at points only, with as many points as they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.techniques.adaptive_quadrature import MOST_NODES, WORST

PANELS = 4
"""Panels of five points each that a curve begins with."""

CAUTION = 4.0
"""The distance of two extrapolated sums over this is the estimated error; were all curves smooth, 15 would do."""

Curves = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points ``u`` in [0, 1] -> ``g`` and ``h``, ``[point, layer, component]``."""


@dataclass(frozen=True)
class StieltjesIntegral:
    """Integrals and how well they are known.

    Attributes
    ----------
    sums : ``[layer, component]``.
    error : ``[layer]``, estimated Euclidean length of the error: the sum of the panels'.
    capped : ``[layer]``, whether points ran out before it was as small as asked.
    """

    sums: Tensor
    error: Tensor
    capped: Tensor


def integrate_along(curves: Curves, tolerance: float, most_points: int = MOST_NODES) -> StieltjesIntegral:
    """``∫₀¹ g dh`` of every component: trapezoid sums, extrapolated, on panels that are bisected where they need it.

    On the five points of a panel ``T₁``, ``T₂``, ``T₄`` are the sums ``Σ ½ (g_k + g_{k+1}) (h_{k+1} − h_k)`` over one,
    two and four intervals, ``S₂ = (4 T₂ − T₁) / 3``, ``S₄ = (4 T₄ − T₂) / 3``, and the panel's integral is
    ``(16 S₄ − S₂) / 15``, Romberg's third column, its estimated error ``‖S₄ − S₂‖ / 4``. Done when the errors of
    every layer add up to at most ``tolerance`` times the length of the longest layer. No value is computed twice.

    Parameters
    ----------
    curves : ``g`` and ``h`` at some points.
    tolerance : share of the longest integral.
    most_points : after which the integral is left as it is.
    """
    at = torch.linspace(0, 1, 4 * PANELS + 1, dtype=torch.float64)
    values = torch.stack(curves(at), dim=1)
    points = at.unfold(0, 5, 4)
    panels = values.unfold(0, 5, 4).movedim(-1, 1)
    n_points = len(at)
    while True:
        parts, errors = _panel_sums(panels)
        sums, error = parts.sum(0), errors.sum(0)
        rough = error > tolerance * sums.norm(dim=-1).max()
        if n_points >= most_points or not rough.any():
            return StieltjesIntegral(sums, error, rough)
        worst = errors[:, rough].amax(1)
        # Points are on the CPU, wherever the curves are.
        cut = (worst >= WORST * worst.max()).cpu()
        points, panels = _bisected(points, panels, cut, curves)
        n_points += 4 * int(cut.sum())


def _panel_sums(panels: Tensor) -> tuple[Tensor, Tensor]:
    """Integrals and errors of ``panels [panel, 5, 2, layer, component]``."""
    one, two, four = (_trapezoid(panels[:, ::stride]) for stride in (4, 2, 1))
    second, fourth = (4 * two - one) / 3, (4 * four - two) / 3
    return (16 * fourth - second) / 15, (fourth - second).norm(dim=-1) / CAUTION


def _trapezoid(panels: Tensor) -> Tensor:
    slopes, states = panels.unbind(2)
    return ((slopes[:, 1:] + slopes[:, :-1]) / 2 * states.diff(dim=1)).sum(1)


def _bisected(points: Tensor, panels: Tensor, cut: Tensor, curves: Curves) -> tuple[Tensor, Tensor]:
    """Points ``[panel, 5]`` and values, with halves in the place of panels that are cut."""
    outer = points[cut]
    inner = (outer[:, 1:] + outer[:, :-1]) / 2
    fresh = torch.stack(curves(inner.flatten()), dim=1).unflatten(0, inner.shape)
    where = cut.to(panels.device)
    finer_points, finer = _interleaved(outer, inner), _interleaved(panels[where], fresh)
    kept = ~cut
    return (
        torch.cat([points[kept], finer_points[:, :5], finer_points[:, 4:]]),
        torch.cat([panels[~where], finer[:, :5], finer[:, 4:]]),
    )


def _interleaved(outer: Tensor, inner: Tensor) -> Tensor:
    """``outer[:, 0], inner[:, 0], outer[:, 1], … , outer[:, n]``."""
    joined = outer.new_empty(len(outer), outer.shape[1] + inner.shape[1], *outer.shape[2:])
    joined[:, ::2], joined[:, 1::2] = outer, inner
    return joined
