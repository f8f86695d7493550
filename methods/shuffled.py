"""Shuffled scores: the control that keeps how a method's scores are distributed over layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator
from kn_attrib.scoring.derived_scorer import DerivedScorer
from kn_attrib.scoring.registry import register

UNITS = ("fact", "prompt")


@register("shuffled")
@dataclass(frozen=True)
class Shuffled(DerivedScorer):
    """Another method's scores, permuted at random within each layer.

    ``score_i = base_π(i)``, π drawn for each layer. What a method gains over it does not come from the choice of layers
    or from how steep its scores are. All prompts of a fact share π by default, so that as many neurons survive the
    refinement as with the base; with a permutation of its own for each prompt hardly any neuron would be selected in
    most of them. Blind to everything else. Costs what the base costs.

    Parameters
    ----------
    base : the method whose scores are permuted, as text: ``"name"``, ``"name:preset"`` or ``"name(param=value)"``.
    seed : the seed.
    per : ``"fact"`` (all its prompts share a permutation) or ``"prompt"`` (each query has its own).

    Raises
    ------
    MethodError : unknown base, or ``per`` is neither.

    Reference
    ---------
    Control.
    """

    seed: int = 0
    per: str = "fact"
    reference: ClassVar[str] = "control"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per not in UNITS:
            raise MethodError(f"shuffled: {unknown('per', self.per, UNITS)}")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        scores = self.base_scores(model, batch)
        orders = []
        for prompt in batch.prompts:
            own = () if self.per == "fact" else (prompt.text, prompt.token)
            generator = torch_generator(self.seed, prompt.fact.id, *own)
            orders.append(torch.rand(scores.shape[1:], generator=generator, dtype=torch.float64).argsort(-1))
        return scores.gather(-1, torch.stack(orders).to(scores.device))
