"""Quadrature on [0, 1]: the fixed rules of published methods."""

from __future__ import annotations

import numpy as np

FIXED_RULES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid", "linspace")
ADAPTIVE = "adaptive"
RULES = (ADAPTIVE, *FIXED_RULES)


def quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Weights and nodes on [0, 1] of a quadrature rule, in double precision.

    Captum's own Riemann nodes and all its weights are single precision, and its trapezoid weights add up to
    (n − 1)/n, not 1.
    """
    if rule == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (weights / 2).tolist(), ((nodes + 1) / 2).tolist()
    if rule == "riemann_trapezoid":
        inner = np.full(steps, 1 / (steps - 1))
        inner[[0, -1]] /= 2
        return inner.tolist(), np.linspace(0, 1, steps).tolist()
    k = np.arange(steps)
    nodes = {
        "riemann_left": k / steps,
        "riemann_right": (k + 1) / steps,
        "riemann_middle": (k + 0.5) / steps,
        "linspace": k / max(steps - 1, 1),
    }[rule]
    return [1 / steps] * steps, nodes.tolist()
