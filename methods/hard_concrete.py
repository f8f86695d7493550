"""Hard-concrete gates: a learnt distribution over which neurons are switched on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.interventions.masks import learn_masks, negative_log_likelihood, own_queries
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator
from kn_attrib.scoring.contrast_pool import Pool
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import FactScorer

LOW, HIGH = -0.1, 1.1
"""The stretch that lets gates be exactly 0 and exactly 1."""
TEMPERATURE = 2 / 3


@register("hard_concrete")
@dataclass(frozen=True)
class HardConcrete(FactScorer):
    """Probability that a neuron's gate is open, learnt to keep the answer likely with few open gates.

    ``z = clamp(s · 1.2 − 0.1)``, ``s = σ((log u − log(1 − u) + log α) / β)``, ``u`` uniform, ``β = 2/3``; minimised
    over ``log α``: ``−log p(answer | z ⊙ a) + penalty · Σ P(z > 0) / N`` with
    ``P(z > 0) = σ(log α − β log(0.1/1.1))``; ``score = P(z > 0)``. All layers together at the answer position, one set
    of gates for all prompts of a fact. The noise keeps neurons from leaning on one another, which makes their order
    finer than that of `slimming`. Like it, it finds what suffices. Cost: ``steps`` forwards and backwards per prompt.

    Parameters
    ----------
    penalty : weight of the mean probability of open gates.
    steps : number of steps of Adam.
    rate : its rate.
    start : ``log α`` of every gate to begin with.
    seed : of the noise, which is drawn for each fact and step.

    Raises
    ------
    MethodError : penalty, steps or rate is not positive.

    Reference
    ---------
    Louizos et al. 2018, arXiv 1712.01312; Chang et al. 2024, arXiv 2311.09060.
    """

    penalty: float = 50.0
    steps: int = 60
    rate: float = 0.1
    start: float = 2.0
    seed: int = 0
    threshold: ClassVar[float] = 0.5
    reference: ClassVar[str] = "Louizos et al. 2018, arXiv 1712.01312"

    def __post_init__(self) -> None:
        for name in ("penalty", "steps", "rate"):
            if not getattr(self, name) > 0:
                raise MethodError(f"hard_concrete: {name} is {getattr(self, name)}; expected a positive number.")

    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        facts = [fact.id for fact in pool.facts]
        shape = (model.n_layers, model.n_neurons)
        noise: dict[int, Tensor] = {}

        def gates(parameters: Tensor, step: int) -> Tensor:
            if step not in noise:
                noise.clear()
                noise[step] = torch.stack([self._noise(fact, step, shape) for fact in facts]).to(parameters)
            return gate(parameters, noise[step])

        start = torch.full((len(facts), *shape), self.start, dtype=model.dtype, device=model.device)
        found = learn_masks(
            model,
            own_queries(pool.prompts, facts),
            start,
            gates=gates,
            loss=negative_log_likelihood,
            penalty=lambda parameters: self.penalty / math.prod(shape) * open_probability(parameters).sum(),
            steps=self.steps,
            rate=self.rate,
        )
        return dict(zip(facts, open_probability(found), strict=True))

    def _noise(self, fact: str, step: int, shape: tuple[int, int]) -> Tensor:
        """Logistic noise ``log u − log(1 − u)``, the same for a fact whatever other facts are scored with it."""
        generator = torch_generator(self.seed, step, fact)
        return torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6).logit()


def gate(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """Hard-concrete gates: ``clamp(σ((noise + log α) / β) · (high − low) + low, 0, 1)``."""
    return (((noise + log_alpha) / TEMPERATURE).sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Probability that a gate is not 0."""
    return (log_alpha - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid()
