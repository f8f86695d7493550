"""Random scores: the control that every method must beat."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer


@register("random")
@dataclass(frozen=True)
class Random(Scorer):
    """Random scores, the same for every prompt of a fact.

    ``score_i = 1 / u_i``, ``u_i`` uniform on (0, 1), drawn from the seed and the fact's id. The heavy tail makes the
    paper's threshold (a fifth of the maximum) keep five neurons on average, about as many as real methods keep.

    Parameters
    ----------
    seed : the seed.

    Reference
    ---------
    A control, of no paper.
    """

    seed: int = 0
    reference: ClassVar[str] = "control"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        drawn = {fact.id: self._draw(fact.id, model) for fact in batch.facts}
        return torch.stack([drawn[fact.id] for fact in batch.facts]).to(model.device)

    def _draw(self, fact: str, model: NeuronModel) -> Tensor:
        digest = hashlib.sha256(f"{self.seed}:{fact}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        uniform = torch.rand(model.n_layers, model.n_neurons, generator=generator, dtype=torch.float64)
        return 1 / uniform.clamp_min(1e-12)
