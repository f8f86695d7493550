"""Integrated gradients over feed-forward activations: the knowledge attribution of Dai et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from captum import attr
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.forward import PlainForward, Rows
from kn_attrib.model import NeuronModel, Objective
from kn_attrib.prompts import Batch
from kn_attrib.registry import register
from kn_attrib.scorer import Attribution, Scorer

CAPTUM_RULES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")


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
    rule : ``"gausslegendre"``, Captum's ``"riemann_left"``, ``"riemann_right"``, ``"riemann_middle"``,
        ``"riemann_trapezoid"``, or ``"linspace"`` (nodes k/(n−1), equal weights 1/n; not a consistent rule, kept to
        reproduce published numbers).
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
        if self.rule not in (*CAPTUM_RULES, "linspace"):
            raise MethodError(f"integrated_gradients: {unknown('rule', self.rule, (*CAPTUM_RULES, 'linspace'))}")
        least = 1 if self.rule == "gausslegendre" else 2
        if self.steps < least:
            raise MethodError(f"integrated_gradients: steps is {self.steps}; {self.rule} needs at least {least}.")

    def score(self, model: NeuronModel, batch: Batch) -> Attribution:
        activations = model.record(batch)
        forward = PlainForward(model, batch, self.objective)
        captum = attr.IntegratedGradients(forward)
        scores, differences = [], []
        for rows in Rows.of(activations).chunks(self.max_rows // self.steps):
            where = (rows.layers, rows.prompts)
            scores.append(self._integrate(captum, rows.activations, where).detach())
            with torch.no_grad():
                removed = forward(torch.zeros_like(rows.activations), *where)
            differences.append(forward.clean()[rows.prompts] - removed)
        values = torch.cat(scores).reshape(activations.shape)
        difference = torch.cat(differences).reshape(activations.shape[:2])
        return Attribution(values, values.sum(-1) - difference, difference)

    def _integrate(self, captum: attr.IntegratedGradients, rows: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
        if self.rule != "linspace":
            scores: Tensor = captum.attribute(
                rows, baselines=0.0, additional_forward_args=where, n_steps=self.steps, method=self.rule
            )
            return scores
        # Captum's public entry knows only consistent rules; nodes and weights of one's own go in one level below.
        nodes = torch.linspace(0, 1, self.steps).tolist()
        weights = [1 / self.steps] * self.steps
        (linspace,) = captum._attribute(
            (rows,), (0.0,), None, where, self.steps, step_sizes_and_alphas=(weights, nodes)
        )
        return torch.as_tensor(linspace)
