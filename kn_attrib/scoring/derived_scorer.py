"""Methods that are made from another method's scores: its controls."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from typing_extensions import Self

from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import make_scorer
from kn_attrib.scoring.scorer import Attribution, Scorer


@dataclass(frozen=True)
class DerivedScorer(Scorer):
    """A method made from the scores of another one, its *base*, which is fitted along with it.

    Raises
    ------
    MethodError : the base is no method.
    """

    base: str = "integrated_gradients"
    _fitted: Scorer | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        make_scorer(self.base)

    def fit(self, model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Self:
        """A copy of the method whose base is fitted (parameters as in `Scorer.fit`)."""
        fitted = copy.copy(self)
        object.__setattr__(fitted, "_fitted", make_scorer(self.base).fit(model, prompts, others))
        return fitted

    def base_scores(self, model: NeuronModel, batch: Batch) -> Tensor:
        """Scores of the base, ``[prompt, layer, neuron]``."""
        result = (self._fitted or make_scorer(self.base)).score(model, batch)
        return (result.values if isinstance(result, Attribution) else result).detach()
