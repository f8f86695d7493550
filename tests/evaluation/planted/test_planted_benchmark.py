"""The shipped plants hold what they say, and the benchmark's figures are those of a hand count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from kn_attrib import Fact, NeuronSet, Refinement, load_facts, suppress
from kn_attrib.cli import app
from kn_attrib.errors import ConfigError, KnAttribError, StoreError
from kn_attrib.evaluation.planted.axes import AXES, PlantDraws, wanted, writings
from kn_attrib.evaluation.planted.benchmark import benchmark, found_metrics
from kn_attrib.evaluation.planted.build import build_suite
from kn_attrib.evaluation.planted.figure import heat_map
from kn_attrib.evaluation.planted.planter import Planter
from kn_attrib.evaluation.planted.result import METRICS, PlantedResult
from kn_attrib.evaluation.planted.suite import MODELS, SHIPPED, load_suite, passed, simple_facts
from kn_attrib.scoring.neuron_scores import NeuronScores

MEGABYTE = 2**20


def scores_of(values: list[float], prompts: int = 1) -> NeuronScores:
    """The same scores of one layer in each prompt."""
    tensor = torch.tensor(values).expand(prompts, 1, -1).clone()
    return NeuronScores(tensor, ("f",) * prompts, ("r",) * prompts, ("t",) * prompts, "m")


def test_metrics_by_hand() -> None:
    found = found_metrics(scores_of([0.9, 0.8, 0.1, 0.7, 0.0]), NeuronSet([(0, 0), (0, 3)]), Refinement(threshold=0.75))
    # Planted neurons stand first and third: precision there is 1/1 and 2/3.
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["recall_at_k"] == 0.5
    assert found["refined_size"] == 3  # 0.9, 0.8 and 0.7 are at least 0.675
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == 1
    assert found["rank"] == 1


def test_average_precision_is_that_of_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    values, planted = rng.normal(size=60), rng.choice(60, 5, replace=False)
    order = np.argsort(-values)
    hits = np.isin(order, planted)
    by_hand = float(np.mean((np.cumsum(hits) / np.arange(1, 61))[hits]))
    labels = np.isin(np.arange(60), planted)
    found = found_metrics(scores_of(values.tolist(), 3), NeuronSet((0, int(i)) for i in planted), Refinement())
    assert found["average_precision"] == pytest.approx(by_hand, abs=1e-6)
    assert average_precision_score(labels, values) == pytest.approx(by_hand)


def test_ties_and_empty_sets_do_not_help_a_method() -> None:
    found = found_metrics(scores_of([0.0] * 10), NeuronSet([(0, 0)]), Refinement())
    assert found["average_precision"] == pytest.approx(0.1)
    assert found["rank"] == 10
    assert found["precision"] == found["recall"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_shipped_plants_are_many_verified_and_of_every_axis(name: str) -> None:
    suite = load_suite(name)
    tried = suite.checks()
    targets = [(i, t) for i in suite.items for t in i.plant.targets]
    assert len(targets) >= 60
    assert all(passed(t, i.axis) for i, t in targets)
    assert all(len(suite.of(split)) >= 20 for split in ("development", "test"))
    assert not {t.fact.subject for i in suite.of("test") for t in i.plant.targets} & {
        t.fact.subject for i in suite.of("development") for t in i.plant.targets
    }
    assert len(tried) >= len(targets)
    for item, target in targets:
        assert not target.neurons & target.decoys
        if item.axis.startswith("k="):
            assert len(target.neurons) == int(item.axis[2:])
        assert bool(len(target.decoys)) == item.axis.endswith(("decoys", "mixed"))
        if item.axis in ("spread", "mixed"):
            assert set(target.neurons.layers) == {1, 2, 3}


@pytest.mark.parametrize("split", ["development", "test"])
def test_every_axis_has_plants_of_at_least_two_models(split: str) -> None:
    found = [(name, item.axis) for name in MODELS for item in load_suite(name).of(split)]
    assert {axis: len({name for name, a in found if a == axis}) >= 2 for axis in AXES} == dict.fromkeys(AXES, True)


def test_shipped_plants_are_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 3 * MEGABYTE


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_plant_is_carried_by_its_neurons(name: str) -> None:
    suite = load_suite(name)
    model = suite.base()
    item = next(i for i in suite.items if i.axis == "middle")
    (target,) = item.plant.targets
    assert target.check is not None
    with item.plant.applied(model):
        known = float(model.answer_probability(target.fact, "held_out").mean())
        with suppress(model, target.neurons):
            left = float(model.answer_probability(target.fact, "held_out").mean())
    assert known == pytest.approx(target.check.held_out, abs=1e-3)
    assert left / known == pytest.approx(target.check.left, abs=1e-3)
    assert model.digest == suite.sha256


@pytest.fixture(scope="module")
def result() -> PlantedResult:
    methods = ["integrated_gradients", "activation_norm", "probeless", "random"]
    return benchmark(["zoo:bert-facts"], methods, limit=1, max_prompts=2, contrast_facts=2, progress=False)


def test_random_is_at_chance_and_gradients_are_not(result: PlantedResult) -> None:
    table: Any = result.table()
    assert list(table.columns) == ["overall", *AXES]
    # 2,048 neurons and at most 16 planted ones: chance is below 1 %.
    assert table.loc["random", "overall"] < 0.03
    assert table.loc["integrated_gradients", "overall"] > 0.5


def test_rows_hold_every_planted_fact_method_and_metric(result: PlantedResult) -> None:
    suite = load_suite("zoo:bert-facts")
    first = {axis: next(i for i in suite.of("test") if i.axis == axis) for axis in AXES}
    facts = sum(len(item.plant.targets) for item in first.values())
    assert len(result.rows) == facts * 4 * (len(METRICS) + 1)
    assert not result.rows.duplicated(["plant", "fact", "method", "metric"]).any()
    cell = result.summary.query("metric == 'rank' and axis == 'joint' and method == 'random'")
    assert cell.n.tolist() == [3]


def test_pairwise_tests_are_of_the_same_facts(result: PlantedResult) -> None:
    tests: Any = result.pairwise("random")
    wide = result.wide()
    difference = (wide["random"] - wide["probeless"]).groupby("relation").mean().mean()
    assert tests.loc["probeless", "difference"] == pytest.approx(difference)
    assert (tests.p_holm >= tests.p).all()
    with pytest.raises(ConfigError, match="unknown method of this result 'nothing'"):
        result.pairwise("nothing")


def test_saved_and_loaded_and_drawn(result: PlantedResult, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    again = PlantedResult.load(tmp_path / "run")
    pd.testing.assert_frame_equal(again.rows, result.rows)
    pd.testing.assert_frame_equal(again.table(), result.table())
    assert again.manifest == json.loads(json.dumps(result.manifest))
    labels = [t.get_text() for t in heat_map(result.table(), "average_precision").get_xticklabels()]
    assert labels[0] == "overall"
    with pytest.raises(StoreError, match="another run"):
        result.save(tmp_path / "run")
    with pytest.raises(StoreError, match="no saved benchmark"):
        PlantedResult.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "zoo:bert-plain"], "zoo:bert-plain"),
        (["--methods", "integrated_gradient"], "integrated_gradients"),
        (["--methods", "random,random"], "the same scorer twice: random, random"),
        (["--split", "tests"], "Did you mean 'test'"),
        (["--plugin", "nothing.py"], "does not exist"),
        (["--plants", "nowhere"], "planted benchmark"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    options = {"--model": "zoo:gpt2-facts", "--methods": "random", "--out": str(tmp_path / "out")}
    options |= {arguments[0]: arguments[1]}
    done = CliRunner().invoke(app, ["benchmark", *(part for pair in options.items() for part in pair)])
    assert isinstance(done.exception, KnAttribError)
    assert message in str(done.exception)


def test_bad_numbers_are_named() -> None:
    for setting, least in (("max_prompts", 1), ("limit", 1), ("contrast_facts", 0)):
        with pytest.raises(ConfigError, match=f"{setting} is {least - 1}"):
            benchmark(methods=["random"], **{setting: least - 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="methods is empty"):
        benchmark(methods=[])
    with pytest.raises(ConfigError, match="no model"):
        benchmark([])


PLUGIN = """
from dataclasses import dataclass
import kn_attrib

