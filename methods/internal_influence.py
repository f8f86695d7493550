"""Internal influence: the mean gradient along the line of input embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.techniques.embedding_paths import along_embeddings, batch_parts
from kn_attrib.techniques.quadrature import quadrature


@register("internal_influence")
@dataclass(frozen=True)
class InternalInfluence(Scorer):
    """Mean sensitivity of the answer to the neuron while the input embeddings grow from zero.

    ``score_i = ∫₀¹ ∂F/∂h_i(α) dα`` at the activations that the straight line of the input embeddings induces, *not*
    multiplied by the activation: like `gradient` it says what more of a neuron would do, but averaged over inputs on
    the way to the prompt, so that a saturated answer does not hide it. Cost: ``steps`` forwards and backwards, for
    all layers together.

    Parameters
    ----------
    steps : number of Gauss-Legendre nodes.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.
    max_rows : most rows (prompts × nodes) in one forward and backward.

    Raises
    ------
    MethodError : steps is below 1.

    Reference
    ---------
    Leino et al. 2018, arXiv 1802.03788; Captum ``InternalInfluence``.
    """

    steps: int = 16
    objective: Objective = "prob"
    max_rows: int = 512
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Leino et al. 2018, arXiv 1802.03788"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"internal_influence: steps is {self.steps}; expected at least 1.")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return torch.cat([self._influence(model, part) for part in batch_parts(batch, self.max_rows, self.steps)])

    def _influence(self, model: NeuronModel, batch: Batch) -> Tensor:
        """What Captum's `InternalInfluence` gives for each layer, from one pass for all of them."""
        weights, nodes = quadrature("gausslegendre", self.steps)
        line = along_embeddings(model, batch, self.objective, nodes)
        by = torch.tensor(weights, dtype=line.gradients.dtype, device=line.gradients.device)
        return (line.gradients * by[:, None, None, None]).sum(0)
