"""Methods that compare facts with one another: `probe`, `probeless` and `qrnca`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from kn_attrib import Batch, NeuronModel, Pool, Scorer, register, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.methods import QRNCA, Probe, Probeless
from kn_attrib.methods.probe import ELASTIC_NET, Array, fit_sparse
from kn_attrib.scoring.contrast_pool import pool_of


@pytest.fixture
def pool(tiny: NeuronModel, facts: FactSet) -> Pool:
    return pool_of(tiny, tiny.encode(facts).prompts)


def two_relations(facts: FactSet) -> list[Fact]:
    """The facts, and the same countries with another relation and other answers."""
    others = ["Rome", "Paris", "Madrid", "Berlin"]
    return [
        *facts,
        *(
            replace(fact, id=f"other:{fact.subject}", relation="other", answer=answer)
            for fact, answer in zip(facts, others, strict=True)
        ),
    ]


# -- classes ----------------------------------------------------------------------------------------------------------


def test_classes_of_a_fact_are_its_own_queries_and_those_of_others(pool: Pool) -> None:
    fact = pool.facts[1]
    found = pool.classes(fact, "fact")
    assert list(found) == [fact.id, ""]
    assert sorted(found[fact.id]) == pool.of(fact)
    assert sorted(found[""]) == pool.contrast(fact)


def test_classes_by_answer_are_those_of_the_relation(tiny: NeuronModel, facts: FactSet) -> None:
    every = two_relations(facts)
    pool = pool_of(tiny, tiny.encode(every).prompts)
    found = pool.classes(every[0], "answer")
    assert set(found) == {"Paris", "Rome", "Berlin", "Madrid"}
    for answer, indices in found.items():
        assert {(pool.queries[i].fact.relation, pool.queries[i].fact.answer) for i in indices} == {("capital", answer)}
        assert len(indices) == 5


def test_classes_do_not_depend_on_the_order_of_the_facts(tiny: NeuronModel, facts: FactSet) -> None:
    forth, back = (pool_of(tiny, tiny.encode(each).prompts) for each in (list(facts), list(facts)[::-1]))
    for label in ("fact", "answer"):
        read = [
            [(name, [p.queries[i].text for i in indices]) for name, indices in p.classes(facts[0], label).items()]
            for p in (forth, back)
        ]
        assert read[0] == read[1]


@pytest.mark.parametrize("scorer", [Probe(), Probeless(), Probe(label="answer"), Probeless(label="answer")])
def test_one_fact_alone_cannot_be_told_apart(tiny: NeuronModel, facts: FactSet, scorer: Scorer) -> None:
    with pytest.raises(MethodError, match="has nothing to be told apart from: no other fact has another answer"):
        score(tiny, facts[0], scorer)


# -- probeless --------------------------------------------------------------------------------------------------------


def test_probeless_of_one_pair(tiny: NeuronModel, facts: FactSet, pool: Pool) -> None:
    fact = facts[2]
    own, others = (pool.activations[indices].mean(0) for indices in (pool.of(fact), pool.contrast(fact)))
    found = score(tiny, facts, Probeless()).for_fact(fact.id).values
    assert torch.allclose(found, (own - others).abs().expand_as(found), atol=1e-12)


@pytest.mark.parametrize("pairs", ["all", "own"])
def test_probeless_is_the_loop_over_pairs_of_answers(tiny: NeuronModel, facts: FactSet, pool: Pool, pairs: str) -> None:
    means = {fact.answer: pool.activations[pool.of(fact)].mean(0) for fact in facts}
    scores = score(tiny, facts, Probeless(label="answer", pairs=pairs))
    for fact in facts:
        expected = torch.zeros(tiny.n_layers, tiny.n_neurons, dtype=tiny.dtype)
        for one, other in combinations(means, 2):
            if pairs == "all" or fact.answer in (one, other):
                expected += (means[one] - means[other]).abs()
        assert torch.allclose(scores.for_fact(fact.id).values[0], expected, atol=1e-12)


def test_probeless_by_pencil() -> None:
    """Means 1, 4, 6 of three classes: |1−4| + |1−6| + |4−6| = 10; the second's own pairs: 3 + 2."""
    pool = Given(torch.tensor([1.0, 4.0, 6.0]))
    assert Probeless(label="answer").score_facts(ONE, pool)["b"].item() == 10  # type: ignore[arg-type]
    assert Probeless(label="answer", pairs="own").score_facts(ONE, pool)["b"].item() == 5  # type: ignore[arg-type]


class Given(Pool):
    """One query of each of two or three facts, of one neuron whose activations are given."""

    def __init__(self, activations: Tensor) -> None:
        texts = ("x [Y]",)
        facts = [Fact(name, "r", name, name, texts) for name in "abc"[: len(activations)]]
        object.__setattr__(self, "queries", tuple(_Query(fact, texts[0], 0) for fact in facts))
        object.__setattr__(self, "facts", tuple(facts))
        object.__setattr__(self, "activations", activations[:, None, None])


