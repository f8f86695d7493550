"""Gradient times activation: one backward pass for all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from captum import attr
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.all_tokens import at_answer
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.units.view import UnitModel


@register("gradient_x_activation")
@dataclass(frozen=True)
class GradientXActivation(Scorer):
    """First-order estimate of what removing the neuron costs.

    ``score_i = a_i · ∂F/∂a_i``, all layers from one forward and one backward pass. Misses saturation: where the
    answer is certain the gradient is small. Units other than neurons take a pass for each layer.

    Parameters
    ----------
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.

    Reference
    ---------
    Shrikumar et al. 2016, arXiv 1605.01713; Captum ``LayerGradientXActivation``.
    """

    objective: Objective = "prob"
    reference: ClassVar[str] = "Shrikumar et al. 2016, arXiv 1605.01713"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        if isinstance(model, UnitModel):
            return self._units(model, batch)
        captum = attr.LayerGradientXActivation(EmbeddingObjective(model, self.objective), model.hook_points)
        layers = captum.attribute(
            model.embed(batch),
            additional_forward_args=batch.where,
            attribute_to_layer_input=True,
        )
        return torch.stack([at_answer(layer, batch).detach() for layer in layers], dim=1)

    def _units(self, model: UnitModel, batch: Batch) -> Tensor:
        function = objective_function(model, batch, self.objective)
        rows = Rows.of(function.activations)
        _, slopes = function.evaluate(rows.activations, rows.layers, rows.prompts, gradient=True)
        assert slopes is not None
        return (rows.activations * slopes).view(function.activations.shape)
