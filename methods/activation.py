"""Raw activation: the baseline of Dai et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer


@register("activation")
@dataclass(frozen=True)
class Activation(Scorer):
    """The neuron's activation at the answer position.

    ``score_i = a_i``. Blind to what the neuron writes and to whether the answer depends on it. Its authors refine
    it with the threshold 0.5.

    Reference
    ---------
    Dai et al. 2022, arXiv 2104.08696, the baseline.
    """

    threshold: ClassVar[float] = 0.5
    reference: ClassVar[str] = "Dai et al. 2022, arXiv 2104.08696"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return model.record(batch)
