"""Integrated gradients of each layer alone and of all layers together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.forward import Rows
from kn_attrib.model import NeuronModel
from kn_attrib.objective import objective_function
from kn_attrib.paths import fade_together, integrate
from kn_attrib.prompts import Batch
from kn_attrib.registry import register
from kn_attrib.scorer import Scorer

MOST_ROWS = 16384
OBJECTIVES = ("prob", "logprob")


@register("joint_integrated_gradients")
@dataclass(frozen=True)
class JointIntegratedGradients(Scorer):
    """Integrated gradients along two paths: a layer's neurons fade alone, and those of all layers fade together.

    ``score_i = alone · a_i ∫₀¹ ∂f_l(αa)/∂w_i dα + (1 − alone) · ∫₀¹ ∂F(α·1)/∂m_i dα``: the first integral is that of
    `integrated_gradients`; in the second, ``F(m)`` is the objective when every layer's activation at the answer
    position, as it then stands, is multiplied by the mask ``m``. Where one layer can stand in for another, removing a
    layer alone costs nothing and the first path finds nothing; on the second, both fade. The second by itself
    (``alone=0``) is complete over all layers, ``F(1) − F(0)``, but credits what helps the answer only while all is
    faint. Cost: ``layers × layer_steps + steps`` forwards and backwards per prompt.

    Parameters
    ----------
    alone : weight of the path on which a layer fades alone, from 0 to 1.
    steps : Gauss-Legendre nodes of the path on which all fade.
    layer_steps : Gauss-Legendre nodes of the path on which a layer fades alone.
    objective : ``"prob"`` or ``"logprob"``.

    Raises
    ------
    MethodError : fewer than one step, a weight that is out of range, or an unknown objective.

    Reference
    ---------
    Sundararajan et al. 2017, arXiv 1703.01365; the second path is theirs over a mask on all activations.
    """

    alone: float = 0.5
    steps: int = 16
    layer_steps: int = 8
    objective: Literal["prob", "logprob"] = "prob"
    reference: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"

    def __post_init__(self) -> None:
        for name in ("steps", "layer_steps"):
            if getattr(self, name) < 1:
                raise MethodError(f"joint_integrated_gradients: {name} is {getattr(self, name)}; expected at least 1.")
        if not 0 <= self.alone <= 1:
            raise MethodError(f"joint_integrated_gradients: alone is {self.alone}; expected a weight from 0 to 1.")
        if self.objective not in OBJECTIVES:
            raise MethodError(f"joint_integrated_gradients: {unknown('objective', self.objective, OBJECTIVES)}")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        parts = []
        if self.alone > 0:
            parts.append(self.alone * self._alone(model, batch))
        if self.alone < 1:
            parts.append((1 - self.alone) * fade_together(model, batch, self.objective, self.steps))
        return torch.stack(parts).sum(0)

    def _alone(self, model: NeuronModel, batch: Batch) -> Tensor:
        """Each layer's path for itself: ``[prompt, layer, neuron]``."""
        function = objective_function(model, batch, self.objective)
        activations = function.activations
        some = Rows.of(activations).chunks(MOST_ROWS // self.layer_steps)
        scores = [integrate(function, rows, "gausslegendre", self.layer_steps)[0] for rows in some]
        return torch.cat(scores).reshape(activations.shape)
