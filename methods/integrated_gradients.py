"""Integrated gradients over feed-forward activations: the knowledge attribution of Dai et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from captum import attr
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.forward import PlainForward, Rows
from kn_attrib.model import NeuronModel, Objective
from kn_attrib.prompts import Batch
from kn_attrib.registry import register
from kn_attrib.scorer import Attribution, Scorer

RULES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid", "linspace")


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


@register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients(Scorer):
    """Integrated gradients along the straight line from zero to a layer's activation.

    ``score_i = a_i · ∫₀¹ ∂f_l(αa)/∂w_i dα``, one layer at a time, all its neurons scaled together; ``f_l(w)`` is the
    objective with the activation at the answer position of layer ``l`` replaced by ``w``. Complete: the scores of a
    layer add up to ``f_l(a) − f_l(0)``; gap and difference are returned with the scores.

    Parameters
    ----------
    steps : number of quadrature nodes.
    rule : ``"gausslegendre"``, ``"riemann_left"``, ``"riemann_right"``, ``"riemann_middle"``, ``"riemann_trapezoid"``,
        or ``"linspace"`` (nodes k/(n−1), equal weights 1/n: not exact in the limit of few nodes, kept to reproduce
        published numbers).
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.
    max_rows : most rows (prompts × layers × nodes) in one forward and backward.

    Raises
    ------
    MethodError : unknown rule, or fewer than 2 nodes of a Riemann rule (1 of Gauss-Legendre).

    Reference
    ---------
    Sundararajan et al. 2017; Dai et al. 2022 (preset ``dai2022``: left Riemann sum of 20); EleutherAI's
    knowledge-neurons 0.0.2 (preset ``eleuther``: linspace of 20).
    """

    steps: int = 16
    rule: str = "gausslegendre"
    objective: Objective = "prob"
    max_rows: int = 512

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "dai2022": {"steps": 20, "rule": "riemann_left"},
        "eleuther": {"steps": 20, "rule": "linspace"},
    }
    reference: ClassVar[str] = "Dai et al. 2022, arXiv 2104.08696"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise MethodError(f"integrated_gradients: {unknown('rule', self.rule, RULES)}")
        least = 1 if self.rule == "gausslegendre" else 2
        if self.steps < least:
            raise MethodError(f"integrated_gradients: steps is {self.steps}; {self.rule} needs at least {least}.")

    def score(self, model: NeuronModel, batch: Batch) -> Attribution:
        activations = model.record(batch)
        forward = PlainForward(model, batch, self.objective)
        scores, differences = [], []
        for rows in Rows.of(activations).chunks(self.max_rows // self.steps):
            where = (rows.layers, rows.prompts)
            scores.append(self._integrate(forward, rows.activations, where).detach())
            with torch.no_grad():
                removed = forward(torch.zeros_like(rows.activations), *where)
            differences.append(forward.clean()[rows.prompts] - removed)
        values = torch.cat(scores).reshape(activations.shape)
        difference = torch.cat(differences).reshape(activations.shape[:2])
        return Attribution(values, values.sum(-1) - difference, difference)

    def _integrate(self, forward: PlainForward, rows: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
        weights, nodes = quadrature(self.rule, self.steps)
        exact = torch.tensor(weights, dtype=torch.float64, device=rows.device)

        # Captum keeps weights in single precision; inside the objective they are as exact as the model.
        def weighted(rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
            values = forward(rows, layers, prompts).view(self.steps, -1)
            return (values * exact[:, None].to(values)).flatten()

        # One level below Captum's public entry, which takes a rule's name but no nodes of one's own.
        (scores,) = attr.IntegratedGradients(weighted)._attribute(
            (rows,), (0.0,), None, where, self.steps, step_sizes_and_alphas=([1.0] * self.steps, nodes)
        )
        return torch.as_tensor(scores)
