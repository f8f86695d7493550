"""Slimming: a sparse mask under which the answer stays likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.interventions.masks import learn_masks, negative_log_likelihood, own_queries
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.contrast_pool import Pool
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import FactScorer


@register("slimming")
@dataclass(frozen=True)
class Slimming(FactScorer):
    """A mask between 0 and 1 on every neuron, learnt to keep the answer likely with as little as possible.

    ``m = argmin over [0, 1] of −log p(answer | m ⊙ a) + penalty · ‖m‖₁ / N``, all layers masked together at the answer
    position, one mask for all prompts of a fact, the mean over its texts; ``score = m``. Finds sets, where methods
    that look at one neuron at a time miss neurons that stand in for one another; but what is *sufficient* to keep the
    answer need not be all that is necessary, and neurons that the penalty has switched off alike score 0 alike. Cost:
    ``steps`` forwards and backwards per prompt.

    Parameters
    ----------
    penalty : weight of the mask's mean.
    steps : number of steps of Adam.
    rate : its rate; the mask begins at 1 everywhere.

    Raises
    ------
    MethodError : a number is not positive.

    Reference
    ---------
    Chang et al. 2024, arXiv 2311.09060, after network slimming (Liu et al. 2017, arXiv 1708.06519).
    """

    penalty: float = 30.0
    steps: int = 40
    rate: float = 0.05
    threshold: ClassVar[float] = 0.5
    reference: ClassVar[str] = "Chang et al. 2024, arXiv 2311.09060"

    def __post_init__(self) -> None:
        for name in ("penalty", "steps", "rate"):
            if not getattr(self, name) > 0:
                raise MethodError(f"slimming: {name} is {getattr(self, name)}; expected a positive number.")

    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        facts = [fact.id for fact in pool.facts]
        size = model.n_layers * model.n_neurons
        start = torch.ones(len(facts), model.n_layers, model.n_neurons, dtype=model.dtype, device=model.device)
        masks = learn_masks(
            model,
            own_queries(pool.prompts, facts),
            start,
            gates=lambda parameters, _: parameters,
            loss=negative_log_likelihood,
            penalty=lambda parameters: self.penalty / size * parameters.sum(),
            steps=self.steps,
            rate=self.rate,
            limits=(0.0, 1.0),
        )
        return dict(zip(facts, masks, strict=True))
