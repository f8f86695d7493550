"""The path on which all layers fade together is complete, the other one is integrated gradients."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from kn_attrib import NeuronModel, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.interventions.activations import ablate_layers
from kn_attrib.methods import IntegratedGradients, JointIntegratedGradients


@pytest.mark.parametrize("objective", ["prob", "logprob"])
def test_scores_of_all_layers_add_up_to_what_all_neurons_carry(
    tiny: NeuronModel, facts: FactSet, objective: Literal["prob", "logprob"]
) -> None:
    scores = score(tiny, facts, JointIntegratedGradients(alone=0, steps=64, objective=objective))
    clean = torch.cat([tiny.answer_probability(fact) for fact in facts])
    with ablate_layers(tiny):
        silent = torch.cat([tiny.answer_probability(fact) for fact in facts])
    expected = clean - silent if objective == "prob" else clean.log() - silent.log()
    assert torch.allclose(scores.values.sum((1, 2)), expected, atol=1e-6)


def test_one_step_is_gradient_times_activation_half_way(tiny: NeuronModel, facts: FactSet) -> None:
    from kn_attrib.interventions.masks import masked_logprob

    _, batch = next(iter(tiny.batches(tiny.encode(facts[0]).prompts)))
    mask = torch.full((len(batch), tiny.n_layers, tiny.n_neurons), 0.5, dtype=tiny.dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(masked_logprob(tiny, batch, mask).exp().sum(), mask)
    assert torch.allclose(JointIntegratedGradients(alone=0, steps=1).score(tiny, batch), slope)


def test_alone_is_integrated_gradients_and_between_is_the_mean(tiny: NeuronModel, facts: FactSet) -> None:
    layers, together, both = (
        score(tiny, facts, JointIntegratedGradients(alone=w, layer_steps=steps)).values
        for w, steps in ((1.0, 5), (0.0, 0), (0.25, 5))
    )
    expected = score(tiny, facts, IntegratedGradients(steps=5)).values
    assert torch.allclose(layers, expected, atol=1e-12)
    assert torch.allclose(both, 0.25 * layers + 0.75 * together, atol=1e-12)


@pytest.mark.parametrize("tolerance", [0.01, 0.0001])
def test_adaptive_rules_are_as_exact_as_asked(tiny: NeuronModel, facts: FactSet, tolerance: float) -> None:
    for alone, steps, layer_steps in ((0.0, 96, 0), (1.0, 0, 96)):
        found = score(tiny, facts, JointIntegratedGradients(alone=alone, tolerance=tolerance)).values
        exact = score(tiny, facts, JointIntegratedGradients(alone=alone, steps=steps, layer_steps=layer_steps)).values
        assert ((found - exact).flatten(1).norm(dim=1) <= 2 * tolerance * exact.flatten(1).norm(dim=1)).all()


def test_bad_parameters_are_named() -> None:
    with pytest.raises(MethodError, match="steps is -1"):
        JointIntegratedGradients(steps=-1)
    with pytest.raises(MethodError, match="tolerance is nan"):
        JointIntegratedGradients(tolerance=float("nan"))
    with pytest.raises(MethodError, match="alone is 2"):
        JointIntegratedGradients(alone=2)


@pytest.mark.parametrize(
    "unused",
    [
        {"alone": 1.0, "steps": 3},
        {"alone": 0.0, "layer_steps": 3},
        {"steps": 3, "layer_steps": 3, "tolerance": 0.1},
        {"alone": 1.0, "layer_steps": 3, "tolerance": 0.1},
    ],
)
def test_what_nothing_asks_for_is_refused(unused: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=f"{list(unused)[-1]} is .*, which nothing asks for"):
        JointIntegratedGradients(**unused)
    with pytest.raises(MethodError, match="unknown objective 'logit'"):
        JointIntegratedGradients(objective="logit")  # type: ignore[arg-type]
