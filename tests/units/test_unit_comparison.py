"""Units other than neurons in a comparison, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from kn_attrib import Fact, FactSet, NeuronModel, NeuronSet, compare, score, suppress
from kn_attrib.cli import app
from kn_attrib.errors import ConfigError, MethodError, ModelError
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.comparison.control_neurons import control_set
from kn_attrib.evaluation.report.figures import figures_of, overlap
from kn_attrib.methods import Ablation, Activation, IntegratedGradients, LayerConductance
from kn_attrib.scoring.method_specs import UNITS, Method, make_method, make_units
from kn_attrib.scoring.registry import make_scorer
from kn_attrib.store import read_json
from kn_attrib.units.factors import NMF, PCA, NonNegative
from kn_attrib.units.heads import attention_model
from kn_attrib.units.view import UnitModel
from unit_views import batch_of

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
    assert set(rows[rows.method == "ablation@heads"].selection) == {"refined", "specific", "k=1", "k=3"}
    assert set(rows[rows.method == "integrated_gradients@nmf(k=4)"].selection) == {
        "refined",
        "specific",
        "k=1",
        "k=3",
        "k=14",
    }
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
    axes = overlap(comparison)
    shown = np.ma.getmaskarray(np.ma.masked_invalid(np.ma.asarray(axes.collections[0].get_array())))
    assert shown.sum() == 12
    for name in ("suppress", "budgets", "layers"):
        figures_of(comparison)[name]()


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
        ("activation@nfm", rf"unknown units 'nfm'. Did you mean 'nmf'\? Known: {', '.join(sorted(UNITS))}"),
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
    before = base.execution.cost.forwards
    with pytest.raises(MethodError, match=message):
        compare(base, world, ["random", spec], budgets=(1,), progress=False)
    assert base.execution.cost.forwards == before


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
    with pytest.raises(MethodError, match=r"this method reads hooks on the neurons themselves \(model.hook_points\)"):
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
    page = (Path(__file__).parents[2] / "docs" / "units.md").read_text(encoding="utf-8")
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

    factor = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    basis = NonNegative(torch.stack([factor, factor])[None], torch.float64)
    vectors = torch.tensor([[3.0, 6.0, -3.0]], dtype=torch.float64)
    coefficients, rest = basis.encode(0, vectors)
    assert torch.allclose(basis.decode(0, coefficients, rest), vectors)
    assert float(coefficients[0, -1]) < 1e-6  # nothing is left over
