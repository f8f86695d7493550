"""Integrated gradients over feed-forward activations: the knowledge attribution of Dai et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.row_objective import RowObjective, objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Attribution, Scorer
from kn_attrib.techniques.layer_integrals import TOLERANCE, integrate_layers
from kn_attrib.techniques.path_integrals import integrate
from kn_attrib.techniques.quadrature import ADAPTIVE, RULES

FEW_ROWS = 48


@register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients(Scorer):
    """Integrated gradients along the straight line from zero to a layer's activation.

    ``score_i = a_i · ∫₀¹ ∂f_l(αa)/∂w_i dα``, one layer at a time, all its neurons scaled together; ``f_l(w)`` is the
    objective with the activation at the answer position of layer ``l`` replaced by ``w``. Complete: the scores of a
    layer add up to ``f_l(a) − f_l(0)``; gap and difference are returned with the scores. Where a norm stands behind
    the feed-forward block (Gemma 2 and 3, OLMo 2, GLM 4) it undoes the scaling, so that nothing happens on this path
    but close to its beginning: nearly all of the integral lies below ``α ≈ √ε / rms(a·V)``, some thousandths. A
    baseline of other facts' activations (`expected_gradients`, `contrastive_joint_ig`) keeps away from there.

    Parameters
    ----------
    steps : number of nodes of a fixed rule; naming it without a rule chooses ``"gausslegendre"``.
    rule : ``"adaptive"`` (nested rules of 3 and 5 nodes, then bisected where two of them differ; nodes crowd near zero
        where a norm behind the block hides that activations fade), ``"gausslegendre"``, ``"riemann_left"``,
        ``"riemann_right"``, ``"riemann_middle"``, ``"riemann_trapezoid"``, or ``"linspace"`` (nodes k/(n−1), equal
        weights 1/n: not exact in the limit of few nodes, kept to reproduce published numbers).
    tolerance : largest error of a layer's scores that the adaptive rule accepts, by its own estimate: Euclidean length,
        as a share of the scores of the prompt's strongest layer, since scores of all layers are compared with one
        another. A layer that has not reached it after 256 nodes is left as it is; the scores say which
        (``NeuronScores.capped``), and how large the estimated error is (``NeuronScores.error``).
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.
    max_rows : most rows (prompts × layers × nodes) held at a time, adaptively prompts × layers; memory is kept by the
        model's budget.

    Raises
    ------
    MethodError : unknown rule, fewer than 2 nodes of a Riemann rule (1 of Gauss-Legendre), a fixed rule without
        steps, or a tolerance that is not positive.

    Reference
    ---------
    Sundararajan et al. 2017; Dai et al. 2022 (preset ``dai2022``: left Riemann sum of 20); EleutherAI's
    knowledge-neurons 0.0.2 (preset ``eleuther``: linspace of 20).
    """

    steps: int = 0
    rule: str = ADAPTIVE
    tolerance: float = TOLERANCE
    objective: Objective = "prob"
    max_rows: int = 16384

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "dai2022": {"steps": 20, "rule": "riemann_left"},
        "eleuther": {"steps": 20, "rule": "linspace"},
    }
    reference: ClassVar[str] = "Dai et al. 2022, arXiv 2104.08696"
    any_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise MethodError(f"integrated_gradients: {unknown('rule', self.rule, RULES)}")
        if not self.tolerance > 0:
            raise MethodError(f"integrated_gradients: tolerance is {self.tolerance}; expected a positive share.")
        if self.rule == ADAPTIVE:
            if self.steps == 0:
                return
            # The record of how scores were made must not say "adaptive" where a number of nodes was asked for.
            object.__setattr__(self, "rule", "gausslegendre")
        if self.tolerance != TOLERANCE:
            raise MethodError(
                f"integrated_gradients: tolerance is {self.tolerance}, which only the adaptive rule asks for; leave it "
                "out, or leave out steps and rule."
            )
        least = 1 if self.rule == "gausslegendre" else 2
        if self.steps < least:
            raise MethodError(
                f"integrated_gradients: steps is {self.steps}; the rule {self.rule} needs at least {least}."
            )

    def score(self, model: NeuronModel, batch: Batch) -> Attribution:
        function = objective_function(model, batch, self.objective)
        if self.rule == ADAPTIVE:
            found = integrate_layers(function, self.tolerance, max_rows=self.max_rows)
            return Attribution(found.scores, found.gap, found.difference, found.error, found.capped)
        activations = function.activations
        scores, differences = [], []
        for rows in Rows.of(activations).chunks(self.max_rows // self.steps):
            each, difference = self._scores(function, rows)
            scores.append(each)
            differences.append(difference)
        values = torch.cat(scores).reshape(activations.shape)
        difference = torch.cat(differences).reshape(activations.shape[:2])
        return Attribution(values, values.sum(-1) - difference, difference)

    def _scores(self, function: RowObjective, rows: Rows) -> tuple[Tensor, Tensor]:
        """Scores ``[row, neuron]`` by a fixed rule and what they should add up to, ``[row]``."""
        # The value at zero: where rows cost little, one more node is cheaper than one more pass over the weights.
        if function.is_thin and len(rows) <= FEW_ROWS:
            scores, removed = integrate(function, rows, self.rule, self.steps, zero=True)
        else:
            scores, _ = integrate(function, rows, self.rule, self.steps)
            with torch.no_grad():
                removed = function(torch.zeros_like(rows.activations), rows.layers, rows.prompts)
        return scores, function.clean()[rows.prompts] - removed
