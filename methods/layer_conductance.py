"""Layer conductance: how much of the integrated gradient of the input embeddings flows through a neuron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from captum._utils.gradient import compute_layer_gradients_and_eval
from torch import Tensor

from kn_attrib.forward import AnswerObjective
from kn_attrib.model import NeuronModel, Objective
from kn_attrib.prompts import Batch
from kn_attrib.registry import register
from kn_attrib.scorer import Scorer


@register("layer_conductance", "layer_integrated_conductance")
@dataclass(frozen=True)
class LayerConductance(Scorer):
    """Conductance of each neuron along the straight line from zero input embeddings.

    ``score_i = ∫ ∂F/∂h_i · dh_i``, where ``h`` runs along the curve that the straight interpolation of all input
    embeddings induces at the layer, read at the answer position. *Not* complete for a feed-forward block in a
    residual network (the residual stream carries the rest), so no completeness gap is reported.

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
        size = max(1, self.max_rows // (self.steps + 1))
        parts = [Batch(batch.prompts[start : start + size], batch.device) for start in range(0, len(batch), size)]
        return torch.cat([self._conductance(model, part) for part in parts])

    def _conductance(self, model: NeuronModel, batch: Batch) -> Tensor:
        """What Captum's `LayerConductance` gives for each layer, from one pass for all of them."""
        inputs, points = model.embed(batch), self.steps + 1
        # Captum ignores quadrature weights here: it adds up dh between points, so equal steps are the right ones.
        line = torch.cat([inputs * alpha for alpha in torch.linspace(0, 1, points).tolist()]).requires_grad_()
        where = tuple(part.repeat(points, *[1] * (part.ndim - 1)) for part in batch.where)
        gradients, states = compute_layer_gradients_and_eval(
            AnswerObjective(model, self.objective), model.taps, (line,), additional_forward_args=where,
            attribute_to_layer_input=True,
        )  # fmt: skip
        positions = where[0]
        rows = torch.arange(len(positions), device=positions.device)

        def along(vectors: tuple[Tensor, ...]) -> Tensor:
            """``[point, prompt, neuron]`` at the answer positions."""
            return vectors[0].detach()[rows, positions].view(points, len(batch), -1)

        layers = [
            (along(gradient)[:-1] * along(state).diff(dim=0)).sum(0)
            for gradient, state in zip(gradients, states, strict=True)
        ]
        return torch.stack(layers, dim=1)
