"""Units other than neurons: directions fitted on activations, and attention heads, through the same machinery."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import decomposition
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from kn_attrib import (
    Batch,
    Fact,
    FactSet,
    NeuronModel,
    NeuronSet,
    amplify,
    compare,
    get_method,
    list_methods,
    load_model,
    score,
    suppress,
)
from kn_attrib.cli import app
from kn_attrib.errors import ConfigError, MethodError, ModelError
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.controls import control_set
from kn_attrib.factors import NMF, PCA, NonNegative, parts
from kn_attrib.forward import Rows
from kn_attrib.heads import attention_model
from kn_attrib.interventions import ablate_layers, scale_rows, set_activation
from kn_attrib.masks import masked_logprob
from kn_attrib.methods import (
    Ablation,
    Activation,
    GradientXActivation,
    IntegratedGradients,
    LayerConductance,
    Random,
)
from kn_attrib.objective import objective_function
from kn_attrib.registry import make_scorer
from kn_attrib.scorer import Scorer
from kn_attrib.store import read_json
from kn_attrib.unit_methods import Method, make_method, make_units
from kn_attrib.units import UnitModel

MODELS = ("masked", "causal", "grouped")
KINDS = ("nmf(k=5)", "pca(k=5)", "heads")
SCORERS = (IntegratedGradients(), Ablation(), Activation(), GradientXActivation(), Random())
ATTENTION = {
    "masked": "bert.encoder.layer.{i}.attention.output.dense",
    "causal": "transformer.h.{i}.attn.c_proj",
    "grouped": "model.layers.{i}.self_attn.o_proj",
}
HEADS = 4


@pytest.fixture
def open_model(
    load_tiny: Callable[..., NeuronModel], tokenizers: dict[str, PreTrainedTokenizerFast]
) -> Callable[..., NeuronModel]:
    """BERT, GPT-2, or a Llama whose four query heads share two pairs of keys and values."""

    def make(kind: str, dtype: str = "float64") -> NeuronModel:
        if kind != "grouped":
            return load_tiny(kind, dtype)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizers["causal"]), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=HEADS, num_key_value_heads=2, head_dim=10, max_position_embeddings=32,
            initializer_range=0.2, rms_norm_eps=1.0, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return load_model((LlamaForCausalLM(config).eval(), tokenizers["causal"]), dtype=dtype)

    return make


@pytest.fixture(params=MODELS)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(shape: str, open_model: Callable[..., NeuronModel]) -> NeuronModel:
    return open_model(shape)


def view_of(model: NeuronModel, facts: FactSet, kind: str) -> UnitModel:
    return make_units(kind).views(model, model.encode(facts).prompts)["capital"]


@pytest.fixture(params=KINDS)
def view(request: pytest.FixtureRequest, model: NeuronModel, facts: FactSet) -> UnitModel:
    return view_of(model, facts, str(request.param))


def batch_of(model: NeuronModel, facts: FactSet, split: Any = "held_out") -> Batch:
    """Prompts of one length; held-out ones, so that nothing was fitted on them."""
    return max((batch for _, batch in model.batches(model.encode(facts, split).prompts)), key=len)


def probability(model: NeuronModel, batch: Batch) -> Tensor:
    return model.answers(batch).logprob.exp()


@contextmanager
def hooked(model: NeuronModel, module: nn.Module, batch: Batch, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A hook of our own: ``change(vector [row, neuron])`` of what enters a module at the answer position."""

    def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        vectors, rows = inputs[0].clone(), torch.arange(len(batch))
        vectors[rows, batch.positions] = change(vectors[rows, batch.positions])
        return (vectors,)

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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
        expected = transform.transform(parts(vectors[:, layer]).numpy())
        assert torch.allclose(found[:, layer, :-1], torch.as_tensor(expected), atol=1e-5)
        # Karush-Kuhn-Tucker: no factor could still help, and those that take part could not help more.
        slope = (parts(vectors[:, layer]) - found[:, layer, :-1] @ factors) @ factors.T
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
    for layer, site in enumerate(view.sites):
        with suppress(view, [(layer, unit) for unit in range(view.n_neurons)]):
            found = probability(view, batch)
        with hooked(view, site, batch, torch.zeros_like):
            assert torch.allclose(found, probability(view, batch), rtol=0, atol=1e-9)
    with suppress(view, view.all_neurons()):
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

    with hooked(view, view.sites[0], batch, without(first)), hooked(view, view.sites[1], batch, without(second)):
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


