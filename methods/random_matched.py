"""Matched random neurons: the control that is as active and as strong as the neurons a method picks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator
from kn_attrib.scoring.derived_scorer import DerivedScorer
from kn_attrib.scoring.registry import register
from kn_attrib.techniques.deciles import deciles


@register("random_matched")
@dataclass(frozen=True)
class RandomMatched(DerivedScorer):
    """Random neurons of the same layer and the same decile of ``|a| · ‖v‖`` as another method's picks.

    A prompt's *picks* are the neurons with the highest scores of the base. Within each cell (a layer's neurons of one
    decile of ``|a_i| · ‖v_i‖``, deciles taken by layer) the base's scores are handed out anew in descending order:
    first to the neurons that are no picks, in random order, then to the picks. So whatever the budget, the neurons with
    the highest scores have the layers and deciles of the base's own, and a pick keeps a high score only where its cell
    is mostly picks. The order is drawn for the fact, not for each prompt, so that its prompts agree as a method's do.
    What a method gains over it does not come from layer, activity or strength. One forward pass per prompt, and what
    the base costs.

    Parameters
    ----------
    base : the method whose picks are matched, as text: ``"name"``, ``"name:preset"`` or ``"name(param=value)"``.
    share : picks, as a share of the model's neurons (at least one).
    seed : the seed.

    Raises
    ------
    MethodError : unknown base, or a share that is not above 0 and below 1.

    Reference
    ---------
    Control.
    """

    share: float = 0.01
    seed: int = 0
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "control"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise MethodError(f"random_matched: share is {self.share}; expected a share of the neurons, from 0 to 1.")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        scores = self.base_scores(model, batch)
        cells = deciles(model.record(batch).abs() * model.value_norms()).to(scores.device)
        flat = scores.flatten(1)
        best = flat.topk(max(1, round(self.share * flat.shape[1]))).indices
        picked = torch.zeros_like(flat, dtype=torch.bool).scatter(1, best, True).view(scores.shape)
        drawn = torch.stack([self._draw(fact.id, scores) for fact in batch.facts]).to(scores.device)
        # Both orders run through the cells alike, so that places in them match.
        receivers = (cells * 2.0 + picked + drawn).argsort(-1)
        givers = scores.argsort(dim=-1, descending=True, stable=True)
        givers = givers.gather(-1, cells.gather(-1, givers).argsort(dim=-1, stable=True))
        return torch.zeros_like(scores).scatter(-1, receivers, scores.gather(-1, givers))

    def _draw(self, fact: str, scores: Tensor) -> Tensor:
        """Uniform numbers below 1, ``[layer, neuron]``."""
        return torch.rand(scores.shape[1:], generator=torch_generator(self.seed, fact), dtype=torch.float64)
