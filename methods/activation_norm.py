"""The size of what a neuron writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer


@register("activation_norm")
@dataclass(frozen=True)
class ActivationNorm(Scorer):
    """The size of what the neuron adds to the residual stream.

    ``score_i = |a_i| · ‖v_i‖``. Unlike `activation` it does not depend on how a model shares a factor between
    activation and value vector; like it, it is blind to whether the answer depends on what is written. Cost: one
    forward.

    Reference
    ---------
    Chang et al. 2024, arXiv 2311.09060.
    """

    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Chang et al. 2024, arXiv 2311.09060"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return model.record(batch).abs() * model.value_norms()
