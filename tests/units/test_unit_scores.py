"""Scores of units other than neurons: what they are, and that every method keeps its contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kn_attrib import Batch, FactSet, NeuronModel, get_method, list_methods, score
from kn_attrib.errors import MethodError
from kn_attrib.interventions.activations import ablate_layers
from kn_attrib.interventions.masks import masked_logprob
from kn_attrib.methods import Ablation, GradientXActivation, IntegratedGradients
from kn_attrib.scoring.method_specs import make_method
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.units.view import UnitModel
from unit_views import KINDS, SCORERS, batch_of, hooked, probability, view_of


def test_integrated_gradients_over_units_are_complete(view: UnitModel, facts: FactSet) -> None:
    batch = batch_of(view, facts)
    found = IntegratedGradients(steps=32).score(view, batch)
    assert found.values.shape == (len(batch), view.n_layers, view.n_neurons)
    assert found.gap is not None
    assert found.difference is not None
    assert (found.gap.abs() < 1e-6).all()
    removed = []
    for layer in range(view.n_layers):
        with ablate_layers(view.site, [layer]):
            removed.append(probability(view, batch))
    expected = probability(view, batch)[:, None] - torch.stack(removed, 1)
    assert torch.allclose(found.difference, expected, rtol=0, atol=1e-9)
    # All units of a layer are scaled together, so the path is the same as over neurons.
    over_neurons = IntegratedGradients(steps=32).score(view.site, batch)
    assert torch.allclose(found.values.sum(-1), over_neurons.values.sum(-1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scorer", [IntegratedGradients(steps=8), GradientXActivation()])
def test_scores_of_units_follow_from_those_of_neurons(view: UnitModel, facts: FactSet, scorer: Scorer) -> None:
    batch = batch_of(view, facts)
    vectors = view.site.record(batch)
    neurons = scorer.score(view.site, batch)
    neurons = neurons if isinstance(neurons, Tensor) else neurons.values
    slopes = torch.where(vectors == 0, 0.0, neurons / vectors)
    found = scorer.score(view, batch)
    found = found if isinstance(found, Tensor) else found.values
    # ∂f/∂w_u = Σ_i B_ui ∂f/∂a_i.
    expected = view.record(batch) * torch.einsum("plun,pln->plu", view.directions(batch), slopes)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)


def test_ablation_of_a_unit_is_its_removal_from_the_clean_vector(view: UnitModel, facts: FactSet) -> None:
    batch = batch_of(view, facts)
    scores, clean = Ablation().score(view, batch), probability(view, batch)
    coefficients, directions = view.record(batch), view.directions(batch)
    for layer, unit in ((0, 0), (1, min(2, view.n_neurons - 1)), (2, view.n_neurons - 1)):
        removed = coefficients[:, layer, unit, None] * directions[:, layer, unit]

        def without(vector: Tensor, removed: Tensor = removed) -> Tensor:
            return vector - removed

        with hooked(view, view.ffn_outputs[layer], batch, without):
            expected = clean - probability(view, batch)
        assert torch.allclose(scores[:, layer, unit], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", ["masked", "causal"])
def test_masks_on_units_of_all_layers_have_exact_gradients(view: UnitModel, facts: FactSet) -> None:
    """What methods that learn masks go by: early masks change the vectors that late units are read from."""
    batch = Batch(batch_of(view, facts).prompts[:2])
    generator = torch.Generator().manual_seed(0)
    masks = 0.5 + torch.rand(2, view.n_layers, view.n_neurons, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m: masked_logprob(view, batch, m), masks.requires_grad_())
    assert torch.allclose(masked_logprob(view, batch, torch.ones_like(masks)), view.answers(batch).logprob)


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
def test_methods_keep_their_contract(view: UnitModel, facts: FactSet, scorer: Scorer) -> None:
    together = score(view, facts, scorer)
    assert together.shape == (20, view.n_layers, view.n_neurons)
    assert together.values.isfinite().all()
    alone = score(view, facts[2], scorer, max_prompts=1)
    assert torch.allclose(together.for_fact(facts[2].id).values, alone.values, atol=1e-9)
    assert together.provenance["model"] == f"{view.site.name}@{view.label}"
    modules = list(view.model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


@pytest.mark.parametrize("name", list_methods())
def test_every_method_scores_units_or_is_refused(
    name: str, open_model: Callable[..., NeuronModel], facts: FactSet
) -> None:
    if get_method(name).neurons_only:
        with pytest.raises(MethodError, match=f"'{name}' scores neurons only"):
            make_method(f"{name}@pca")
        return
    view = view_of(open_model("causal"), facts, "pca(k=8)")
    found = score(view, facts[:2], make_method(f"{name}@pca").scorer, contrast=facts[2:])
    assert found.shape == (10, view.n_layers, 9)
    assert found.values.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_is_close(
    kind: str, open_model: Callable[..., NeuronModel], facts: FactSet, shape: str
) -> None:
    exact, single = (open_model(shape, dtype) for dtype in ("float64", "float32"))
    method = "integrated_gradients(tolerance=0.001)"
    found = score(view_of(single, facts, kind), facts, method)
    assert found.values.dtype == torch.float32
    expected = score(view_of(exact, facts, kind), facts, method).values
    if kind != "nmf(k=5)":  # factorisations that start from rounded numbers may end elsewhere
        assert torch.allclose(found.values.double(), expected, atol=2e-3)
    assert found.gap is not None
    assert found.gap.abs().max() < 1e-3


def test_costs_are_those_of_the_model(view: UnitModel, facts: FactSet) -> None:
    before = view.site.execution.cost.forwards
    batch = batch_of(view, facts)
    view.answers(batch)
    assert view.execution.cost is view.site.execution.cost
    assert view.execution.cost.forwards - before == len(batch)
