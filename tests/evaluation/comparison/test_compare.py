"""The harness: groups, controls, effects and rows, on models small enough to check by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kn_attrib import Batch, Fact, FactSet, NeuronModel, NeuronSet, Scorer, compare, score, suppress
from kn_attrib.errors import ConfigError, FactError, MethodError, NeuronError
from kn_attrib.evaluation import Comparison, ComparisonInterrupted
from kn_attrib.evaluation.comparison import run
from kn_attrib.evaluation.comparison.control_facts import group_prompts
from kn_attrib.evaluation.comparison.control_neurons import control_set
from kn_attrib.evaluation.comparison.effect_stage import Measurement
from kn_attrib.evaluation.measure.known_facts import select_facts
from kn_attrib.evaluation.measure.metrics import effect
from kn_attrib.evaluation.measure.outcomes import INTACT, Evaluator, Job, Outcome
from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.vocabulary import CONTROLS, GROUPS
from kn_attrib.methods import Activation, IntegratedGradients
from kn_attrib.models.neuron_model import all_neurons
from kn_attrib.scoring.guarded import MethodWarning
from kn_attrib.scoring.method_specs import repr_of

METHODS = ["integrated_gradients", "activation", "random"]
KEEP = ("unknown",)


@pytest.fixture(scope="module")
def world_of_two(module_facts: FactSet) -> FactSet:
    """Two relations with shared subjects and answers, so that every control group has members."""
    lies = [
        Fact(f"lies:{f.subject}", "lies", f.subject, answer, (f"the people of the country {f.subject} in [Y].",) * 1,
             (f"in {f.subject} the people lies in [Y].", f"the city {f.subject} lies in [Y]."))
        for f, answer in zip(module_facts, ["Rome", "Paris", "Madrid", "Berlin"], strict=True)
    ]  # fmt: skip
    return FactSet((*module_facts, *lies))


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> NeuronModel:
    load: Callable[..., NeuronModel] = request.getfixturevalue("session_load_tiny")
    return load("masked", "float32")


@pytest.fixture(scope="module")
def comparison(model: NeuronModel, world_of_two: FactSet) -> Comparison:
    return compare(model, world_of_two, METHODS, budgets=(1, 5), keep=KEEP, progress=False)


def test_effect_by_hand() -> None:
    before = [Outcome(math.log(0.8), 1, 5), Outcome(math.log(0.4), 1, 5)]
    after = [Outcome(math.log(0.2), 3, 7), Outcome(math.log(0.4), 1, 5)]
    found = effect(before, after)
    assert found["p_before"] == pytest.approx(0.6)
    assert found["p_after"] == pytest.approx(0.3)
    assert found["relative_change"] == pytest.approx(-0.5)
    assert found["mean_relative_change"] == pytest.approx((-0.75 + 0) / 2)
    assert found["delta_logprob"] == pytest.approx(math.log(0.25) / 2)
    assert found["rank_after"] == 2
    assert found["flip"] == 0.5


def test_evaluator_equals_the_context_manager(model: NeuronModel, world_of_two: FactSet) -> None:
    prompts = model.encode(list(world_of_two), "held_out").texts
    sets = [NeuronSet([(0, 1)]), NeuronSet([(1, 4), (2, 30)]), INTACT]
    jobs = [Job(p, s, 0.0) for p in prompts for s in sets]
    found = Evaluator(model, max_rows=7).run(jobs)
    for job, outcome in zip(jobs, found, strict=True):
        with suppress(model, job.neurons):
            _, batch = next(iter(model.batches(job.text.queries)))
            answer = model.answers(batch)
        assert outcome.logprob == pytest.approx(float(answer.logprob[0]), abs=1e-5)
        assert (outcome.rank, outcome.top) == (int(answer.rank[0]), int(answer.top[0]))


def test_evaluator_measures_each_job_once(model: NeuronModel, world_of_two: FactSet) -> None:
    prompts = model.encode(world_of_two[0], "held_out").texts
    evaluator = Evaluator(model)
    evaluator.run([Job(p, NeuronSet([(0, 0)]), 2.0) for p in prompts])  # the guards of the fast path run now
    asked = model.execution.cost.forwards
    jobs = [Job(p, NeuronSet([(0, 1)]), 0.0) for p in prompts] * 3
    first = evaluator.run(jobs)
    assert model.execution.cost.forwards == asked + len(prompts)
    assert evaluator.run(jobs) == first
    assert model.execution.cost.forwards == asked + len(prompts)


def test_groups_hold_what_they_say(model: NeuronModel, world_of_two: FactSet) -> None:
    selection = select_facts(model, world_of_two, keep=KEEP)
    target = next(c for c in selection.targets if c.fact.id == "capital:France")
    groups = group_prompts(target, selection.pool, 5, seed=0)
    members = {g: {p.fact.id for p in prompts} for g, prompts in groups.items()}
    assert groups["target"] == target.held_out
    assert members["same_object"] == {"lies:Italy"}
    assert members["same_subject"] == {"lies:France"}  # whose answer is Rome
    assert members["same_relation"] == {"capital:Italy", "capital:Germany", "capital:Spain"}
    assert members["other_relation"] == {"lies:Germany", "lies:Spain"}
    for prompts in groups.values():
        assert all(p.text in p.fact.held_out for p in prompts)
    assert group_prompts(target, selection.pool, 5, seed=0) == groups
    assert sum(len(p) for g, p in group_prompts(target, selection.pool, 1, seed=0).items() if g != "target") == 4


def test_control_sets_have_the_same_size_and_layers(model: NeuronModel) -> None:
    own = NeuronSet([(0, 1), (0, 2), (2, 7)])
    for kind in ("random", "random_same_layer"):
        drawn = control_set(kind, own, model, 0, "f")
        assert len(drawn) == 3
        assert not set(drawn) & set(own)
        assert drawn == control_set(kind, own, model, 0, "f")
        assert drawn != control_set(kind, own, model, 1, "f")
    assert control_set("random_same_layer", own, model, 0, "f").layers == own.layers
    whole_layer = NeuronSet((1, i) for i in range(model.n_neurons))
    assert control_set("random_same_layer", whole_layer, model, 0, "f") == whole_layer


def test_rows_are_complete(comparison: Comparison, world_of_two: FactSet) -> None:
    rows = comparison.rows[comparison.rows.method.isin(METHODS)]
    cells = rows.groupby(["fact", "method", "selection", "neurons", "intervention", "group"]).size()
    assert (cells == 9).all()
    # Refined sets have all controls, budgets the two random ones.
    refined = cells[cells.index.get_level_values("selection") == "refined"]
    own = cells[cells.index.get_level_values("neurons") == "method"]
    groups = own.groupby(level=["fact", "method", "selection", "intervention"]).size()
    assert len(groups) == 8 * 3 * 4 * 2  # facts, methods, selections, interventions
    assert len(refined) == groups.sum() / 4 + 8 * 3 * 2 * len(CONTROLS)
    assert len(cells) - len(refined) == 3 * groups.sum() / 4 + 3 * 8 * 3 * 2 * 2
    # Each of these has texts for every fact here.
    always = {"target", "same_object", "same_subject", "same_relation", "other_relation", "plain_text"}
    assert groups.min() >= len(always)
    assert always <= set(rows.group) <= set(GROUPS)
    assert rows.value.notna().all()


def test_a_row_is_what_an_intervention_by_hand_gives(
    comparison: Comparison, model: NeuronModel, world_of_two: FactSet
) -> None:
    fact = world_of_two["capital:Spain"]
    found = comparison.neurons.query("method == 'integrated_gradients' and selection == 'k=5' and fact == @fact.id")
    neurons = NeuronSet(zip(found.layer, found.neuron, strict=True))
    assert len(neurons) == 5
    before = model.answer_probability(fact, "held_out").mean()
    with suppress(model, neurons):
        after = model.answer_probability(fact, "held_out").mean()
    row = comparison.rows.query(
        "fact == @fact.id and method == 'integrated_gradients' and selection == 'k=5' and neurons == 'method' "
        "and intervention == 'suppress' and group == 'target' and metric == 'relative_change'"
    )
    assert row.value.item() == pytest.approx(float(after / before - 1), abs=1e-5)


def test_whole_ffn_is_every_neuron_at_zero(comparison: Comparison, model: NeuronModel, world_of_two: FactSet) -> None:
    changes = []
    for fact in world_of_two:
        before = model.answer_probability(fact, "held_out").mean()
        with suppress(model, all_neurons(model)):
            changes.append(float(model.answer_probability(fact, "held_out").mean() / before - 1))
    assert comparison.precondition["mean"] == pytest.approx(np.mean(changes), abs=1e-5)
    assert comparison.precondition["n"] == 8


@dataclass(frozen=True)
class NothingForFrance(Scorer):
    """No neuron scores above zero for facts about France."""

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        scores = model.record(batch).abs() + 0.1
        return scores * torch.tensor([f.subject != "France" for f in batch.facts])[:, None, None]


def test_facts_without_neurons_stay_with_effect_zero(model: NeuronModel, world_of_two: FactSet) -> None:
    with pytest.warns(MethodWarning, match="NothingForFrance gave the same score to every neuron for 2 of 8 facts"):
        found = compare(model, world_of_two, [NothingForFrance()], keep=KEEP, budgets=(1,), progress=False)
    rows = found.rows.query(
        "selection == 'refined' and neurons == 'method' and n_neurons == 0 and metric == 'relative_change'"
    )
    assert set(rows.fact) == {"capital:France", "lies:France"}
    assert (rows.value == 0).all()
    cell = found.cell(selection="refined", neurons="method", intervention="suppress", group="target").iloc[0]
    assert (cell.n, cell["empty"]) == (8, 2)


def test_seed_and_repetition(model: NeuronModel, world_of_two: FactSet, comparison: Comparison) -> None:
    again = compare(model, world_of_two, METHODS, budgets=(1, 5), keep=KEEP, progress=False)
    assert again.rows.equals(comparison.rows)
    other = compare(model, world_of_two, METHODS, budgets=(1, 5), keep=KEEP, progress=False, seed=1)
    assert not other.rows.equals(comparison.rows)


def test_save_and_load(comparison: Comparison, tmp_path: Any) -> None:
    loaded = Comparison.load(comparison.save(tmp_path / "run"))
    assert loaded.rows.equals(comparison.rows)
    assert loaded.table().equals(comparison.table())
    assert loaded.manifest["settings"]["seed"] == 0
    assert loaded.manifest["facts"]["sha256"] == comparison.manifest["facts"]["sha256"]
    assert len(loaded.manifest["model"]["sha256"]) == 64
    assert [m["params"] for m in loaded.manifest["methods"]] == [m["params"] for m in comparison.manifest["methods"]]


def test_limit_leaves_the_other_facts_as_controls(model: NeuronModel, world_of_two: FactSet) -> None:
    found = compare(model, world_of_two, ["random"], keep=KEEP, limit=2, max_prompts=2, progress=False)
    assert found.facts.status.value_counts().to_dict() == {"limit": 6, "used": 2}
    assert set(found.rows.fact) == {"capital:France", "lies:France"}
    assert (found.facts.prompts <= 2).all()
    assert found.cell(group="same_object", neurons="method", selection="k=1", intervention="suppress").n.item() == 2


def test_unknown_ambiguous_and_leaking_facts_are_left_out_and_counted(
    model: NeuronModel, world_of_two: FactSet
) -> None:
    known = compare(model, world_of_two, ["random"], keep=KEEP, progress=False).facts.set_index("fact")
    good = known.correct.idxmax()
    if known.correct[good] < 0.5:
        with pytest.raises(FactError, match=r"none of the 8 facts can be judged on .*: 8 unknown: the model's"):
            compare(model, world_of_two, ["random"], progress=False)
    fact = world_of_two[0]
    marked = [
        Fact("ambiguous", "r", fact.subject, fact.answer, fact.prompts, fact.held_out, ("Rome",)),
        Fact("leaking", "r", "the Paris country", "Paris", fact.prompts, fact.held_out),
        Fact("no held-out", "r", fact.subject, fact.answer, fact.prompts),
        fact,
    ]
    status = compare(model, marked, ["random"], keep=KEEP, progress=False).facts.set_index("fact").status
    assert status.to_dict() == {
        "ambiguous": "ambiguous", "leaking": "leaking", "no held-out": "unusable", fact.id: "used",
    }  # fmt: skip


def test_interruption_keeps_what_is_done(
    model: NeuronModel, world_of_two: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(model, world_of_two, METHODS, budgets=(1,), keep=KEEP, progress=False)
    monkeypatch.setattr(run, "MEASURED_AT_ONCE", 3)
    measured: list[int] = []
    dropout = Measurement.dropout

    def stop(self: Measurement, evaluator: Evaluator, targets: Any) -> None:
        measured.append(len(targets))
        if len(measured) == 3:
            raise KeyboardInterrupt
        dropout(self, evaluator, targets)

    monkeypatch.setattr(Measurement, "dropout", stop)
    with pytest.raises(ComparisonInterrupted) as caught:
        compare(model, world_of_two, METHODS, budgets=(1,), keep=KEEP, progress=False)
    partial = caught.value.comparison
    assert measured == [3, 3, 2]
    assert not partial.complete
    assert partial.methods == METHODS
    keys = [c for c in partial.rows.columns if c != "value"]
    found = partial.rows.set_index(keys).value
    expected = whole.rows[whole.rows.fact.isin([f.id for f in world_of_two[:6]])].set_index(keys).value
    assert len(found) == len(expected)
    assert np.allclose(found, expected.reindex(found.index), atol=1e-5)


def test_interruption_before_the_first_row(
    model: NeuronModel, world_of_two: FactSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(_: object, model: NeuronModel, batch: Batch) -> Tensor:
        if len(batch) > 1:
            raise KeyboardInterrupt
        return model.record(batch)

    with monkeypatch.context() as patched:
        patched.setattr(Activation, "score", stop)
        with pytest.raises(ComparisonInterrupted) as caught:
            compare(model, world_of_two, METHODS, budgets=(1,), keep=KEEP, folder=tmp_path / "run", progress=False)
    assert len(caught.value.comparison.rows) == 0
    assert caught.value.comparison.methods == []
    again = compare(model, world_of_two, METHODS, budgets=(1,), keep=KEEP, folder=tmp_path / "run", progress=False)
    assert again.complete


def test_methods_of_one_name_are_told_apart(model: NeuronModel, world_of_two: FactSet) -> None:
    found = compare(
        model, world_of_two, [IntegratedGradients(), IntegratedGradients(steps=4)], keep=KEEP, budgets=(1,),
        progress=False,
    )  # fmt: skip
    assert found.methods == ["integrated_gradients", "integrated_gradients(steps=4, rule=gausslegendre)"]
    assert repr_of(IntegratedGradients.preset("eleuther")) == "integrated_gradients(steps=20, rule=linspace)"


def test_bad_settings_are_refused(model: NeuronModel, world_of_two: FactSet) -> None:
    with pytest.raises(NeuronError, match="budget k = 145; expected 1 to 144"):
        compare(model, world_of_two, ["random"], budgets=(1, 145))
    with pytest.raises(ConfigError, match="limit is 0; expected at least 1"):
        compare(model, world_of_two, ["random"], limit=0)
    with pytest.raises(ConfigError, match="methods is empty"):
        compare(model, world_of_two, [])
    with pytest.raises(ConfigError, match="keep holds 'foo'"):
        compare(model, world_of_two, ["random"], keep=("foo",))
    with pytest.raises(ConfigError, match="the same scorer twice"):
        compare(model, world_of_two, ["random", "random"])


def test_interval_text() -> None:
    assert interval_text(-0.387, -0.45, 0.012, percent=True) == "−38.7 % [−45.0, +1.2]"
    assert interval_text(-1.234, -1.4, -1.05, percent=False) == "−1.23 [−1.40, −1.05]"
    assert interval_text(float("nan"), 0, 0, percent=True) == "–"


def test_a_faulty_method_is_found_before_any_work(model: NeuronModel, world_of_two: FactSet) -> None:
    @dataclass(frozen=True)
    class Faulty(Scorer):
        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            return model.record(batch) / 0

    asked: list[int] = []

    @dataclass(frozen=True)
    class Counting(Scorer):
        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            asked.append(len(batch))
            return model.record(batch)

    with pytest.raises(MethodError, match="not finite"):
        compare(model, world_of_two, [Counting(), Faulty()], keep=KEEP, progress=False)
    assert asked == [1]


def test_unknown_objective_is_refused(model: NeuronModel, world_of_two: FactSet) -> None:
    with pytest.raises(MethodError, match=r"unknown objective 'prop'. Did you mean 'prob'"):
        score(model, world_of_two[0], IntegratedGradients(objective="prop"))  # type: ignore[arg-type]
