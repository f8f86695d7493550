"""Every method against an independent computation: loops by hand, or Captum's own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor

from kn_attrib import NeuronModel, get_method, score, suppress
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.forward.plain import PlainForward
from kn_attrib.methods import (
    Ablation,
    GradientXActivation,
    IntegratedGradients,
    LayerConductance,
    LayerIntegratedGradients,
    Random,
)
from kn_attrib.models.answers import Objective
from kn_attrib.models.compute import Compute


def batch_of(model: NeuronModel, facts: FactSet) -> Batch:
    """All prompts of one length."""
    _, batch = next(iter(model.batches(model.encode(facts).prompts)))
    assert len(batch) > 1
    return batch


def gradient_by_hand(model: NeuronModel, batch: Batch, prompt: int, layer: int, vector: Tensor) -> tuple[Tensor, float]:
    """p(answer) and its gradient with one layer's vector replaced, by a hook of our own on the bare model."""
    leaf = vector.clone().requires_grad_()
    position = int(batch.positions[prompt])

    def put(_: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        vectors = inputs[0].clone()
        vectors[0, position] = leaf
        return (vectors,)

    handle = model.ffn_outputs[layer].register_forward_pre_hook(put)
    try:
        logits = model.model(batch.input_ids[prompt : prompt + 1]).logits[0, position]
    finally:
        handle.remove()
    value = logits.softmax(-1)[batch.answers[prompt]]
    (gradient,) = torch.autograd.grad(value, leaf)
    return gradient, value.item()


def riemann_left_by_hand(model: NeuronModel, batch: Batch, steps: int) -> Tensor:
    activations = model.record(batch)
    scores = torch.zeros_like(activations)
    for prompt in range(len(batch)):
        for layer in range(model.n_layers):
            a = activations[prompt, layer]
            total = sum(gradient_by_hand(model, batch, prompt, layer, a * k / steps)[0] for k in range(steps))
            scores[prompt, layer] = a * total / steps
    return scores


def test_dai2022_is_a_left_riemann_sum_of_twenty(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    expected = riemann_left_by_hand(tiny, batch, 20)
    found = IntegratedGradients.preset("dai2022").score(tiny, batch).values
    assert (found - expected).norm() / expected.norm() < 1e-9


@pytest.mark.parametrize("objective", ["prob", "logprob", "logit"])
def test_integrated_gradients_are_complete(tiny: NeuronModel, facts: FactSet, objective: Objective) -> None:
    scores = score(tiny, facts, IntegratedGradients(steps=64, objective=objective))
    assert scores.gap is not None
    assert scores.difference is not None
    assert (scores.gap.abs() <= 1e-6 * scores.difference.abs() + 1e-9).all()


def test_completeness_difference_is_that_of_zeroing_the_layer(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found = IntegratedGradients().score(tiny, batch)
    zero = torch.zeros(tiny.n_neurons, dtype=tiny.dtype)
    clean = tiny.answers(batch).logprob.exp()
    for layer in range(tiny.n_layers):
        _, removed = gradient_by_hand(tiny, batch, 1, layer, zero)
        assert found.difference is not None
        assert float(found.difference[1, layer]) == pytest.approx(float(clean[1]) - removed, abs=1e-12)


def test_chunks_do_not_change_integrated_gradients(tiny: NeuronModel, facts: FactSet) -> None:
    whole = score(tiny, facts, IntegratedGradients(max_rows=10_000))
    pieces = score(tiny, facts, IntegratedGradients(max_rows=20))
    assert torch.allclose(whole.values, pieces.values, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "steps", "tolerance"),
    [
        ("gausslegendre", 16, 1e-3),
        ("riemann_middle", 200, 1e-3),
        ("riemann_trapezoid", 200, 1e-3),
        ("riemann_right", 200, 5e-2),
        ("linspace", 200, 5e-2),
    ],
)
def test_rules_converge_to_the_same_integral(
    tiny: NeuronModel, facts: FactSet, rule: str, steps: int, tolerance: float
) -> None:
    exact = score(tiny, facts[0], IntegratedGradients(steps=100)).values
    found = score(tiny, facts[0], IntegratedGradients(steps=steps, rule=rule)).values
    assert (found - exact).norm() / exact.norm() < tolerance


def test_unknown_rule_and_too_few_steps_are_refused() -> None:
    with pytest.raises(MethodError, match=r"riemann_lefd.*Did you mean 'riemann_left'"):
        IntegratedGradients(rule="riemann_lefd")
    with pytest.raises(MethodError, match="steps is 1; the rule riemann_left needs at least 2"):
        IntegratedGradients(rule="riemann_left", steps=1)


def test_gradient_x_activation_is_a_times_the_gradient(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found = GradientXActivation().score(tiny, batch)
    activations = tiny.record(batch)
    for prompt in range(len(batch)):
        for layer in range(tiny.n_layers):
            gradient, _ = gradient_by_hand(tiny, batch, prompt, layer, activations[prompt, layer])
            assert torch.allclose(found[prompt, layer], activations[prompt, layer] * gradient, atol=1e-12)


def read_at_answer(result: Tensor, batch: Batch) -> Tensor:
    return torch.stack([result[row, int(position)] for row, position in enumerate(batch.positions)])


def test_layer_conductance_is_captums(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found = LayerConductance(steps=12, start=0.0).score(tiny, batch)
    assert isinstance(found, Tensor)
    for layer, site in enumerate(tiny.ffn_outputs):
        direct = attr.LayerConductance(EmbeddingObjective(tiny), site).attribute(
            tiny.embed(batch),
            baselines=torch.zeros_like(tiny.embed(batch)),
            additional_forward_args=(batch.positions, batch.answers),
            n_steps=12,
            method="riemann_trapezoid",
            attribute_to_layer_input=True,
        )
        assert torch.allclose(found[:, layer], read_at_answer(direct, batch), atol=1e-12)


def test_layer_integrated_conductance_is_the_same_method() -> None:
    assert get_method("layer_integrated_conductance") is get_method("layer_conductance") is LayerConductance


@pytest.mark.parametrize("baseline", ["zero", "mask"])
def test_layer_integrated_gradients_are_captums(tiny: NeuronModel, facts: FactSet, baseline: str) -> None:
    if baseline == "mask" and tiny.kind == "causal":
        pytest.skip("a causal tokenizer has no mask token")
    batch = batch_of(tiny, facts)
    scorer = LayerIntegratedGradients(steps=12, baseline=baseline, max_rows=50)
    found = scorer.score(tiny, batch)
    assert tiny.execution.whole_verdict is not None
    assert tiny.execution.whole_verdict.reason == ""
    tiny.execution.settings = Compute("plain")
    slow = scorer.score(tiny, batch)
    for ours, theirs in ((found.gap, slow.gap), (found.difference, slow.difference), (found.values, slow.values)):
        assert ours is not None
        assert theirs is not None
        assert torch.allclose(ours, theirs, atol=1e-12)
    inputs = tiny.embed(batch)
    embedding = tiny.model.get_input_embeddings()
    other = torch.zeros_like(inputs)
    if baseline == "mask":
        other = embedding(torch.full_like(batch.input_ids, tiny.tokenizer.mask_token_id)).detach()
    for layer, site in enumerate(tiny.ffn_outputs):
        direct = attr.LayerIntegratedGradients(EmbeddingObjective(tiny), site).attribute(
            inputs,
            baselines=other,
            additional_forward_args=(batch.positions, batch.answers),
            n_steps=12,
            attribute_to_layer_input=True,
        )
        assert torch.allclose(found.values[:, layer], read_at_answer(direct, batch), atol=1e-12)


def test_layer_integrated_gradients_are_complete_against_the_right_difference(
    tiny: NeuronModel, facts: FactSet
) -> None:
    scores = score(tiny, facts, LayerIntegratedGradients(steps=64))
    assert scores.gap is not None
    assert scores.difference is not None
    assert (scores.gap.abs() <= 1e-5 * scores.difference.abs() + 1e-8).all()


def test_a_baseline_token_that_the_tokenizer_lacks_is_refused(
    load_tiny: Callable[..., NeuronModel], facts: FactSet
) -> None:
    with pytest.raises(MethodError, match="has no mask token; use baseline='zero'"):
        score(load_tiny("causal"), facts[0], LayerIntegratedGradients(baseline="mask"))


def test_ablation_is_zeroing_by_hand(tiny: NeuronModel, facts: FactSet) -> None:
    fact = facts[1]
    found = score(tiny, fact, Ablation())
    before = tiny.answer_probability(fact)
    generator = torch.Generator().manual_seed(0)
    layers = torch.randint(tiny.n_layers, (50,), generator=generator).tolist()
    neurons = torch.randint(tiny.n_neurons, (50,), generator=generator).tolist()
    for layer, neuron in zip(layers, neurons, strict=True):
        with suppress(tiny, [(layer, neuron)]):
            after = tiny.answer_probability(fact)
        assert torch.allclose(found.values[:, layer, neuron], before - after, atol=1e-6)


def test_ablation_to_another_value(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found = Ablation(value=0.7, max_rows=100).score(tiny, batch)
    vector = tiny.record(batch)[0, 2].clone()
    vector[5] = 0.7
    _, after = gradient_by_hand(tiny, batch, 0, 2, vector)
    clean = float(tiny.answers(batch).logprob.exp()[0])
    assert float(found[0, 2, 5]) == pytest.approx(clean - after, abs=1e-12)


def test_linear_objective_makes_all_gradient_methods_agree(tiny: NeuronModel, facts: FactSet) -> None:
    """In the last layer with the norm taken away the logit is linear in the activations."""
    model: Any = tiny.model
    if tiny.kind == "masked":
        model.bert.encoder.layer[-1].output.LayerNorm.forward = lambda x: x
        model.cls.predictions.transform.forward = lambda x: x
    else:
        model.transformer.ln_f.forward = lambda x: x
    batch = batch_of(tiny, facts)
    scorers = (IntegratedGradients(objective="logit"), Ablation(objective="logit"))
    reference = GradientXActivation(objective="logit").score(tiny, batch)[:, -1]
    for scorer in scorers:
        result = scorer.score(tiny, batch)
        values = result if isinstance(result, Tensor) else result.values
        assert torch.allclose(values[:, -1], reference, atol=1e-9)


def test_random_depends_on_seed_and_fact_only(tiny: NeuronModel, facts: FactSet) -> None:
    scores = score(tiny, facts, Random())
    for fact in facts:
        rows = scores.for_fact(fact.id).values
        assert torch.equal(rows, rows[:1].expand_as(rows))
    assert not torch.equal(scores.for_fact(facts[0].id).values, scores.for_fact(facts[1].id).values)
    assert not torch.equal(score(tiny, facts, Random(seed=1)).values, scores.values)


def test_plain_forward_gives_back_the_clean_answer_for_unmodified_rows(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    activations = tiny.record(batch)
    forward = PlainForward(tiny, batch)
    clean = tiny.answers(batch).logprob.exp()
    assert torch.allclose(forward.clean(), clean, atol=1e-12)
    for layer in range(tiny.n_layers):
        prompts = torch.arange(len(batch))
        found = forward(activations[:, layer], torch.full_like(prompts, layer), prompts)
        assert torch.allclose(found, clean, atol=1e-12)
