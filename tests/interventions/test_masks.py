"""Masks learnt for facts: what they multiply, what they find, and their ranges."""

from __future__ import annotations

import math

import pytest
import torch

from kn_attrib import NeuronModel, NeuronSet, score, suppress
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import by_text
from kn_attrib.interventions.masks import (
    MaskedQuery,
    learn_masks,
    masked_logprob,
    negative_log_likelihood,
    own_queries,
)
from kn_attrib.methods import BalancedMask, GradientXActivation, HardConcrete, Slimming
from kn_attrib.methods.hard_concrete import gate, open_probability

LEARNT = (Slimming, HardConcrete, BalancedMask)
Learnt = type[Slimming] | type[HardConcrete] | type[BalancedMask]


def test_a_mask_of_zeros_and_ones_is_suppression(tiny: NeuronModel, facts: FactSet) -> None:
    neurons = NeuronSet([(0, 1), (0, 5), (tiny.n_layers - 1, 3)])
    for _, batch in tiny.batches(tiny.encode(facts).prompts):
        masks = torch.ones(len(batch), tiny.n_layers, tiny.n_neurons, dtype=tiny.dtype)
        for neuron in neurons:
            masks[:, neuron.layer, neuron.index] = 0
        with suppress(tiny, neurons):
            expected = tiny.answers(batch).logprob
        assert torch.allclose(masked_logprob(tiny, batch, masks).detach(), expected, atol=1e-12)


def test_the_gradient_at_the_open_mask_is_gradient_times_activation(tiny: NeuronModel, facts: FactSet) -> None:
    _, batch = next(iter(tiny.batches(tiny.encode(facts[0]).prompts)))
    masks = torch.ones(len(batch), tiny.n_layers, tiny.n_neurons, dtype=tiny.dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(masked_logprob(tiny, batch, masks).sum(), masks)
    expected = GradientXActivation("logprob").score(tiny, batch)
    assert torch.allclose(slope, expected, atol=1e-12)


def test_weights_make_the_mean_over_a_facts_texts(tiny: NeuronModel, facts: FactSet) -> None:
    prompts = tiny.encode(facts).prompts
    queries = own_queries(prompts, [fact.id for fact in facts])
    logprobs = torch.randn(len(queries), dtype=torch.float64)
    found = negative_log_likelihood(logprobs, queries)
    texts = by_text(logprobs, prompts).reshape(len(facts), -1)  # each fact has as many texts
    assert torch.allclose(found, -texts.mean(1).sum())


def test_facts_learnt_together_are_learnt_as_if_alone(tiny: NeuronModel, facts: FactSet) -> None:
    for method in LEARNT:
        together = score(tiny, facts, method)
        others = tuple(fact for fact in facts if fact.id != facts[1].id)
        alone = score(tiny, facts[1], method, contrast=others)
        assert torch.allclose(together.for_fact(facts[1].id).values, alone.values, atol=1e-6), method


def test_one_step_by_hand(tiny: NeuronModel, facts: FactSet) -> None:
    """Adam's first step is the rate times the sign of the gradient."""
    prompts = tiny.encode(facts[0]).prompts[:1]
    queries = [MaskedQuery(prompts[0], 0, 1.0)]
    start = torch.ones(1, tiny.n_layers, tiny.n_neurons, dtype=tiny.dtype)
    found = learn_masks(
        tiny, queries, start, lambda parameters, _: parameters, negative_log_likelihood,
        lambda parameters: 0.0 * parameters.sum(), steps=1, rate=0.1,
    )  # fmt: skip
    _, batch = next(iter(tiny.batches(prompts)))
    slope = GradientXActivation("logprob").score(tiny, batch)
    large = slope.abs() > 1e-6
    assert torch.allclose((found - 1)[large], 0.1 * slope.sign()[large], atol=1e-3)


@pytest.mark.parametrize("method", LEARNT)
def test_scores_are_shares(method: Learnt, tiny: NeuronModel, facts: FactSet) -> None:
    # A random model's answers have little to lose, so the penalty must be small for anything to move.
    values = score(tiny, facts, method(penalty=0.01)).values
    assert 0 <= float(values.min()) <= float(values.max()) <= 1
    assert float(values.std()) > 0


def test_hard_concrete_gates_reach_both_ends_as_often_as_they_should() -> None:
    noise = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).logit()
    for log_alpha in (-1.0, 0.0, 2.0):
        gates = gate(torch.tensor(log_alpha, dtype=torch.float64), noise)
        assert float(gates.min()) == 0.0
        assert float(gates.max()) == 1.0
        opened = float(open_probability(torch.tensor(log_alpha, dtype=torch.float64)))
        assert float((gates > 0).double().mean()) == pytest.approx(opened, abs=0.005)
    # σ(log α − β log(0.1 / 1.1)) at log α = 0, β = 2/3
    assert open_probability(torch.tensor(0.0)).item() == pytest.approx(1 / (1 + math.exp(2 / 3 * math.log(1 / 11))))


@pytest.mark.parametrize("method", LEARNT)
def test_numbers_must_be_positive(method: Learnt) -> None:
    with pytest.raises(MethodError, match=f"{method.name}: steps is 0; expected a positive number"):
        method(steps=0)


def test_balanced_mask_needs_other_facts(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(MethodError, match="there is no other fact to balance"):
        score(tiny, facts[0], "balanced_mask")
