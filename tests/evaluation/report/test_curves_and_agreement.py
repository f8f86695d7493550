"""Curves, agreement, shared neurons and the parameter-randomisation check, by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kn_attrib import Comparison, FactSet, NeuronModel, NeuronSet, compare, suppress
from kn_attrib.evaluation.comparison.agreement import agreement
from kn_attrib.evaluation.comparison.curves import masks_of
from kn_attrib.evaluation.comparison.score_stage import MethodScores
from kn_attrib.evaluation.measure.parameter_randomisation import parameter_randomisation, randomised
from kn_attrib.evaluation.report.agreement import agreement_table, intersections
from kn_attrib.evaluation.report.curves import areas, curves
from kn_attrib.evaluation.vocabulary import SHARES
from kn_attrib.models.neuron_model import all_neurons

METHODS = ["integrated_gradients", "ablation", "random"]


@pytest.fixture(scope="module")
def model(session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny("causal", "float64")


@pytest.fixture(scope="module")
def comparison(model: NeuronModel, module_facts: FactSet) -> Comparison:
    return compare(model, module_facts, METHODS, budgets=(2,), keep=("unknown",), curves=True, progress=False)


def test_masks_take_the_highest_first() -> None:
    names, masks = masks_of(torch.tensor([[0.1, 0.9], [0.5, -2.0]]))
    found = dict(zip(names, masks, strict=True))
    assert found["keep 0.5"].tolist() == [[0, 1], [1, 0]]
    assert found["delete 0.5"].tolist() == [[1, 0], [0, 1]]
    assert found["keep 1.0"].sum() == 4
    assert found["delete 0.0"].sum() == 4
    assert len(names) == 2 * len(SHARES)


def test_a_point_of_each_curve_by_hand(comparison: Comparison, model: NeuronModel, module_facts: FactSet) -> None:
    found = curves(comparison).query("method == 'ablation' and fact == 'capital:Italy'").set_index(["curve", "share"])
    fact = module_facts["capital:Italy"]
    top = comparison.neurons.query("method == 'ablation' and selection == 'k=2' and fact == @fact.id")
    neurons = NeuronSet(zip(top.layer, top.neuron, strict=True))
    share = 0.01  # 1.44 of 144 neurons: one
    whole = float(model.answer_probability(fact, "held_out").mean())
    without = {}
    for neuron in neurons:
        with suppress(model, [neuron]):
            without[neuron] = float(model.answer_probability(fact, "held_out").mean()) / whole
    assert min(abs(float(found.loc[("delete", share), "value"]) - v) for v in without.values()) < 1e-9
    assert found.loc[("delete", 0.0), "value"] == pytest.approx(1)
    with suppress(model, all_neurons(model)):
        nothing = float(model.answer_probability(fact, "held_out").mean())
    assert found.loc[("delete", 1.0), "value"] == pytest.approx(nothing / whole)


def test_areas_by_hand() -> None:
    """Straight lines: half of the area lies below each, and keeping is 1 − share away from 1."""
    rows = [
        {"fact": f, "relation": "r", "method": "m", "selection": f"share={share}", "intervention": name,
         "metric": "p_after", "neurons": "method", "value": 0.2 + 0.6 * (1 - share if name == "delete" else share)}
        for f in "ab" for share in SHARES for name in ("delete", "keep")
    ]  # fmt: skip
    manifest = {"methods": [{"method": "m"}], "settings": {"seed": 0}}
    found = areas(Comparison(pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame(), manifest)).set_index("area")
    assert found.loc["deletion", "mean"] == pytest.approx(0.25 + 0.75 / 2)  # from 1 down to 0.2 / 0.8
    assert found.loc["CPR", "mean"] == pytest.approx(0.5)
    assert found.loc["CMD", "mean"] == pytest.approx(0.5)


def test_curves_are_asked_for(comparison: Comparison) -> None:
    assert len(areas(replace(comparison, rows=comparison.rows[comparison.rows.selection == "refined"]))) == 0
    assert comparison.selections == ["refined", "k=2"]
    deletion = areas(comparison).query("area == 'deletion'").set_index("method")["mean"]
    assert set(deletion.index) == set(METHODS)
    assert deletion["ablation"] < deletion["random"]


def scored(*values: list[float]) -> MethodScores:
    return MethodScores({"f": torch.tensor([list(v) for v in values])}, {}, {}, None, {}, 1)


def test_agreement_by_hand() -> None:
    each = {"a": scored([1, 2, 3, 4]), "b": scored([1, 2, 4, 3]), "c": scored([4, 3, 2, 1])}
    found = agreement(each, {"f": "r"}, dict.fromkeys(each, "neurons")).set_index(["method", "other"]).value
    assert found["a", "b"] == pytest.approx(0.8)
    assert found["a", "c"] == pytest.approx(-1)
    # The others' mean ranks: b and c give 2.5, 2.5, 3, 2; of which the ranks are 2.5, 2.5, 4, 1.
    assert found["a", "consensus"] == pytest.approx(np.corrcoef([1, 2, 3, 4], [2.5, 2.5, 4, 1])[0, 1])
    alone = agreement({"a": each["a"], "u": each["b"]}, {"f": "r"}, {"a": "neurons", "u": "heads"})
    assert len(alone) == 0


def test_agreement_of_a_comparison(comparison: Comparison, tmp_path: object) -> None:
    table = agreement_table(comparison)
    assert table.index.tolist() == METHODS
    assert table["mean"].abs().max() <= 1
    assert (table.n == 4).all()
    loaded = Comparison.load(comparison.save(str(tmp_path)))
    pd.testing.assert_frame_equal(loaded.agreement, comparison.agreement)


def test_intersections_by_hand(comparison: Comparison) -> None:
    neurons = pd.DataFrame(
        [("m", "refined", fact, "", layer, 0) for fact, layers in
         {"r:1": (0, 1), "r:2": (1, 2), "s:1": (0, 1, 2)}.items() for layer in layers],
        columns=["method", "selection", "fact", "relation", "layer", "neuron"],
    )  # fmt: skip
    facts = pd.DataFrame({"fact": ["r:1", "r:2", "s:1"], "relation": ["r", "r", "s"], "status": "used"})
    manifest = comparison.manifest | {"methods": [{"method": "m"}]}
    found = intersections(replace(comparison, neurons=neurons, facts=facts, manifest=manifest)).loc["m"]
    assert found.tolist() == pytest.approx([7 / 3, 1, 2])


def test_randomisation_is_undone(model: NeuronModel) -> None:
    before = {name: p.detach().clone() for name, p in model.model.named_parameters()}

    def touched() -> set[str]:
        return {name.split(".")[2] for name, p in model.model.named_parameters() if not torch.equal(p, before[name])}

    with randomised(model, [1, 2]):
        assert touched() == {"1", "2"}
    assert touched() == set()
    with pytest.raises(RuntimeError, match="stop"), randomised(model, [0]):
        raise RuntimeError("stop")
    assert touched() == set()


def test_scores_that_depend_on_the_model_change(model: NeuronModel, module_facts: FactSet) -> None:
    found = parameter_randomisation(model, module_facts, "gradient_x_activation")
    assert found.layers.tolist() == [1, 2, 3]
    assert found.spearman.iloc[-1] < 0.5
    blind = parameter_randomisation(model, module_facts, "random")
    assert blind.spearman.tolist() == pytest.approx([1, 1, 1])
