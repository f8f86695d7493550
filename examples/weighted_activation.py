"""A scorer of one's own: activation times the length of what the neuron writes.

Run it in a comparison with

    kn-attrib compare --plugin examples/weighted_activation.py --methods weighted_activation,random
"""

from dataclasses import dataclass

from torch import Tensor

import kn_attrib as kn


@kn.register("weighted_activation")
@dataclass(frozen=True)
class WeightedActivation(kn.Scorer):
    """The size of what the neuron adds to the residual stream: |a| · ‖v‖."""

    def score(self, model: kn.NeuronModel, batch: kn.Batch) -> Tensor:
        return model.record(batch).abs() * model.value_norms()
