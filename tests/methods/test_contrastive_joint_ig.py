"""The path from what the relation activates to what the fact activates, all layers at once, against slow code."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from kn_attrib import NeuronModel, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.prompts import Prompt
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.methods import ContrastiveJointIG, JointIntegratedGradients


def mean_activation(model: NeuronModel, facts: list[Fact]) -> Tensor:
    """Mean over the facts' prompts, one prompt at a time: ``[layer, neuron]``."""
    prompts = [prompt for fact in facts for prompt in model.encode(fact).prompts]
    recorded = [model.record(batch) for prompt in prompts for _, batch in model.batches([prompt])]
    return torch.cat(recorded).mean(0)


def moved(model: NeuronModel, prompt: Prompt, towards: Tensor, mask: Tensor) -> float:
    """Probability of the answer with ``b + m ⊙ (a − b)`` at the answer position, layer after layer."""

    def edit_of(layer: int) -> object:
        def edit(vectors: Tensor) -> Tensor:
            new = vectors.clone()
            for neuron in range(model.n_neurons):
                now = vectors[0, prompt.position, neuron]
                new[0, prompt.position, neuron] = towards[layer, neuron] + mask[layer, neuron] * (
                    now - towards[layer, neuron]
                )
            return new

        return edit

    _, batch = next(iter(model.batches([prompt])))
    with model.edited({layer: edit_of(layer) for layer in range(model.n_layers)}):  # type: ignore[misc]
        return float(model.answers(batch).logprob.exp())


def test_one_step_is_the_slope_half_way_by_finite_differences(tiny: NeuronModel, facts: FactSet) -> None:
    towards = mean_activation(tiny, list(facts[1:]))
    scores = score(tiny, facts[0], ContrastiveJointIG(alone=0, steps=1, objective="prob"), contrast=facts[1:]).values[0]
    prompt = tiny.encode(facts[0]).prompts[0]
    half, size = torch.full_like(towards, 0.5), 1e-5
    for place in [(0, 1), (1, 3), (tiny.n_layers - 1, 7)]:
        up, down = half.clone(), half.clone()
        up[place] += size
        down[place] -= size
        slope = (moved(tiny, prompt, towards, up) - moved(tiny, prompt, towards, down)) / (2 * size)
        assert float(scores[place]) == pytest.approx(slope, rel=1e-5, abs=1e-12)
        assert slope != 0


@pytest.mark.parametrize("objective", ["prob", "logprob"])
def test_scores_add_up_to_what_the_path_changes(
    tiny: NeuronModel, facts: FactSet, objective: Literal["prob", "logprob"]
) -> None:
    scores = score(tiny, facts[2], ContrastiveJointIG(alone=0, steps=48, objective=objective), contrast=facts)
    towards = mean_activation(tiny, [fact for fact in facts if fact.id != facts[2].id])
    for row, prompt in enumerate(tiny.encode(facts[2]).prompts):
        ends = [moved(tiny, prompt, towards, torch.full_like(towards, m)) for m in (1.0, 0.0)]
        change = ends[0] - ends[1] if objective == "prob" else math.log(ends[0] / ends[1])
        assert float(scores.values[row].sum()) == pytest.approx(change, rel=1e-4)
        assert abs(change) > 1e-6


def test_facts_of_the_relation_are_compared_with_and_others_only_without_them(
    tiny: NeuronModel, facts: FactSet
) -> None:
    method = ContrastiveJointIG(steps=2)
    far = [replace(fact, id=f"far:{fact.id}", relation="far") for fact in facts[2:]]
    near = score(tiny, facts[0], method, contrast=facts[1:2]).values
    both = score(tiny, facts[0], method, contrast=[*facts[1:2], *far]).values
    assert torch.allclose(both, near, rtol=1e-9, atol=1e-12)
    alone = score(tiny, facts[0], method, contrast=far).values
    assert not torch.allclose(alone, near)
    same = [replace(fact, relation=facts[0].relation) for fact in far]
    assert torch.allclose(score(tiny, facts[0], method, contrast=same).values, alone, rtol=1e-9, atol=1e-12)


def test_from_zero_it_is_joint_integrated_gradients(
    tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = torch.zeros(tiny.n_layers, tiny.n_neurons, dtype=tiny.dtype)
    monkeypatch.setattr(ContrastiveJointIG, "_mean", lambda self, prompt: zero)
    found = score(tiny, facts, ContrastiveJointIG(steps=6, layer_steps=5)).values
    assert torch.allclose(found, score(tiny, facts, JointIntegratedGradients(0.5, 6, 5, "logprob")).values)


def test_a_layer_alone_moves_from_the_mean_to_its_own(tiny: NeuronModel, facts: FactSet) -> None:
    """Captum's integrated gradients of one layer at a time, with the mean as baseline."""
    scores = score(tiny, facts[0], ContrastiveJointIG(alone=1, layer_steps=4), contrast=facts[1:]).values
    towards = mean_activation(tiny, list(facts[1:]))
    for row, prompt in enumerate(tiny.encode(facts[0]).prompts):
        _, batch = next(iter(tiny.batches([prompt])))
        function = objective_function(tiny, batch, "logprob")
        for layer in range(tiny.n_layers):
            expected = IntegratedGradients(function).attribute(
                function.activations[:, layer],
                towards[None, layer],
                additional_forward_args=(torch.tensor([layer]), torch.tensor([0])),
                n_steps=4,
                method="gausslegendre",
            )
            assert torch.allclose(scores[row, layer], expected[0], rtol=1e-6, atol=1e-10)


def test_what_is_wrong_is_named(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(MethodError, match="there is no other fact to compare"):
        score(tiny, facts[0], "contrastive_joint_ig")
    with pytest.raises(MethodError, match="steps is -1"):
        ContrastiveJointIG(steps=-1)
    with pytest.raises(MethodError, match="unknown objective 'logit'"):
        ContrastiveJointIG(objective="logit")  # type: ignore[arg-type]
