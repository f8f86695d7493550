"""Integrated gradients of all layers together, from where other facts of the relation put the neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.model import NeuronModel
from kn_attrib.paths import fade_together
from kn_attrib.prompts import Batch, Prompt
from kn_attrib.registry import register
from kn_attrib.scorer import ContrastScorer

OBJECTIVES = ("prob", "logprob")


@register("contrastive_joint_ig")
@dataclass(frozen=True)
class ContrastiveJointIG(ContrastScorer):
    """Integrated gradients on the path from what the relation's other facts activate, all layers at once.

    ``score_i = ∫₀¹ ∂F(α·1)/∂m_i dα``, ``F(m)`` the objective when at the answer position every layer's activation
    ``a``, as it then stands, is replaced by ``ā + m ⊙ (a − ā)``, with ``ā`` the mean activation on the prompts of other
    facts of the relation (another answer and another subject; of any relation where this one has no other fact). What
    every fact of the relation shares scores nothing, and since all layers move together, no layer stands in for
    another. Complete over all layers: the scores add up to ``F(1) − F(0)``, but for the quadrature. Misses neurons that
    the fact needs and that fire alike on the whole relation, as every method does that compares. Cost per prompt:
    ``steps`` forwards and backwards, and one forward for each prompt of the facts that it is compared with.

    Parameters
    ----------
    steps : Gauss-Legendre nodes.
    objective : ``"prob"`` or ``"logprob"``.

    Raises
    ------
    MethodError : steps is below 1, the objective is unknown, or there is no other fact.

    Reference
    ---------
    Sundararajan et al. 2017, arXiv 1703.01365; the path between two runs as in Hanna et al. 2024, arXiv 2403.17806.
    """

    steps: int = 16
    objective: Literal["prob", "logprob"] = "logprob"
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365; Hanna et al. 2024, arXiv 2403.17806"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"contrastive_joint_ig: steps is {self.steps}; expected at least 1.")
        if self.objective not in OBJECTIVES:
            raise MethodError(f"contrastive_joint_ig: {unknown('objective', self.objective, OBJECTIVES)}")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        baselines = torch.stack([self._mean(prompt) for prompt in batch.prompts])
        return fade_together(model, batch, self.objective, self.steps, baselines)

    def _mean(self, prompt: Prompt) -> Tensor:
        """Mean activation on the prompts of other facts: ``[layer, neuron]``."""
        others = self.pool.contrast(prompt.fact, True) or self.pool.contrast(prompt.fact)
        if not others:
            raise MethodError(
                f"contrastive_joint_ig: there is no other fact to compare {prompt.fact.id!r} with; give contrast facts."
            )
        return self.pool.activations[others].mean(0)
