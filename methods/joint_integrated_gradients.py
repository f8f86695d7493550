"""Integrated gradients of each layer alone and of all layers together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.two_path_scorer import TwoPathScorer


@register("joint_integrated_gradients")
@dataclass(frozen=True)
class JointIntegratedGradients(TwoPathScorer):
    """Integrated gradients along two paths: a layer's neurons fade alone, and those of all layers fade together.

    ``score_i = alone · a_i ∫₀¹ ∂f_l(αa)/∂w_i dα + (1 − alone) · ∫₀¹ ∂F(α·1)/∂m_i dα``: the first integral is that of
    `integrated_gradients`; in the second, ``F(m)`` is the objective when every layer's activation at the answer
    position, as it then stands, is multiplied by the mask ``m``. Where one layer can stand in for another, removing a
    layer alone costs nothing and the first path finds nothing; on the second, both fade. The second by itself
    (``alone=0``) is complete over all layers, ``F(1) − F(0)``, but credits what helps the answer only while all is
    faint. Cost per prompt: some 5 forwards and backwards per layer, and 9 or more of the whole prompt.

    Parameters
    ----------
    alone : weight of the path on which a layer fades alone, from 0 to 1.
    steps : Gauss-Legendre nodes of the path on which all fade; 0: as many as the tolerance asks for.
    layer_steps : Gauss-Legendre nodes of the path on which a layer fades alone; 0 as above.
    objective : ``"prob"`` or ``"logprob"``.
    tolerance : of the adaptive rule, as of `integrated_gradients`.

    Raises
    ------
    MethodError : negative steps, a tolerance that is not positive, a weight that is out of range, or an unknown
        objective.

    Reference
    ---------
    Sundararajan et al. 2017, arXiv 1703.01365; the second path is theirs over a mask on all activations.
    """

    reference: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return self.integrals(model, batch)
