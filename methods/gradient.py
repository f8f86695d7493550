"""The gradient: sensitivity of the answer to a neuron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from captum import attr
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.all_tokens import at_answer
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer


@register("gradient")
@dataclass(frozen=True)
class Gradient(Scorer):
    """Sensitivity of the answer to the neuron, however active it is.

    ``score_i = ∂F/∂a_i``, all layers from one forward and one backward pass. Says what *more* of a neuron would do; a
    neuron that is silent may have the largest gradient, and silencing it again changes nothing. Use it to look for
    neurons to amplify; `gradient_x_activation` for neurons to remove. Cost: one forward, one backward.

    Parameters
    ----------
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.

    Reference
    ---------
    Simonyan et al. 2014, arXiv 1312.6034; Captum ``LayerGradientXActivation`` without the multiplication.
    """

    objective: Objective = "prob"
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Simonyan et al. 2014, arXiv 1312.6034"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        forward = EmbeddingObjective(model, self.objective)
        captum = attr.LayerGradientXActivation(forward, model.hook_points, multiply_by_inputs=False)
        layers = captum.attribute(
            model.embed(batch), additional_forward_args=batch.where, attribute_to_layer_input=True
        )
        return torch.stack([at_answer(layer, batch).detach() for layer in layers], dim=1)
