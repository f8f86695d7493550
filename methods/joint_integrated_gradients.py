"""Integrated gradients with the feed-forward neurons of all layers scaled together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.masks import masked_logprob
from kn_attrib.model import NeuronModel
from kn_attrib.prompts import Batch
from kn_attrib.quadrature import quadrature
from kn_attrib.registry import register
from kn_attrib.scorer import Scorer

ROWS = 256
OBJECTIVES = ("prob", "logprob")


@register("joint_integrated_gradients")
@dataclass(frozen=True)
class JointIntegratedGradients(Scorer):
    """Integrated gradients along one path on which the neurons of all layers fade together.

    ``score_i = ∫₀¹ ∂F(α·1)/∂m_i dα`` with ``F(m)`` the objective when every layer's activation at the answer position,
    as it then stands, is multiplied by the mask ``m``. Where one layer can stand in for another, removing a layer's
    neurons alone costs nothing, and integrated gradients layer by layer find nothing; here both fade. The scores of
    all layers add up to ``F(1) − F(0)``. Cost: ``steps`` forwards and backwards per prompt.

    Parameters
    ----------
    steps : Gauss-Legendre nodes.
    objective : ``"prob"`` or ``"logprob"``.

    Raises
    ------
    MethodError : fewer than one step, or an unknown objective.

    Reference
    ---------
    Sundararajan et al. 2017, arXiv 1703.01365, applied to a mask on all feed-forward activations.
    """

    steps: int = 16
    objective: str = "prob"
    reference: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"joint_integrated_gradients: steps is {self.steps}; expected at least 1.")
        if self.objective not in OBJECTIVES:
            raise MethodError(f"joint_integrated_gradients: {unknown('objective', self.objective, OBJECTIVES)}")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        weights, nodes = quadrature("gausslegendre", self.steps)
        scores = torch.zeros(len(batch), model.n_layers, model.n_neurons, dtype=model.dtype, device=model.device)
        at_once = max(1, ROWS // len(batch))
        for start in range(0, self.steps, at_once):
            some = slice(start, start + at_once)
            rows = Batch(batch.prompts * len(nodes[some]), batch.device)
            alphas = torch.tensor(nodes[some]).to(scores).repeat_interleave(len(batch))
            masks = alphas[:, None, None].expand(-1, *scores.shape[1:]).clone().requires_grad_()
            with torch.enable_grad():
                logprobs = masked_logprob(model, rows, masks)
                values = logprobs.exp() if self.objective == "prob" else logprobs
                (slopes,) = torch.autograd.grad(values.sum(), masks)
            by = torch.tensor(weights[some]).to(scores)
            scores += torch.einsum("s,sbln->bln", by, slopes.view(-1, *scores.shape))
        return scores
