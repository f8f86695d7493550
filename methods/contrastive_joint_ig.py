"""Integrated gradients along two paths, from where other facts of the relation put the neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import ContrastScorer
from kn_attrib.scoring.two_path_scorer import TwoPathScorer
from kn_attrib.techniques.layer_paths import PathObjective


@register("contrastive_joint_ig")
@dataclass(frozen=True)
class ContrastiveJointIG(TwoPathScorer, ContrastScorer):
    """Integrated gradients from what the relation's other facts activate, of each layer alone and of all together.

    ``score_i = alone · (a_i − ā_i) ∫₀¹ ∂f_l(ā + α(a − ā))/∂w_i dα + (1 − alone) · ∫₀¹ ∂F(α·1)/∂m_i dα``: as in
    `joint_integrated_gradients`, but the paths begin where other facts put the neurons and not at zero. ``ā`` is the
    mean activation on the prompts of other facts of the relation (another answer and another subject; of any relation
    where this one has no other fact), and ``F(m)`` the objective when at the answer position every layer's activation
    ``a``, as it then stands, is replaced by ``ā + m ⊙ (a − ā)``. What all facts of the relation share scores nothing,
    and since all layers also move together, no layer hides behind another. It looks for what tells the fact from
    others: neurons that it needs but that fire alike on the whole relation get too little, so that silencing to zero
    what it finds lowers the answer less than silencing what `joint_integrated_gradients` finds. Cost per prompt:
    some 5 forwards and backwards per layer, 9 or more of the whole prompt, and a forward for each prompt of the facts
    that are compared with.

    Parameters
    ----------
    alone : weight of the path on which a layer moves alone, from 0 to 1.
    steps : Gauss-Legendre nodes of the path on which all move; 0: as many as the tolerance asks for.
    layer_steps : Gauss-Legendre nodes of the path on which a layer moves alone; 0 as above.
    objective : ``"prob"`` or ``"logprob"``.
    tolerance : of the adaptive rule, as of `integrated_gradients`.

    Raises
    ------
    MethodError : negative steps, a tolerance that is not positive, a weight that is out of range, an unknown
        objective, or there is no other fact.

    Reference
    ---------
    Sundararajan et al. 2017, arXiv 1703.01365; paths between two runs as in Hanna et al. 2024, arXiv 2403.17806.
    """

    objective: PathObjective = "logprob"
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365; Hanna et al. 2024, arXiv 2403.17806"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return self.integrals(model, batch, torch.stack([self._mean(prompt) for prompt in batch.prompts]))

    def _mean(self, prompt: Prompt) -> Tensor:
        """Mean activation on the prompts of other facts: ``[layer, neuron]``."""
        others = self.pool.contrast(prompt.fact, True) or self.pool.contrast(prompt.fact)
        if not others:
            raise MethodError(
                f"contrastive_joint_ig: there is no other fact to compare {prompt.fact.id!r} with; give contrast facts."
            )
        return self.pool.activations[others].mean(0)
