"""A balanced mask: the few neurons whose removal costs the fact its answer and other facts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import texts_of
from kn_attrib.interventions.masks import (
    MaskedQuery,
    learn_masks,
    masked_batches,
    masked_logprob,
    own_queries,
    weights_of,
)
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator
from kn_attrib.scoring.contrast_pool import Pool
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import FactScorer


@register("balanced_mask")
@dataclass(frozen=True)
class BalancedMask(FactScorer):
    """How far a neuron is removed by a mask that makes the model lose the fact and keep the others.

    ``m = argmin over [0, 1] of −log(1 − p(answer | m ⊙ a)) + balance · mean over controls of (Δ log p)² +
    penalty · Σ(1 − m) / N``; ``score = 1 − m``. Controls are prompts of other facts under the same mask, ``Δ log p``
    the change of their answers' log-probability. Looks for what is *necessary* for the fact and for nothing else; it
    sees control facts, which others do not, so judge it on facts that it has not seen. Cost: ``steps`` forwards and
    backwards per prompt and control.

    Parameters
    ----------
    penalty : weight of the share of neurons removed.
    balance : weight of the controls.
    controls : number of control texts of each fact, drawn from other facts (other answer, other subject).
    steps : number of steps of Adam.
    rate : its rate; the mask begins at 1 everywhere.
    seed : of the controls.

    Raises
    ------
    MethodError : a number is not positive, or there is no other fact.

    Reference
    ---------
    After Sakarvadia et al. 2025, arXiv 2410.02159 (BalancedSubnet, there on weights).
    """

    penalty: float = 30.0
    balance: float = 1.0
    controls: int = 6
    steps: int = 40
    rate: float = 0.05
    seed: int = 0
    threshold: ClassVar[float] = 0.5
    reference: ClassVar[str] = "after Sakarvadia et al. 2025, arXiv 2410.02159"

    def __post_init__(self) -> None:
        for name in ("penalty", "balance", "controls", "steps", "rate"):
            if not getattr(self, name) > 0:
                raise MethodError(f"balanced_mask: {name} is {getattr(self, name)}; expected a positive number.")

    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        facts = [fact.id for fact in pool.facts]
        shape = (len(facts), model.n_layers, model.n_neurons)
        start = torch.ones(shape, dtype=model.dtype, device=model.device)
        controls = [query for place, fact in enumerate(pool.facts) for query in self._controls(pool, fact, place)]
        clean = _clean(model, controls)
        masks = learn_masks(
            model,
            [*own_queries(pool.prompts, facts), *controls],
            start,
            gates=lambda parameters, _: parameters,
            loss=lambda logprobs, queries: self._loss(logprobs, queries, clean),
            penalty=lambda parameters: self.penalty / (shape[1] * shape[2]) * (1 - parameters).sum(),
            steps=self.steps,
            rate=self.rate,
            limits=(0.0, 1.0),
        )
        return dict(zip(facts, 1 - masks, strict=True))

    def _controls(self, pool: Pool, fact: Fact, place: int) -> list[MaskedQuery]:
        """Queries of a few texts of other facts, under this fact's mask."""
        others = [pool.queries[i] for i in pool.contrast(fact)]
        if not others:
            raise MethodError(
                f"balanced_mask: there is no other fact to balance {fact.id!r} with; give contrast facts."
            )
        # Sorted by content, so that the draw does not depend on which facts came first.
        texts = sorted(texts_of(others), key=lambda text: (text.fact.id, text.text))
        generator = torch_generator(self.seed, fact.id)
        chosen = [texts[i] for i in torch.randperm(len(texts), generator=generator)[: self.controls].tolist()]
        return [MaskedQuery(q, place, 1 / len(chosen), control=True) for text in chosen for q in text.queries]

    def _loss(self, logprobs: Tensor, queries: Sequence[MaskedQuery], clean: dict[tuple[int, int], float]) -> Tensor:
        weights = weights_of(queries, logprobs)
        control = torch.tensor([query.control for query in queries], device=logprobs.device)
        before = torch.tensor([clean.get(_key(q), 0.0) for q in queries], dtype=logprobs.dtype, device=logprobs.device)
        # log(1 − p) without cancellation; where p is 1 to the last digit it is as large as the type allows.
        forgotten = -torch.log(-torch.expm1(logprobs.clamp_max(-1e-6)))
        moved = self.balance * (logprobs - before).square()
        return (weights * torch.where(control, moved, forgotten)).sum()


def _key(query: MaskedQuery) -> tuple[int, int]:
    return query.fact, id(query.prompt)


def _clean(model: NeuronModel, controls: Sequence[MaskedQuery]) -> dict[tuple[int, int], float]:
    """Log-probabilities of the controls' answers in the model as it is."""
    found: dict[tuple[int, int], float] = {}
    for some, batch in masked_batches(model, controls, 256):
        nothing = torch.ones(len(batch), model.n_layers, model.n_neurons, dtype=model.dtype, device=model.device)
        with torch.no_grad():
            logprobs = masked_logprob(model, batch, nothing)
        found.update({_key(query): value for query, value in zip(some, logprobs.tolist(), strict=True)})
    return found
