"""Factor × factor designs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kn_attrib import Comparison, FactSet, NeuronModel, compare
from kn_attrib.errors import ConfigError, MethodError, StoreError
from kn_attrib.evaluation import Factor, Grid, compare_grid
from kn_attrib.evaluation.records.folder import check_folder
from kn_attrib.methods import IntegratedGradients

SETTINGS: dict[str, Any] = {"keep": ("unknown",), "budgets": (3,), "controls": (), "dropout": (), "progress": False}
FACTORS = [Factor("integrated_gradients.steps", (2, 8)), Factor("threshold", (0.1, 0.5))]


@pytest.fixture(scope="module")
def model(session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny("masked", "float32")


@pytest.fixture(scope="module")
def grid(model: NeuronModel, module_facts: FactSet) -> Grid:
    return compare_grid(model, module_facts, ["integrated_gradients", "activation"], FACTORS, **SETTINGS)


def test_every_combination_is_a_comparison(grid: Grid, model: NeuronModel, module_facts: FactSet) -> None:
    assert len(grid.manifest["combinations"]) == 4
    alone = compare(model, module_facts, [IntegratedGradients(steps=8)], threshold=0.5, **SETTINGS)
    rows = grid.rows[(grid.rows["integrated_gradients.steps"] == "8") & (grid.rows.threshold == "0.5")]
    rows = rows[rows.method == "integrated_gradients"]
    own = alone.rows[alone.rows.method == "integrated_gradients"]
    assert np.allclose(rows.value, own.value, atol=1e-5)
    assert rows.n_neurons.tolist() == own.n_neurons.tolist()


def test_main_effects_by_hand(grid: Grid) -> None:
    found = grid.effects()
    assert found.factor.tolist() == ["integrated_gradients.steps"] * 2 + ["threshold"] * 4
    assert found.method.tolist() == ["integrated_gradients"] * 4 + ["activation"] * 2
    rows = grid.rows.query(
        "method == 'integrated_gradients' and selection == 'refined' and neurons == 'method' and group == 'target' "
        "and metric == 'relative_change' and intervention == 'suppress'"
    )
    # One relation: the mean over facts, of the mean over the other factor.
    by_level = rows.groupby("threshold").value.mean()
    own = found[(found.factor == "threshold") & (found.method == "integrated_gradients")].set_index("level")
    assert own.loc["0.1", "mean"] == pytest.approx(by_level["0.1"])
    assert own.loc["0.5", "mean"] == pytest.approx(by_level["0.5"])
    assert own.loc["0.5", "difference"] == pytest.approx(by_level["0.5"] - by_level["0.1"])
    assert np.isnan(own.loc["0.1", "difference"])
    assert own.loc["0.5", "n"] == 4


def test_the_page_and_the_files(grid: Grid, tmp_path: Path) -> None:
    html = grid.report(grid.save(tmp_path) / "report.html").read_text(encoding="utf-8")
    assert "4 combinations of integrated_gradients.steps (2, 8), threshold (0.1, 0.5)." in html
    assert html.count("<svg") == 1
    loaded = Grid.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.rows, grid.rows)
    pd.testing.assert_frame_equal(loaded.effects(), grid.effects())
    with pytest.raises(StoreError, match="holds no grid"):
        Grid.load(tmp_path / "nowhere")


def test_a_grid_goes_on(model: NeuronModel, module_facts: FactSet, tmp_path: Path, grid: Grid) -> None:
    methods = ["integrated_gradients", "activation"]
    compare_grid(model, module_facts, methods, FACTORS, folder=tmp_path, **SETTINGS)
    done = tmp_path / "combinations" / "integrated_gradients.steps=2,threshold=0.1"
    before = (done / "rows.parquet").stat().st_mtime_ns
    assert Comparison.load(done).complete
    again = compare_grid(model, module_facts, methods, FACTORS, folder=tmp_path, **SETTINGS)
    assert (done / "rows.parquet").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(again.rows, grid.rows)


def test_a_method_with_other_parameters_is_another_grid(
    model: NeuronModel, module_facts: FactSet, tmp_path: Path
) -> None:
    """Factors do not name all that a method is: its other parameters tell grids apart, too."""
    factors = [Factor("threshold", (0.1, 0.5))]
    few, many = ["integrated_gradients(steps=2)"], ["integrated_gradients(steps=8)"]
    done = compare_grid(model, module_facts, few, factors, folder=tmp_path, **SETTINGS)
    with pytest.raises(StoreError, match="holds another run"):
        compare_grid(model, module_facts, many, factors, folder=tmp_path, **SETTINGS)
    pd.testing.assert_frame_equal(Grid.load(tmp_path).rows, done.rows)
    anew = compare_grid(model, module_facts, many, factors, folder=tmp_path, overwrite=True, **SETTINGS)
    pd.testing.assert_frame_equal(anew.rows, compare_grid(model, module_facts, many, factors, **SETTINGS).rows)
    assert not anew.rows.value.equals(done.rows.value)


def test_interventions_as_a_factor(model: NeuronModel, module_facts: FactSet) -> None:
    found = compare_grid(
        model, module_facts, ["activation"], [Factor("interventions", ("suppress", "mean_everywhere"))], **SETTINGS
    )
    assert set(found.rows.intervention) == {"suppress", "mean_everywhere"}
    assert found.effects().level.tolist() == ["suppress", "mean_everywhere"]


def test_bad_grids_are_refused(model: NeuronModel, module_facts: FactSet) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'treshold'. Did you mean 'threshold'"):
        Factor.parse("treshold=0.1")
    with pytest.raises(ConfigError, match="expected NAME=LEVEL"):
        Factor.parse("threshold")
    with pytest.raises(ConfigError, match="expected different ones, at least one"):
        Factor.parse("threshold=")
    with pytest.raises(ConfigError, match="unknown method in --grid 'ablation'"):
        compare_grid(model, module_facts, ["random"], [Factor("ablation.screen", (1,))], **SETTINGS)
    with pytest.raises(MethodError, match="step"):
        compare_grid(
            model, module_facts, ["integrated_gradients"], [Factor("integrated_gradients.step", (1,))], **SETTINGS
        )
    assert Factor.parse("integrated_gradients.rule=gausslegendre,linspace").levels == ("gausslegendre", "linspace")


def test_combinations_of_another_grid_are_not_taken_for_its_own(
    model: NeuronModel, module_facts: FactSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = [Factor("threshold", (0.1, 0.5))]

    def run(overwrite: bool = False, **further: Any) -> Grid:
        settings = SETTINGS | further
        return compare_grid(
            model, module_facts, ["activation"], factors, folder=tmp_path, overwrite=overwrite, **settings
        )

    done: list[object] = []

    def stopped(*given: Any, **settings: Any) -> Comparison:
        if done:
            raise KeyboardInterrupt
        done.append(given)
        return compare(*given, **settings)

    monkeypatch.setattr("kn_attrib.evaluation.comparison.grid.compare", stopped)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert check_folder(tmp_path, overwrite=False) == tmp_path  # the command line may go on
    with pytest.raises(StoreError, match="unfinished run with other settings"):
        run(limit=2)
    monkeypatch.undo()
    first = tmp_path / "combinations" / "threshold=0.1" / "rows.parquet"
    before = first.stat().st_mtime_ns
    whole = run()
    assert first.stat().st_mtime_ns == before
    assert not (tmp_path / "unfinished").exists()
    with pytest.raises(StoreError, match="holds another run"):
        run(limit=2)
    fewer = run(overwrite=True, limit=2)
    assert first.stat().st_mtime_ns != before
    assert fewer.rows.fact.nunique() == 2 < whole.rows.fact.nunique()
