"""Methods that go two paths from a baseline: each layer moves alone, and all layers move together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.techniques.layer_integrals import TOLERANCE
from kn_attrib.techniques.layer_paths import PathObjective, integrate_layers_alone, integrate_layers_together

OBJECTIVES = ("prob", "logprob")


@dataclass(frozen=True)
class TwoPathScorer(Scorer):
    """Parameters of methods that go both paths, and the two integrals."""

    alone: float = 0.5
    steps: int = 0
    layer_steps: int = 0
    objective: PathObjective = "prob"
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        for name in ("steps", "layer_steps"):
            if getattr(self, name) < 0:
                raise MethodError(
                    f"{self.name}: {name} is {getattr(self, name)}; expected at least 1, or 0 (adaptive)."
                )
        if not self.tolerance > 0:
            raise MethodError(f"{self.name}: tolerance is {self.tolerance}; expected a positive share.")
        if not 0 <= self.alone <= 1:
            raise MethodError(f"{self.name}: alone is {self.alone}; expected a weight from 0 to 1.")
        if self.objective not in OBJECTIVES:
            raise MethodError(f"{self.name}: {unknown('objective', self.objective, OBJECTIVES)}")
        self._check_that_all_is_used()

    def _check_that_all_is_used(self) -> None:
        together, alone = self.alone < 1, self.alone > 0
        adaptive = (together and not self.steps) or (alone and not self.layer_steps)
        for name, unused in (
            ("steps", bool(self.steps) and not together),
            ("layer_steps", bool(self.layer_steps) and not alone),
            ("tolerance", self.tolerance != TOLERANCE and not adaptive),
        ):
            if unused:
                raise MethodError(
                    f"{self.name}: {name} is {getattr(self, name)}, which nothing asks for with alone={self.alone}, "
                    f"steps={self.steps} and layer_steps={self.layer_steps}; leave it out."
                )

    def integrals(self, model: NeuronModel, batch: Batch, baselines: Tensor | None = None) -> Tensor:
        """The weighted sum of the two paths' integrated gradients, ``[prompt, layer, neuron]``.

        Parameters
        ----------
        baselines : where the paths begin, ``[prompt, layer, neuron]``; zero if not given.
        """
        parts = []
        if self.alone > 0:
            given = (model, batch, self.objective, self.layer_steps, self.tolerance, baselines)
            parts.append(self.alone * integrate_layers_alone(*given))
        if self.alone < 1:
            given = (model, batch, self.objective, self.steps, self.tolerance, baselines)
            parts.append((1 - self.alone) * integrate_layers_together(*given))
        return torch.stack(parts).sum(0)