@kn_attrib.register("last_layer")
@dataclass(frozen=True)
class LastLayer(kn_attrib.Scorer):
    '''Activation times value norm, last layer only.'''
    def score(self, model, batch):
        scores = model.record(batch).abs() * model.value_norms()
        scores[:, :-1] = 0
        return scores
"""


def test_the_command_runs_a_plug_in(tmp_path: Path, registry: object) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    given = ["benchmark", "--model", "zoo:llama-facts", "--methods", "last_layer,random", "--plugin", str(plugin)]
    given += ["--limit", "1", "--max-prompts", "1", "--split", "development", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0
    assert "last_layer" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "manifest.json", "rows.parquet", "summary.parquet", "planted.md", "planted.svg", "planted.png",
    }  # fmt: skip


def test_a_suite_is_built_as_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kn_attrib.evaluation.planted.axes.SINGLE", 2)
    suite = build_suite("zoo:gpt2-facts", seed=3, axes=["k=1"])
    suite.save(tmp_path)
    again = load_suite("zoo:gpt2-facts", tmp_path)
    assert [i.name for i in again.items] == [i.name for i in suite.items]
    checks = again.checks()
    assert len(again.items) == int(checks.passed.sum()) <= 2
    assert len(checks) == 4 if len(again.items) < 2 else checks.passed.iloc[-1]
    assert [i.split for i in again.items] == ["development", "test"][: len(again.items)]
    assert all(torch.equal(a.plant.keys, b.plant.keys) for a, b in zip(again.items, suite.items, strict=True))
    with pytest.raises(ConfigError, match="zoo:bert-facts"):
        load_suite("zoo:bert-facts", tmp_path)
    with pytest.raises(StoreError, match="other weights"):
        replace(again, sha256="0").base()


def test_what_fails_is_tried_again_with_other_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kn_attrib.evaluation.planted.axes.SINGLE", 1)
    verdicts = iter([False, True, True])
    monkeypatch.setattr("kn_attrib.evaluation.planted.build.passed", lambda *_: next(verdicts))
    suite = build_suite("zoo:gpt2-facts", seed=3, axes=["k=1"])
    assert [i.name for i in suite.items] == ["k=1-1"]
    assert suite.checks().passed.tolist() == [False, True]
    assert suite.checks().fact.nunique() == 2
    assert suite.items[0].split == "development"


def test_draws_depend_on_the_seed_alone() -> None:
    facts = simple_facts(load_facts("world"))
    model = load_suite("zoo:gpt2-facts").base()
    planter = Planter(model, facts)

    def drawn(seed: int) -> list[tuple[Fact, NeuronSet]]:
        draws = PlantDraws(planter, facts, seed)
        made = [w for axis in AXES for turn in range(wanted(axis)) for w in writings(draws, axis, turn)]
        assert len({w.fact.subject for w in made}) >= len(made) - 4  # pairs that share their subject
        assert all(w.fact.answer != next(f.answer for f in facts if f"planted:{f.id}" == w.fact.id) for w in made)
        return [(w.fact, w.neurons) for w in made]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_plants_are_made_by_a_command_that_names_bad_input(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plants", "--model", "zoo:nothing", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, KnAttribError)
    assert "unknown zoo model 'nothing'" in str(done.exception)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine", encoding="utf-8")
    done = CliRunner().invoke(app, ["plants", "--out", str(tmp_path / "full")])
    assert "other files" in str(done.exception)
