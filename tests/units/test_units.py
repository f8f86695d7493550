"""Units other than neurons: directions fitted on activations, and attention heads, through the same machinery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sklearn import decomposition
from torch import Tensor

from kn_attrib import Fact, FactSet, NeuronModel, NeuronSet, amplify, suppress
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.interventions.activations import ablate_layers, scale_rows, set_activation
from kn_attrib.methods import Ablation, Activation
from kn_attrib.models.neuron_model import all_neurons
from kn_attrib.units.factors import NMF, PCA, NonNegative, signed_parts
from kn_attrib.units.view import UnitModel
from unit_views import ATTENTION, HEADS, batch_of, hooked, probability, view_of

# -- the basis ---------------------------------------------------------------------------------------------------------


def test_a_vector_is_the_sum_of_its_units(view: UnitModel, facts: FactSet) -> None:
    for split in ("prompts", "held_out"):
        batch = batch_of(view, facts, split)
        coefficients, directions = view.record(batch), view.directions(batch)
        made = torch.einsum("plu,plun->pln", coefficients, directions)
        assert torch.allclose(made, view.site.record(batch), rtol=0, atol=1e-9)
        sizes = directions.norm(dim=-1)
        assert torch.allclose(sizes, torch.ones_like(sizes))
        assert torch.equal(coefficients, view.units(batch)[0])


def test_factors_are_fitted_on_a_relations_attribution_prompts(model: NeuronModel, facts: FactSet) -> None:
    other = Fact("x", "other", "Spain", "Rome", ("the city of Spain is [Y].", "the country Spain lies in [Y]."))
    prompts = model.encode(facts).prompts
    with_other = PCA(k=1).views(model, [*prompts, *model.encode([other]).prompts])
    assert list(with_other) == ["capital", "other"]
    batch = batch_of(model, facts)
    alone = PCA(k=1).views(model, prompts)["capital"]
    assert torch.equal(alone.record(batch), with_other["capital"].record(batch))
    assert not torch.allclose(alone.record(batch), with_other["other"].record(batch))


def test_pca_units_are_sklearns_components_and_the_residual_is_what_they_leave(
    model: NeuronModel, facts: FactSet
) -> None:
    view = view_of(model, facts, "pca(k=5)")
    prompts = model.encode(facts).prompts
    activations = torch.empty(len(prompts), model.n_layers, model.n_neurons, dtype=torch.float64)
    for indices, batch in model.batches(prompts):
        activations[indices] = model.record(batch)
    batch = batch_of(model, facts)
    found, directions, vectors = view.record(batch), view.directions(batch), model.record(batch)
    for layer in range(model.n_layers):
        components = torch.as_tensor(decomposition.PCA(5).fit(activations[:, layer].numpy()).components_)
        assert torch.allclose(directions[0, layer, :5].abs(), components.abs(), atol=1e-8)
        assert ((activations[:, layer] @ directions[0, layer, :5].T).mean(0) >= 0).all()
        rest = vectors[:, layer] - (vectors[:, layer] @ components.T) @ components
        assert torch.allclose(found[:, layer, -1], rest.norm(dim=-1))
        assert (found[:, layer, -1] > 1e-3).all()
        assert torch.allclose(found[:, layer, -1, None] * directions[:, layer, -1], rest)


def test_nmf_units_are_non_negative_and_what_sklearns_transform_looks_for(model: NeuronModel, facts: FactSet) -> None:
    view = view_of(model, facts, "nmf(k=5)")
    basis, batch = view.basis, batch_of(model, facts)
    assert isinstance(basis, NonNegative)
    assert (basis.factors >= 0).all()
    vectors, found = model.record(batch), view.record(batch)
    assert (found >= 0).all()
    assert (found[..., :-1] == 0).any()
    for layer in range(model.n_layers):
        factors = basis.factors[layer]
        signed = factors[:, : model.n_neurons] - factors[:, model.n_neurons :]
        assert torch.allclose(signed.norm(dim=-1), torch.ones(5, dtype=torch.float64))
        transform = decomposition.NMF(5, init="random", tol=1e-14, max_iter=100_000)
        transform.components_, transform.n_components_ = factors.numpy(), 5
        transform.n_features_in_ = factors.shape[1]
        expected = transform.transform(signed_parts(vectors[:, layer]).numpy())
        assert torch.allclose(found[:, layer, :-1], torch.as_tensor(expected), atol=1e-5)
        # Karush-Kuhn-Tucker: no factor could still help, and those that take part could not help more.
        slope = (signed_parts(vectors[:, layer]) - found[:, layer, :-1] @ factors) @ factors.T
        assert (slope < 1e-9).all()
        assert (slope[found[:, layer, :-1] > 0].abs() < 1e-9).all()
        rest = vectors[:, layer] - found[:, layer, :-1] @ signed
        assert torch.allclose(found[:, layer, -1], rest.norm(dim=-1))


def test_nmf_finds_factors_that_are_there() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(2, 12, dtype=torch.float64)
    truth[0, [0, 1, 2]] = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64) / 3
    truth[1, [5, 6]] = torch.tensor([-0.6, 0.8], dtype=torch.float64)
    weights = torch.rand(40, 2, generator=generator, dtype=torch.float64) + 0.1
    weights[:5, 0] = weights[5:10, 1] = 0  # without prompts that have one alone, two factors cannot be told apart
    basis = NMF(k=2).basis((weights @ truth)[:, None])
    order = basis.fixed[0].abs().argmax(-1).argsort()
    assert torch.allclose(basis.fixed[0][order], truth, atol=1e-2)
    assert torch.allclose(basis.coefficients(0, weights @ truth)[:, order], weights, atol=1e-2)


def test_a_layer_without_activity_has_no_factors() -> None:
    basis = NMF(k=2).basis(torch.zeros(6, 1, 4, dtype=torch.float64))
    vectors = torch.eye(4, dtype=torch.float64)
    coefficients, own = basis.encode(0, vectors)
    assert torch.equal(coefficients, torch.tensor([[0.0, 0.0, 1.0]] * 4, dtype=torch.float64))
    assert torch.equal(basis.decode(0, coefficients, own), vectors)


def test_gradients_run_through_non_negative_coefficients(model: NeuronModel, facts: FactSet) -> None:
    basis = view_of(model, facts, "nmf(k=5)").basis
    vectors = model.record(batch_of(model, facts))[:, 1].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: basis.encode(1, v), vectors, eps=1e-7)


def test_a_full_basis_changes_nothing(model: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(model, facts)
    generator = torch.Generator().manual_seed(0)
    shape = (64, model.n_layers, model.n_neurons)
    full = PCA(k=model.n_neurons).basis(torch.randn(shape, generator=generator, dtype=torch.float64))
    view = UnitModel(model, full, "pca")
    rows = Rows.of(torch.randn((len(batch), *shape[1:]), generator=generator, dtype=torch.float64))
    coefficients, _ = view.in_units(rows.activations.view(len(batch), *shape[1:]))
    assert (coefficients[..., -1].abs() < 1e-9).all()
    before = objective_function(model, batch)(rows.activations, rows.layers, rows.prompts)
    after = objective_function(view, batch)(coefficients.flatten(0, 1), rows.layers, rows.prompts)
    assert torch.allclose(before, after, rtol=0, atol=1e-9)


# -- interventions -----------------------------------------------------------------------------------------------------


def test_suppressing_all_units_is_a_vector_of_zeros(view: UnitModel, facts: FactSet) -> None:
    batch = batch_of(view, facts)
    for layer, site in enumerate(view.ffn_outputs):
        with suppress(view, [(layer, unit) for unit in range(view.n_neurons)]):
            found = probability(view, batch)
        with hooked(view, site, batch, torch.zeros_like):
            assert torch.allclose(found, probability(view, batch), rtol=0, atol=1e-9)
    with suppress(view, all_neurons(view)):
        every = probability(view, batch)
    with ablate_layers(view):
        assert torch.allclose(every, probability(view, batch), rtol=0, atol=1e-9)
    with ablate_layers(view.site):
        assert torch.allclose(every, probability(view, batch), rtol=0, atol=1e-9)
    assert not torch.allclose(every, probability(view, batch))


def test_heads_are_slices_of_what_the_output_of_attention_reads(shape: str, model: NeuronModel, facts: FactSet) -> None:
    view, batch = view_of(model, facts, "heads"), batch_of(model, facts)
    assert view.n_neurons == HEADS
    width = view.site.n_neurons // HEADS
    scores = Ablation().score(view, batch)
    clean = probability(model, batch)
    for layer in range(model.n_layers):
        site = model.model.get_submodule(ATTENTION[shape].format(i=layer))
        for head in range(HEADS):

            def zero(vector: Tensor, head: int = head) -> Tensor:
                vector[:, head * width : (head + 1) * width] = 0
                return vector

            with hooked(model, site, batch, zero):
                expected = probability(model, batch)
            with suppress(view, [(layer, head)]):
                assert torch.allclose(probability(view, batch), expected, rtol=0, atol=1e-12)
            assert torch.allclose(scores[:, layer, head], clean - expected, rtol=0, atol=1e-12)
    assert (scores.abs() > 1e-6).any()


def test_a_slice_is_what_one_head_attends_to(shape: str, model: NeuronModel, facts: FactSet) -> None:
    view, batch = view_of(model, facts, "heads"), batch_of(model, facts)
    coefficients, own = view.units(batch)
    model.model.set_attn_implementation("eager")
    values: list[Tensor] = []
    inside: Any = model.model.get_submodule(ATTENTION[shape].format(i=1).rsplit(".", 1)[0])
    source = {"masked": "value", "causal": "c_attn", "grouped": "v_proj"}[shape]
    inside = model.model.get_submodule("bert.encoder.layer.1.attention.self") if shape == "masked" else inside
    handle = getattr(inside, source).register_forward_hook(lambda _, __, out: values.append(out))
    with torch.no_grad():
        weights = model.model(batch.input_ids, output_attentions=True).attentions[1]
    handle.remove()
    value = values[0].chunk(3, -1)[2] if shape == "causal" else values[0]
    value = value.unflatten(-1, (2 if shape == "grouped" else HEADS, -1)).transpose(1, 2)
    value = value.repeat_interleave(HEADS // value.shape[1], dim=1)
    expected = (weights @ value)[torch.arange(len(batch)), :, batch.positions]
    found = own[:, 1].unflatten(-1, (HEADS, -1)) * coefficients[:, 1, :, None]
    # Llama's own softmax is in single precision.
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_a_factor_suppressed_is_taken_out_of_the_vector_as_it_stands(model: NeuronModel, facts: FactSet) -> None:
    view, batch = view_of(model, facts, "pca(k=5)"), batch_of(model, facts)
    first, second = (view.directions(batch)[0, layer, 2] for layer in (0, 1))

    def without(direction: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda vectors: vectors - (vectors @ direction)[:, None] * direction

    with (
        hooked(view, view.ffn_outputs[0], batch, without(first)),
        hooked(view, view.ffn_outputs[1], batch, without(second)),
    ):
        expected = probability(view, batch)
    with suppress(view, [(0, 2), (1, 2)]):
        assert torch.allclose(probability(view, batch), expected, rtol=0, atol=1e-9)


def test_rows_with_units_of_their_own(view: UnitModel, facts: FactSet) -> None:
    batch = batch_of(view, facts)
    sets = [NeuronSet([(row % 3, row % view.n_neurons), (2, 1)]) for row in range(len(batch))]
    with scale_rows(view, sets, 2.0):
        together = probability(view, batch)
    for row, chosen in enumerate(sets):
        with amplify(view, chosen, 2.0):
            assert torch.allclose(together[row], probability(view, batch)[row], rtol=0, atol=1e-9)
    with set_activation(view, [(1, 1)], 0.0):
        zero = probability(view, batch)
    with suppress(view, [(1, 1)]):
        assert torch.allclose(zero, probability(view, batch), rtol=0, atol=1e-12)


def test_interventions_through_the_view_and_the_model_see_one_another(view: UnitModel, facts: FactSet) -> None:
    batch, neurons = batch_of(view, facts), [(0, 3), (1, 4)]
    with suppress(view.site, neurons):
        expected = probability(view.site, batch)
        assert torch.equal(expected, probability(view, batch))
    assert not torch.allclose(expected, probability(view, batch))
    with suppress(view, [(0, 1)]):
        inside = Activation().score(view, batch)
        assert torch.equal(probability(view, batch), probability(view.site, batch))
    assert not torch.allclose(inside[:, 1:], view.record(batch)[:, 1:])
