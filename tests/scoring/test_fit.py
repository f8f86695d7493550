"""Methods that are fitted on many facts: `Pool`, `ContrastScorer`, `FactScorer`, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kn_attrib import Batch, ContrastScorer, FactScorer, NeuronModel, Pool, compare, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.scoring.contrast_pool import pool_of


@dataclass(frozen=True)
class Unusual(ContrastScorer):
    """How far a neuron is above its mean over other facts' prompts."""

    scale: float = 1.0

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        means = [self.pool.activations[self.pool.contrast(fact)].mean(0) for fact in batch.facts]
        return self.scale * (model.record(batch) - torch.stack(means))


@dataclass(frozen=True)
class MeanActivation(FactScorer):
    """Mean activation over all prompts of the fact."""

    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        return {fact.id: pool.activations[pool.of(fact)].mean(0) for fact in pool.facts}


def test_pool_knows_its_queries(tiny: NeuronModel, facts: FactSet) -> None:
    queries, others = tiny.encode(facts[:2]).prompts, tiny.encode(facts).prompts
    pool = pool_of(tiny, queries, others)
    assert pool.facts == facts[:2].facts
    assert len(pool) == len(others)
    for index, query in enumerate(pool.queries):
        _, batch = next(iter(tiny.batches([query])))
        assert torch.allclose(pool.activations[index], tiny.record(batch)[0], atol=1e-6)
    own = pool.of(facts[0])
    assert {pool.queries[i].fact.id for i in own} == {facts[0].id}
    assert not set(own) & set(pool.contrast(facts[0]))


def test_contrast_respects_the_relation(tiny: NeuronModel, facts: FactSet) -> None:
    pool = pool_of(tiny, tiny.encode(facts).prompts)
    fact = facts[0]
    same, other, every = (pool.contrast(fact, same) for same in (True, False, None))
    assert sorted(same + other) == every
    assert {pool.queries[i].fact.relation for i in same} <= {fact.relation}
    assert all(pool.queries[i].fact.answer != fact.answer for i in every)


def test_contrast_scorer_compares_with_the_facts_given(tiny: NeuronModel, facts: FactSet) -> None:
    alone = score(tiny, facts[0], Unusual(), contrast=facts[1:])
    together = score(tiny, facts, Unusual())
    assert torch.allclose(alone.values, together.for_fact(facts[0].id).values, atol=1e-6)
    assert alone.params == {"scale": 1.0}
    assert repr(Unusual()) == "Unusual(scale=1.0)"


def test_fact_scorer_gives_each_prompt_its_facts_scores(tiny: NeuronModel, facts: FactSet) -> None:
    found = score(tiny, facts[0], MeanActivation())
    assert torch.allclose(found.values, score(tiny, facts[0], "activation").values.mean(0).expand_as(found.values))


def test_not_fitted_is_said(tiny: NeuronModel, facts: FactSet) -> None:
    _, batch = next(iter(tiny.batches(tiny.encode(facts[0]).prompts)))
    with pytest.raises(MethodError, match="Unusual needs the prompts of several facts"):
        Unusual().score(tiny, batch)
    with pytest.raises(MethodError, match="MeanActivation was not fitted on fact"):
        MeanActivation().score(tiny, batch)


def test_cost_counts_rows_forwards_and_backwards(tiny: NeuronModel, facts: FactSet) -> None:
    before = tiny.execution.cost.forwards, tiny.execution.cost.backwards
    found = score(tiny, facts[0], "gradient_x_activation")
    assert (tiny.execution.cost.forwards - before[0], tiny.execution.cost.backwards - before[1]) == (
        len(found),
        len(found),
    )


def test_comparison_fits_and_counts(tiny: NeuronModel, facts: FactSet) -> None:
    comparison = compare(
        tiny, facts, [Unusual(), MeanActivation(), "gradient_x_activation"], budgets=[2], keep=["unknown"],
        progress=False,
    )  # fmt: skip
    records = {record["method"]: record for record in comparison.manifest["methods"]}
    assert records["gradient_x_activation"]["backwards"] == records["gradient_x_activation"]["forwards"] > 0
    assert records["Unusual"]["backwards"] == 0
