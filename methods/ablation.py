"""Exact single-neuron ablation: what each neuron alone is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.forward import PlainForward
from kn_attrib.model import NeuronModel, Objective
from kn_attrib.prompts import Batch
from kn_attrib.registry import register
from kn_attrib.scorer import Scorer


@register("ablation")
@dataclass(frozen=True)
class Ablation(Scorer):
    """The loss of the objective when the neuron alone is set to a value, for every neuron, exactly.

    ``score_i = f_l(a) − f_l(a with a_i := value)`` at the answer position. Neurons whose activation equals the value
    already score 0 without a forward pass. Misses neurons that stand in for one another.

    Parameters
    ----------
    value : what the activation is set to.
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.
    max_rows : most neurons in one forward pass.

    Reference
    ---------
    Morcos et al. 2018, arXiv 1803.06959.
    """

    value: float = 0.0
    objective: Objective = "prob"
    max_rows: int = 512
    reference: ClassVar[str] = "Morcos et al. 2018, arXiv 1803.06959"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        activations = model.record(batch)
        forward = PlainForward(model, batch, self.objective)
        clean = forward.clean()
        scores = torch.zeros_like(activations, dtype=clean.dtype)
        with torch.no_grad():
            for where in (activations != self.value).nonzero().split(self.max_rows):
                prompts, layers, neurons = where.unbind(1)
                rows = activations[prompts, layers]
                rows[torch.arange(len(rows), device=rows.device), neurons] = self.value
                scores[prompts, layers, neurons] = clean[prompts] - forward(rows, layers, prompts)
        return scores
