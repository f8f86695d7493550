"""Layer conductance: how much of the integrated gradient of the input embeddings flows through a neuron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.techniques.embedding_paths import along_embeddings, batch_parts


@register("layer_conductance", "layer_integrated_conductance")
@dataclass(frozen=True)
class LayerConductance(Scorer):
    """Conductance of each neuron along the straight line from zero input embeddings.

    ``score_i = ∫ ∂F/∂h_i · dh_i``, where ``h`` runs along the curve that the straight interpolation of all input
    embeddings induces at the layer, read at the answer position. *Not* complete for a feed-forward block in a
    residual network (the residual stream carries the rest), so no completeness gap is reported. Known failure: blocks
    that normalise without a shift (RMSNorm, as in Llama) have huge gradients where the embeddings vanish, and that end
    of the line drowns everything else; scores of `zoo:llama-facts` find planted neurons no better than chance. Where
    they overflow (30 such blocks do in single precision), the first step takes the gradient of its far end.

    Parameters
    ----------
    steps : number of points on the line.
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.
    max_rows : most rows (prompts × points) in one forward and backward.

    Reference
    ---------
    Dhamdhere et al. 2018, arXiv 1805.12233; Captum ``LayerConductance``.
    """

    steps: int = 20
    objective: Objective = "prob"
    max_rows: int = 512
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Dhamdhere et al. 2018, arXiv 1805.12233"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return torch.cat([self._conductance(model, part) for part in batch_parts(batch, self.max_rows, self.steps + 1)])

    def _conductance(self, model: NeuronModel, batch: Batch) -> Tensor:
        """What Captum's `LayerConductance` gives for each layer, from one pass for all of them."""
        # Captum ignores quadrature weights here: it adds up dh between points, so equal steps are the right ones.
        line = along_embeddings(model, batch, self.objective, torch.linspace(0, 1, self.steps + 1).tolist())
        return (line.gradients[:-1] * line.states.diff(dim=0)).sum(0)
