"""Direct search and Shapley values: sets evaluated by hand, axioms, and brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from kn_attrib import Neuron, NeuronModel, NeuronSet, amplify, score, suppress
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.silent_sets import slopes_of_sets, values_of_sets
from kn_attrib.methods import GreedyAblation, Shapley
from kn_attrib.models.neuron_model import all_neurons


def value(model: NeuronModel, facts: FactSet, neurons: NeuronSet) -> float:
    with suppress(model, neurons):
        return float(model.answer_probability(facts[0]).mean())


def test_values_of_sets_are_means_under_suppression(tiny: NeuronModel, facts: FactSet) -> None:
    queries = [tiny.encode(fact).prompts for fact in facts[:2]]
    sets = [NeuronSet(), NeuronSet([(0, 1)]), NeuronSet([(0, 2), (tiny.n_layers - 1, 4)])]
    found = values_of_sets(tiny, queries, [(0, s) for s in sets] + [(1, sets[2])])
    assert found[:3].tolist() == pytest.approx([value(tiny, facts, s) for s in sets], rel=1e-9)
    assert found[3].item() == pytest.approx(value(tiny, facts[1:], sets[2]), rel=1e-9)


def test_slopes_are_derivatives_of_the_mean_probability(tiny: NeuronModel, facts: FactSet) -> None:
    queries, silent = [tiny.encode(facts[0]).prompts], NeuronSet([(0, 1), (1, 2)])
    slopes = slopes_of_sets(tiny, queries, [silent])[0]
    assert slopes[0, 1] == slopes[1, 2] == 0
    plain = score(tiny, facts[0], "gradient_x_activation").values.mean(0)
    assert torch.allclose(slopes_of_sets(tiny, queries, [NeuronSet()])[0], plain, atol=1e-12)
    # A small step by hand: m = 1 − h on one neuron while the set is silent.
    last, step = tiny.n_layers - 1, 1e-4
    neuron = NeuronSet([(last, 3)])
    with suppress(tiny, silent), amplify(tiny, neuron, 1 + step):
        more = float(tiny.answer_probability(facts[0]).mean())
    with suppress(tiny, silent), amplify(tiny, neuron, 1 - step):
        less = float(tiny.answer_probability(facts[0]).mean())
    assert slopes[last, 3].item() == pytest.approx((more - less) / (2 * step), rel=1e-5)


def test_search_begins_with_the_best_single_neuron_and_never_does_worse(tiny: NeuronModel, facts: FactSet) -> None:
    everything = tiny.n_layers * tiny.n_neurons
    found = score(tiny, facts[0], GreedyAblation(size=4, candidates=everything, objective="prob", against=""))
    order = found.values[0].flatten().argsort(descending=True)[:4].tolist()
    chosen = [Neuron(*divmod(index, tiny.n_neurons)) for index in order]
    assert found.values[0].flatten()[order].tolist() == [4, 3, 2, 1]
    # By hand: with all neurons as candidates every step is the exact best.
    grown: list[Neuron] = []
    for expected in chosen:
        best = min(
            (n for n in all_neurons(tiny) if n not in grown), key=lambda n: value(tiny, facts, NeuronSet([*grown, n]))
        )
        assert best == expected
        grown.append(best)
    single = score(tiny, facts[0], "ablation").values.mean(0).flatten().topk(4).indices.tolist()
    top = NeuronSet(Neuron(*divmod(index, tiny.n_neurons)) for index in single)
    assert value(tiny, facts, NeuronSet(chosen)) <= value(tiny, facts, top) + 1e-12


def test_a_beam_is_at_least_as_good(tiny: NeuronModel, facts: FactSet) -> None:
    narrow, wide = (
        score(tiny, facts[0], GreedyAblation(size=3, candidates=10, beam=beam, objective="prob", against="")).top_k(3)
        for beam in (1, 4)
    )
    assert value(tiny, facts, wide) <= value(tiny, facts, narrow) + 1e-12


def test_the_other_order_is_taken_where_it_does_better(tiny: NeuronModel, facts: FactSet) -> None:
    queries = [tiny.encode(facts[0]).prompts]

    def fallen(scorer: GreedyAblation) -> float:
        order = score(tiny, facts[0], scorer).values[0].flatten().argsort(descending=True)[:4].tolist()
        sets = [NeuronSet(Neuron(*divmod(i, tiny.n_neurons)) for i in order[:k]) for k in (1, 2, 4)]
        return float(values_of_sets(tiny, queries, [(0, s) for s in sets], "logodds").mean())

    hasty = GreedyAblation(size=4, candidates=1, against="")
    held = GreedyAblation(size=4, candidates=1, against="ablation")
    assert fallen(held) <= fallen(hasty) + 1e-12
    best = score(tiny, facts[0], "ablation").top_k(4)
    sets = [(0, best)]
    assert float(values_of_sets(tiny, queries, sets, "logodds")[0]) == pytest.approx(
        float(torch.stack([_logodds(tiny, q, best) for q in queries[0]]).mean()), rel=1e-6
    )


def _logodds(model: NeuronModel, query: Prompt, neurons: NeuronSet) -> torch.Tensor:
    _, batch = next(iter(model.batches([query])))
    with suppress(model, neurons):
        logits = model.logits(batch.positions, **batch.inputs())
    p = logits.softmax(-1)[0, query.answer_id]
    return (p / (1 - p)).log().double()


def test_search_refuses_what_cannot_be(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(MethodError, match="greedy_ablation: beam is 0; expected at least 1"):
        GreedyAblation(beam=0)
    with pytest.raises(MethodError, match="has fewer neurons"):
        score(tiny, facts[0], GreedyAblation(size=10**6))


def exact_shapley(model: NeuronModel, facts: FactSet, players: list[Neuron]) -> list[float]:
    """The definition: over all subsets of the others, weighted by how many orders lead through them."""
    n = len(players)
    values = {
        subset: value(model, facts, NeuronSet(subset))
        for size in range(n + 1)
        for subset in itertools.combinations(players, size)
    }
    result = []
    for player in players:
        total = 0.0
        for subset in values:
            if player not in subset:
                weight = math.factorial(len(subset)) * math.factorial(n - len(subset) - 1) / math.factorial(n)
                larger = tuple(p for p in players if p in subset or p == player)
                total += weight * (values[subset] - values[larger])
        result.append(total)
    return result


def test_shapley_values_are_those_of_the_definition(tiny: NeuronModel, facts: FactSet) -> None:
    scorer = Shapley(candidates=4, orders=400, truncation=0.0, precision=0.0)
    scores = score(tiny, facts[0], scorer).values[0]
    players = [Neuron(*pair) for pair in (scores != 0).nonzero().tolist()]
    assert len(players) == 4
    exact = exact_shapley(tiny, facts, players)
    found = [float(scores[n.layer, n.index]) for n in players]
    size = max(map(abs, exact))
    assert found == pytest.approx(exact, abs=0.05 * size)


def test_shapley_values_are_efficient_whatever_the_number_of_orders(tiny: NeuronModel, facts: FactSet) -> None:
    scorer = Shapley(candidates=6, orders=3, truncation=0.0)
    scores = score(tiny, facts[0], scorer).values[0]
    players = NeuronSet(Neuron(*pair) for pair in (scores != 0).nonzero().tolist())
    lost = value(tiny, facts, NeuronSet()) - value(tiny, facts, players)
    assert float(scores.sum()) == pytest.approx(lost, abs=1e-9)


def test_a_truncated_order_gives_nothing_to_those_that_come_late(tiny: NeuronModel, facts: FactSet) -> None:
    scores = score(tiny, facts[0], Shapley(candidates=6, orders=2, truncation=1.0)).values
    assert not scores.any()  # no order begins: nothing can change the answer by as much as that
    with pytest.raises(MethodError, match="shapley: orders is 0; expected at least 1"):
        Shapley(orders=0)