# -- scores ------------------------------------------------------------------------------------------------------------


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
    for layer, unit in ((0, 0), (1, 2), (2, view.n_neurons - 1)):
        removed = coefficients[:, layer, unit, None] * directions[:, layer, unit]

        def without(vector: Tensor, removed: Tensor = removed) -> Tensor:
            return vector - removed

        with hooked(view, view.sites[layer], batch, without):
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
    found = score(view_of(single, facts, kind), facts, "integrated_gradients")
    assert found.values.dtype == torch.float32
    expected = score(view_of(exact, facts, kind), facts, "integrated_gradients").values
    if kind != "nmf(k=5)":  # factorisations that start from rounded numbers may end elsewhere
        assert torch.allclose(found.values.double(), expected, atol=2e-3)
    assert found.gap is not None
    assert found.gap.abs().max() < 1e-3


def test_costs_are_those_of_the_model(view: UnitModel, facts: FactSet) -> None:
    before = view.site.cost.forwards
    batch = batch_of(view, facts)
    view.answers(batch)
    assert view.cost is view.site.cost
    assert view.cost.forwards - before == len(batch)


# -- the harness -------------------------------------------------------------------------------------------------------

ASKED = ["integrated_gradients", "integrated_gradients@nmf(k=4)", "ablation@heads", "activation@pca(k=3)"]


@pytest.fixture(scope="module")
def world(module_facts: FactSet) -> FactSet:
    """Two relations with shared subjects and answers."""
    lies = [
        Fact(f"lies:{f.subject}", "lies", f.subject, answer, (f"the people of the country {f.subject} in [Y].",),
             (f"in {f.subject} the people lies in [Y].", f"the city {f.subject} lies in [Y]."))
        for f, answer in zip(module_facts, ["Rome", "Paris", "Madrid", "Berlin"], strict=True)
    ]  # fmt: skip
    return FactSet((*module_facts, *lies))