@dataclass(frozen=True)
class _Query:
    fact: Fact
    text: str
    token: int


@dataclass(frozen=True)
class _One:
    n_layers: int = 1
    n_neurons: int = 1


ONE = _One()


# -- probe ------------------------------------------------------------------------------------------------------------


def data(n_classes: int) -> tuple[Array, Any]:
    """Standardised features, more than samples, and classes that some of them tell apart."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % n_classes
    features = generator.normal(size=(60, 300))
    features[:, :5] += np.eye(5, n_classes).T[labels] * 2
    return (features - features.mean(0)) / features.std(0), labels


def regression(strength: float, l1_ratio: float) -> Any:
    return LogisticRegression(
        l1_ratio=l1_ratio, C=strength, solver="saga", tol=1e-9, max_iter=20000, random_state=0, **ELASTIC_NET
    )


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.1, 0.5])
def test_a_sparse_fit_is_the_fit_on_all_features(n_classes: int, l1_ratio: float) -> None:
    features, labels = data(n_classes)
    found, converged = fit_sparse(regression(0.1, l1_ratio), features, labels)
    assert converged
    expected = regression(0.1, l1_ratio).fit(features, labels).coef_
    assert (expected == 0).any() == (l1_ratio > 0)
    assert np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()


def test_a_sparse_fit_is_optimal_for_all_features() -> None:
    """The conditions for a minimum of (1−ρ)/2 ‖w‖² + ρ ‖w‖₁ + C Σ loss, feature by feature."""
    features, labels = data(2)
    ratio, strength = 0.3, 0.2
    model = regression(strength, ratio)
    (weights,), _ = fit_sparse(model, features, labels)
    probability = 1 / (1 + np.exp(-(features @ weights + model.intercept_)))
    slopes = strength * features.T @ (labels - probability)
    inside = weights != 0
    assert 5 <= inside.sum() < 100
    expected = (1 - ratio) * weights + ratio * np.sign(weights)
    assert np.abs(slopes - expected)[inside].max() < 1e-5
    assert np.abs(slopes[~inside]).max() <= ratio * 1.01


def test_probe_of_one_neuron_by_pencil() -> None:
    """Activations 3 and 5 become −1 and 1. The minimum of w²/2 + 2 log(1 + exp(−w)) is where w (1 + exp(w)) = 2."""
    scorer = Probe(strength=1.0, l1_ratio=0.0, tolerance=1e-10, max_iter=10000)
    weight = scorer.score_facts(ONE, Given(torch.tensor([3.0, 5.0])))["a"].item()  # type: ignore[arg-type]
    assert weight * (1 + math.exp(weight)) == pytest.approx(2, abs=1e-6)
    assert weight == pytest.approx(0.675, abs=5e-4)


def test_probe_finds_the_neuron_that_tells_a_fact(tiny: NeuronModel, facts: FactSet, pool: Pool) -> None:
    told = torch.randn(pool.activations.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    told[pool.of(facts[0]), 1, 7] += 5
    object.__setattr__(pool, "activations", told)
    scores = Probe().score_facts(tiny, pool)
    assert divmod(int(scores[facts[0].id].argmax()), tiny.n_neurons) == (1, 7)
    assert (scores[facts[0].id] >= 0).all()


def test_probe_scores_do_not_depend_on_the_scale_of_a_neuron(tiny: NeuronModel, facts: FactSet, pool: Pool) -> None:
    """|coefficient| · std is what the neuron contributes, whatever its units."""
    before = Probe().score_facts(tiny, pool)[facts[0].id]
    scales = torch.linspace(0.01, 100, tiny.n_neurons, dtype=torch.float64)
    object.__setattr__(pool, "activations", pool.activations * scales + 3)
    assert torch.allclose(Probe().score_facts(tiny, pool)[facts[0].id], before, atol=1e-6)
    assert before.any()


def test_probe_of_answers_gives_each_fact_its_own_class(tiny: NeuronModel, facts: FactSet) -> None:
    every = two_relations(facts)
    scores = score(tiny, every, Probe(label="answer"))
    rows = {fact.id: scores.for_fact(fact.id).values[0] for fact in every}
    assert not torch.allclose(rows[every[0].id], rows[every[1].id])
    alone = score(tiny, list(facts), Probe(label="answer")).for_fact(facts[0].id).values[0]
    assert torch.allclose(rows[facts[0].id], alone, atol=1e-9)


def test_probe_of_two_answers_gives_both_the_same(tiny: NeuronModel, facts: FactSet) -> None:
    scores = score(tiny, list(facts)[:2], Probe(label="answer", strength=1.0))
    first, second = (scores.for_fact(fact.id).values[0] for fact in list(facts)[:2])
    assert first.any()
    assert torch.equal(first, second)


def test_a_probe_that_does_not_converge_says_so(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.warns(
        ConvergenceWarning, match=r"4 of 4 fits \(the first: capital:France\) did not converge in 1 pass"
    ):
        score(tiny, facts, Probe(max_iter=1))


@pytest.mark.parametrize(
    ("scorer", "settings", "message"),
    [
        (Probe, {"label": "facts"}, "probe: unknown label 'facts'. Did you mean 'fact'"),
        (Probe, {"l1_ratio": 2.0}, "l1_ratio is 2.0; expected a share from 0 to 1"),
        (Probe, {"strength": 0.0}, "strength is 0.0; expected a positive number"),
        (Probeless, {"label": "facts"}, "probeless: unknown label 'facts'"),
        (Probeless, {"pairs": "some"}, "probeless: unknown pairs 'some'"),
        (QRNCA, {"common": 0.0}, "common is 0.0; expected a share above 0"),
        (QRNCA, {"base": "gradients"}, "unknown method 'gradients'. Did you mean"),
    ],
)
def test_bad_parameters_are_refused(scorer: type[Scorer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        scorer(**settings)


# -- qrnca ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def given_scores(registry: dict[str, type[Scorer]], facts: FactSet) -> dict[str, Tensor]:
    """Makes the method ``given``: for each fact known scores of the first five neurons, 0 for the others."""
    del registry
    rows = {
        #             own   all  two   low  negative
        facts[0].id: [4.0, 2.0, 1.0, 0.5, -2.0],
        facts[1].id: [0.0, 5.0, 2.5, 0.1, -9.0],
        facts[2].id: [0.0, 1.0, 0.0, 0.1, -9.0],
        facts[3].id: [0.0, 3.0, 0.0, 0.1, -9.0],
    }
    table = {fact: torch.tensor(row, dtype=torch.float64) for fact, row in rows.items()}

    @register("given")
    @dataclass(frozen=True)
    class GivenScores(Scorer):
        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            scores = torch.zeros(len(batch), model.n_layers, model.n_neurons, dtype=torch.float64)
            scores[:, 0, :5] = torch.stack([table[fact.id] for fact in batch.facts])
            return scores

    return table


@pytest.mark.usefixtures("given_scores")
def test_qrnca_by_pencil(tiny: NeuronModel, facts: FactSet) -> None:
    """Four facts, threshold 0.2: found for one log(4/2), for two (half of them) log(4/3), for none log 4, for all 0."""
    found = score(tiny, facts, QRNCA(base="given", common=0.5)).for_fact(facts[0].id).values
    # Shares of the highest, 4: 1, 0.5, 0.25, 0.125 (below 0.2 in every fact), −0.5.
    expected = [math.log(2), 0.0, 0.25 * math.log(4 / 3), 0.125 * math.log(4), -0.5 * math.log(4)]
    assert found[0, 0, :5].tolist() == pytest.approx(expected, abs=1e-12)
    stricter = score(tiny, facts, QRNCA(base="given")).for_fact(facts[0].id).values
    assert stricter[0, 0, :5].tolist() == pytest.approx([*expected[:2], 0.0, *expected[3:]], abs=1e-12)


def test_qrnca_scores_are_the_bases_times_one_weight_per_neuron(tiny: NeuronModel, facts: FactSet) -> None:
    base = score(tiny, facts, "gradient_x_activation").values
    found = score(tiny, facts, QRNCA(base="gradient_x_activation", common=0.5)).values
    weights = found / (base / base.flatten(1).amax(1)[:, None, None])
    assert torch.allclose(weights, weights[:1].expand_as(weights), atol=1e-9)
    possible = torch.tensor([0.0, math.log(4), math.log(2), math.log(4 / 3)], dtype=torch.float64)
    assert ((weights[0][..., None] - possible).abs().amin(-1) < 1e-9).all()
    assert len(weights[0].mul(1e6).round().unique()) >= 3


def test_qrnca_looks_at_the_facts_it_is_compared_with(tiny: NeuronModel, facts: FactSet) -> None:
    alone = score(tiny, facts[0], QRNCA(), contrast=facts[1:])
    together = score(tiny, facts, QRNCA())
    assert torch.allclose(alone.values, together.for_fact(facts[0].id).values, atol=1e-9)


def test_qrnca_scores_prompts_that_it_was_not_fitted_on(tiny: NeuronModel, facts: FactSet) -> None:
    fitted = QRNCA(base="activation").fit(tiny, tiny.encode(facts).prompts)
    _, batch = next(iter(tiny.batches(tiny.encode(facts, "held_out").prompts)))
    activations = tiny.record(batch)
    weights = fitted.score(tiny, batch) / (activations / activations.flatten(1).amax(1)[:, None, None])
    assert torch.allclose(weights, weights[:1].expand_as(weights), atol=1e-9)


def test_qrnca_needs_enough_facts(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(MethodError, match=r"there are 3 facts, and what is found for one .* expected at least 4"):
        score(tiny, list(facts)[:3], QRNCA())
    _, batch = next(iter(tiny.batches(tiny.encode(facts).prompts)))
    with pytest.raises(MethodError, match="qrnca needs the prompts of several facts"):
        QRNCA().score(tiny, batch)
