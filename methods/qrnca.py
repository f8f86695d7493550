"""QRNCA: a gradient score, discounted for neurons that many facts share."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.contrast_pool import pool_of
from kn_attrib.scoring.derived_scorer import DerivedScorer
from kn_attrib.scoring.registry import register


@register("qrnca")
@dataclass(frozen=True)
class QRNCA(DerivedScorer):
    """A gradient score, times the inverse frequency of facts that the neuron is found for.

    ``score_i = s_i · log(N / (1 + n_i))``; ``s`` is the base's score divided by the prompt's highest (0 where none is
    positive), ``N`` the number of facts, scored and contrast, and ``n_i`` the number of those in whose mean ``s`` over
    its prompts neuron ``i`` reaches the threshold's share of the highest. Neurons with ``n_i`` above the common share
    of ``N`` score 0. Depends on which facts it is given: those of one relation make the relation's neurons common. The
    base on every prompt, those of the contrast included, once.

    Parameters
    ----------
    base : the gradient score, as text: ``"name"``, ``"name:preset"`` or ``"name(param=value)"``.
    passing : share of a fact's highest mean score that counts as found.
    common : share of the facts above which a neuron is dropped.

    Raises
    ------
    MethodError : unknown base, a share out of range, or too few facts: what is found for one fact alone must not be
        more than the common share.

    Reference
    ---------
    Chen et al. 2024, arXiv 2406.10868 (there on option letters of multiple-choice questions).
    """

    passing: float = 0.2
    common: float = 0.3
    _weights: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _shares: dict[Prompt, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    reference: ClassVar[str] = "Chen et al. 2024, arXiv 2406.10868"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("passing", "common"):
            if not 0 < getattr(self, name) <= 1:
                raise MethodError(f"qrnca: {name} is {getattr(self, name)}; expected a share above 0, up to 1.")

    def fit(self, model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Self:
        """A copy of the method that knows how many facts each neuron is found for (parameters as in `Scorer.fit`)."""
        fitted = copy.copy(super().fit(model, prompts, others))
        queries = pool_of(model, prompts, others).queries
        facts = Counter(query.fact.id for query in queries)
        if len(facts) * self.common < 1:
            least = -int(-1 // self.common)  # rounded up
            raise MethodError(
                f"qrnca: there are {len(facts)} facts, and what is found for one of them alone is found for more than "
                f"{self.common:.0%}; expected at least {least}. Score more facts at once, or give "
                "more as contrast=."
            )
        scored = set(prompts)
        shares: dict[Prompt, Tensor] = {}
        means: dict[str, Tensor] = {}
        for _, batch in model.batches(queries):
            for prompt, found in zip(batch.prompts, fitted._normalised(model, batch), strict=True):
                means[prompt.fact.id] = means.get(prompt.fact.id, 0) + found / facts[prompt.fact.id]
                if prompt in scored:
                    shares[prompt] = found
        object.__setattr__(fitted, "_shares", shares)
        object.__setattr__(fitted, "_weights", self._inverse_frequency(list(means.values())))
        return fitted

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        if self._weights is None:
            raise MethodError(
                "qrnca needs the prompts of several facts; call kn_attrib.score(model, facts, …), or its "
                "fit(model, prompts, others) first."
            )
        if any(prompt not in self._shares for prompt in batch.prompts):
            return self._normalised(model, batch) * self._weights
        return torch.stack([self._shares[prompt] for prompt in batch.prompts]) * self._weights

    def _normalised(self, model: NeuronModel, batch: Batch) -> Tensor:
        scores = self.base_scores(model, batch)
        highest = scores.flatten(1).amax(1)[:, None, None]
        return torch.where(highest > 0, scores / highest, 0)

    def _inverse_frequency(self, means: Sequence[Tensor]) -> Tensor:
        """What each neuron's score is multiplied by, ``[layer, neuron]``."""
        tiny = torch.finfo(means[0].dtype).tiny
        found = torch.stack([mean >= self.passing * mean.max().clamp_min(tiny) for mean in means])
        counts = found.sum(0).to(means[0])
        return torch.where(counts > self.common * len(means), 0, (len(means) / (1 + counts)).log())