@pytest.fixture(scope="module")
def base(session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny("masked", "float64")


@pytest.fixture(scope="module")
def comparison(base: NeuronModel, world: FactSet) -> Comparison:
    return compare(base, world, ASKED, budgets=(1, 3, 14), keep=("unknown",), progress=False)


def test_units_are_rows_of_the_same_table(comparison: Comparison, world: FactSet) -> None:
    assert comparison.methods == ASKED
    assert list(comparison.table().index) == ASKED
    rows = comparison.rows[comparison.rows.method != "whole_ffn"]
    assert rows.value.notna().all()
    assert set(rows.fact) == {fact.id for fact in world}
    assert [(m["units"], m["units_per_layer"]) for m in comparison.manifest["methods"]] == [
        ("neurons", 48), ("nmf(k=4)", 5), ("heads", 4), ("pca(k=3)", 4)
    ]  # fmt: skip
    assert comparison.manifest["methods"][1]["unit_params"] == {"k": 4, "seed": 0}


def test_controls_are_units_and_as_many(comparison: Comparison) -> None:
    rows = comparison.rows[comparison.rows.method.isin(comparison.methods) & (comparison.rows.group == "target")]
    rows = rows[rows.neurons.isin(["method", "random", "random_same_layer"])]
    sizes = rows.groupby(["fact", "method", "selection", "neurons"]).n_neurons.first().unstack()
    assert sizes.notna().all(axis=None)
    assert (sizes.random == sizes.method).all()
    assert (sizes.random_same_layer == sizes.method).all()
    assert (sizes.method.xs("k=3", level="selection") == 3).all()
    assert set(rows[rows.method == "ablation@heads"].selection) == {"refined", "k=1", "k=3"}
    assert set(rows[rows.method == "integrated_gradients@nmf(k=4)"].selection) == {"refined", "k=1", "k=3", "k=14"}
    budget = comparison.table(selection="k=14")
    assert (budget.loc["ablation@heads"] == "–").all()


def row_value(comparison: Comparison, fact: str, method: str, neurons: str, group: str = "target") -> float:
    found = comparison.rows.query(
        "fact == @fact and method == @method and selection == 'k=3' and neurons == @neurons and group == @group "
        "and intervention == 'suppress' and metric == 'relative_change'"
    )
    return float(found.value.item())


@pytest.mark.parametrize("method", ASKED[1:])
def test_a_row_is_what_an_intervention_by_hand_gives(
    comparison: Comparison, base: NeuronModel, world: FactSet, method: str
) -> None:
    relation = world.of("capital")
    view = make_units(method.split("@")[1]).views(base, base.encode(relation).prompts)["capital"]
    fact = world["capital:Spain"]
    chosen = comparison.neurons.query("method == @method and selection == 'k=3' and fact == @fact.id")
    own = NeuronSet(zip(chosen.layer, chosen.neuron, strict=True))
    assert own == score(view, fact, make_method(method).scorer).top_k(3)
    before = base.answer_probability(fact, "held_out").mean()
    for kind in ("method", "random"):
        units = own if kind == "method" else control_set(kind, own, view, 0, fact.id)
        with suppress(view, units):
            after = view.answer_probability(fact, "held_out").mean()
        assert row_value(comparison, fact.id, method, kind) == pytest.approx(float(after / before - 1), abs=1e-9)


def test_control_facts_of_other_relations_are_judged_with_the_targets_units(
    comparison: Comparison, base: NeuronModel, world: FactSet
) -> None:
    """A view that knew its own relation's prompts only would leave them as they are, and call that specific."""
    changes = [
        row_value(comparison, fact.id, method, "method", "other_relation")
        for method in ("integrated_gradients@nmf(k=4)", "activation@pca(k=3)")
        for fact in world.of("capital")
    ]
    assert np.count_nonzero(np.abs(changes) > 1e-6) == len(changes)


def test_methods_share_their_views(base: NeuronModel, world: FactSet, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[str] = []
    real = NMF._fit

    def counted(self: NMF, layer: Any) -> Any:
        fitted.append(str(self))
        return real(self, layer)

    monkeypatch.setattr(NMF, "_fit", counted)
    found = compare(
        base, world, ["random@nmf(k=2)", "activation@nmf(k=2)"], budgets=(1,), keep=("unknown",), progress=False
    )
    assert len(fitted) == 2 * base.n_layers
    seconds, forwards = ([m[name] for m in found.manifest["methods"]] for name in ("seconds", "forwards"))
    # Random never runs the model: what it is charged with is what its units were fitted on.
    assert forwards == [24, 48]
    assert all(s > 0 for s in seconds)


def test_overlap_is_shown_between_methods_of_the_same_units_only(comparison: Comparison) -> None:
    axes = comparison.plot("overlap").axes[0]
    shown = np.ma.getmaskarray(np.ma.masked_invalid(np.ma.asarray(axes.collections[0].get_array())))
    assert shown.sum() == 12
    for name in ("suppress", "budgets", "layers"):
        comparison.plot(name)


def test_the_command_line_takes_units(saved_bert: Path, facts_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["compare", "--model", saved_bert, "--facts", facts_file, "--keep", "unknown", "--out", out]
    methods = "integrated_gradients,integrated_gradients@nmf,ablation(value=0.0)@heads"
    result = CliRunner().invoke(app, [*map(str, arguments), "--methods", methods])
    assert result.exit_code == 0, (result.output, result.exception)
    assert [m["method"] for m in read_json(out / "manifest.json")["methods"]] == methods.split(",")
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "integrated_gradients@nmf" in report
    assert not re.search(r"\bnan\b", report, re.IGNORECASE)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_methods_and_units_are_read_in_one_place() -> None:
    assert make_method("activation") == Method(Activation())
    assert make_method(Ablation(value=1.0)) == Method(Ablation(value=1.0))
    assert make_method("activation @ nmf") == Method(Activation(), NMF(), "activation @ nmf")
    found = make_method("integrated_gradients:dai2022@pca(k=8, seed=1)")
    assert found.scorer == IntegratedGradients.preset("dai2022")
    assert found.units == PCA(k=8, seed=1)
    assert str(found.units) == "pca(k=8, seed=1)"
    assert make_method(found) is found
    with pytest.raises(
        MethodError, match=r"'activation@nmf\(k=3\)' names units other than neurons; compare takes that"
    ):
        make_scorer("activation@nmf(k=3)")
    with pytest.raises(MethodError, match="unknown objective 'a@b'"):
        make_method("ablation(objective='a@b')")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("layer_conductance@nmf", r"'layer_conductance' scores neurons only, not units \('nmf'\)"),
        (
            "layer_integrated_gradients@heads",
            r"not units \('heads'\): it looks into feed-forward blocks, .*; use it without '@…'",
        ),
        ("restoration@pca", r"'restoration' scores neurons only, .* puts one prompt's activations into another"),
        ("activation@nfm", r"unknown units 'nfm'. Did you mean 'nmf'\? Known: heads, nmf, pca"),
        ("activation@nmf(n=3)", r"nmf: unknown parameter 'n'"),
        ("activation@nmf(k=0)", r"nmf: k is 0; expected at least 1"),
        ("activation@pca(k='many')", r"pca: parameter 'k' is 'many'; expected int"),
        ("activation@heads(k=3)", r"heads: unknown parameter 'k'"),
        ("activashun@heads", r"unknown method 'activashun'. Did you mean 'activation'"),
        ("@heads", r"unknown method '@heads'"),
    ],
)
def test_wrong_requests_are_refused_before_anything_runs(
    base: NeuronModel, world: FactSet, spec: str, message: str
) -> None:
    before = base.cost.forwards
    with pytest.raises(MethodError, match=message):
        compare(base, world, ["random", spec], budgets=(1,), progress=False)
    assert base.cost.forwards == before


def test_more_directions_than_prompts_are_refused(base: NeuronModel, world: FactSet) -> None:
    with pytest.raises(MethodError, match=r"k is 16, but relation 'lies' has 4 prompts .* at most 4: nmf\(k=4\)"):
        compare(base, world, ["activation@nmf"], budgets=(1,), keep=("unknown",), progress=False)
    prompts = base.encode(world.of("capital")).prompts
    with pytest.raises(MethodError, match=r"relation 'capital' has 20 prompts .* 48 neurons; expected at most 19"):
        PCA(k=20).views(base, prompts)
    assert list(NMF(k=20).views(base, prompts)) == ["capital"]
    with pytest.raises(MethodError, match=r"pca: k is 1, but .* has 1 prompts .*; give the relation more prompts"):
        PCA(k=1).views(base, prompts[:1])


def test_the_same_units_twice_are_refused(base: NeuronModel, world: FactSet) -> None:
    with pytest.raises(ConfigError, match="the same scorer twice: activation@heads, activation@heads"):
        compare(base, world, ["activation@heads", "activation@heads"], budgets=(1,), progress=False)


def test_other_tokens_are_out_of_reach(view: UnitModel, facts: FactSet) -> None:
    batch = batch_of(view, facts)
    with (
        pytest.raises(ConfigError, match="at the answer position only; use positions='answer'"),
        suppress(view, [(0, 0)], positions="all"),
    ):
        view.answers(batch)


def test_what_only_neurons_have_is_refused(view: UnitModel, facts: FactSet) -> None:
    with pytest.raises(MethodError, match=r"value vector, the same for every prompt, so it cannot score units"):
        view.value_norms()
    with pytest.raises(MethodError, match=r"this method reads hooks on the neurons themselves \(model.taps\)"):
        score(view, facts, LayerConductance())


def test_a_model_whose_heads_cannot_be_found_is_refused(open_model: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = open_model("grouped", "float32")
    attention: Any = model.model.get_submodule("model.layers.1.self_attn")
    linear = attention.o_proj
    attention.o_proj = nn.Sequential(linear)
    with pytest.raises(ModelError, match=r"'llama' \(LlamaForCausalLM\) has no heads .* output is a Sequential"):
        attention_model(model)
    del attention.o_proj
    attention.elsewhere = linear
    object.__setattr__(attention, "o_proj", linear.forward)
    with pytest.raises(ModelError, match=r"'model.layers.{i}.self_attn.o_proj' in 2 of 3 layers; expected all"):
        attention_model(model)
    for layer in (0, 2):
        model.model.get_submodule(f"model.layers.{layer}.self_attn").o_proj = nn.Identity()
    with pytest.raises(ModelError, match=r"has no linear with such a name for the output of self-attention beside"):
        attention_model(model)
    odd = open_model("grouped", "float32")
    odd.model.config.num_attention_heads = 3
    with pytest.raises(ModelError, match="has 3 heads and an attention output of 40 values"):
        attention_model(odd)


def test_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "units.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block, "units.md", "exec", dont_inherit=True), {})
    assert "tensor" in capsys.readouterr().out


def test_facts_beyond_the_limit_help_to_fit(base: NeuronModel, world: FactSet) -> None:
    settings: dict[str, Any] = {"budgets": (1,), "keep": ("unknown",), "limit": 2, "progress": False}
    found = compare(base, world, ["activation@pca(k=3)"], **settings)
    assert set(found.rows.fact) == {"capital:France", "lies:France"}
    with pytest.raises(MethodError, match="relation 'lies' has 1 prompts to fit on"):
        compare(base, world, ["activation@pca(k=3)"], contrast_facts=0, **settings)


def test_a_factor_found_twice_is_shared_out() -> None:
    from kn_attrib.factors import NonNegative

    factor = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    basis = NonNegative(torch.stack([factor, factor])[None], torch.float64)
    vectors = torch.tensor([[3.0, 6.0, -3.0]], dtype=torch.float64)
    coefficients, rest = basis.encode(0, vectors)
    assert torch.allclose(basis.decode(0, coefficients, rest), vectors)
    assert float(coefficients[0, -1]) < 1e-6  # nothing is left over
