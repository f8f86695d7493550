"""What a comparison gives to others: a leaderboard as JSON, a dataset for Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from typer.testing import CliRunner

from kn_attrib import FactSet, NeuronModel
from kn_attrib.cli import app
from kn_attrib.errors import ConfigError, StoreError
from kn_attrib.evaluation import Comparison, compare
from kn_attrib.evaluation.records.tables import TABLES
from kn_attrib.evaluation.report.export import TEXTS, leaderboard_schema
from kn_attrib.evaluation.report.leaderboard import leaderboard
from small_results import small_comparison

NAMES = ("rows", "facts", "neurons", "agreement")


@pytest.fixture(scope="module")
def model(session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny("masked", "float32")


@pytest.fixture(scope="module")
def comparison(model: NeuronModel, module_facts: FactSet) -> Comparison:
    return compare(
        model, module_facts, ["greedy_ablation", "activation"], budgets=(1, 2), keep=("unknown",), progress=False,
        plain_text=["the secret capital of France is Paris ."],
    )  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    return found


def measure(record: dict[str, Any], method: str, name: str, selection: str) -> dict[str, Any]:
    (own,) = (each for each in record["methods"] if each["method"] == method)
    (found,) = (m for m in own["measures"] if (m["measure"], m["selection"]) == (name, selection))
    return {key: found[key] for key in ("mean", "low", "high", "n")}


def test_the_leaderboard_is_of_its_schema_and_has_the_numbers(comparison: Comparison, tmp_path: Path) -> None:
    schema = leaderboard_schema()
    Draft202012Validator.check_schema(schema)
    record = read(comparison.export_leaderboard(tmp_path / "board.json"))
    Draft202012Validator(schema).validate(record)
    board: Any = leaderboard(comparison)
    found = measure(record, "activation", "relative_change", "k=2")
    ends = [board.loc["activation", f"k=2{end}"] for end in ("", " low", " high")]
    assert [found["mean"], found["low"], found["high"]] == pytest.approx(ends)
    assert found["n"] == 4
    share = measure(record, "activation", "share_of_search", "k=2")
    assert share["mean"] == pytest.approx(board.loc["activation", "k=2 of search"])
    assert share["n"] == 4
    own = record["methods"][1]
    assert own["per_prompt"]["forwards"] == pytest.approx(board.loc["activation", "forwards"])
    assert record["model"]["sha256"] == comparison.manifest["model"]["sha256"]
    assert record["facts"] == {"sha256": comparison.manifest["facts"]["sha256"], "given": 4, "used": 4, "relations": 1}
    assert record["versions"] == comparison.manifest["versions"]
    # The sentences are the user's own.
    assert record["parameters"] == {**json.loads(json.dumps(comparison.manifest["settings"])), "plain_text": 1}
    assert "secret" not in json.dumps(record)


def test_what_is_no_number_is_null(comparison: Comparison, tmp_path: Path) -> None:
    odd = {"a": float("nan"), "b": [float("-inf"), 1.5], "c": {"d": float("inf")}}
    methods = [method | {"params": odd} for method in comparison.manifest["methods"]]
    changed = replace(comparison, manifest=comparison.manifest | {"methods": methods})
    record = read(changed.export_leaderboard(tmp_path / "board.json"))
    Draft202012Validator(leaderboard_schema()).validate(record)
    assert record["methods"][0]["params"] == {"a": None, "b": [None, 1.5], "c": {"d": None}}


def test_the_schema_refuses_what_is_not_a_leaderboard(comparison: Comparison, tmp_path: Path) -> None:
    record = read(comparison.export_leaderboard(tmp_path / "board.json"))
    validator = Draft202012Validator(leaderboard_schema())
    for key in record:
        with pytest.raises(ValidationError):
            validator.validate({name: each for name, each in record.items() if name != key})
    for wrong in ({"version": 2}, {"extra": 1}, {"complete": "yes"}):
        with pytest.raises(ValidationError):
            validator.validate(record | wrong)
    del record["methods"][0]["measures"][0]["low"]
    with pytest.raises(ValidationError, match="'low' is a required property"):
        validator.validate(record)


def test_without_equal_budgets_there_is_no_leaderboard(
    model: NeuronModel, module_facts: FactSet, tmp_path: Path
) -> None:
    amplified = small_comparison(model, module_facts, interventions=("amplify",))
    with pytest.raises(ConfigError, match="suppressed no neurons of equal budgets"):
        amplified.export_leaderboard(tmp_path / "board.json")
    assert list(tmp_path.iterdir()) == []
    card = amplified.export_dataset(tmp_path / "data") / "README.md"
    assert "Equal budgets" not in card.read_text(encoding="utf-8")


def front_of(folder: Path) -> dict[str, Any]:
    """The settings that a card begins with."""
    begin, front, rest = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert begin == ""
    assert rest.startswith("\n# ")
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def test_the_dataset_has_a_card_and_the_tables_without_texts(comparison: Comparison, tmp_path: Path) -> None:
    folder = comparison.export_dataset(tmp_path / "dataset", license="cc-by-4.0")
    front = front_of(folder)
    assert front["license"] == "cc-by-4.0"
    assert [each["config_name"] for each in front["configs"]] == list(NAMES)
    assert [each.get("default", False) for each in front["configs"]] == [True, False, False, False]
    files = [each["data_files"][0]["path"] for each in front["configs"]]
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*")) == sorted(["README.md", *files])
    for name in NAMES:
        table = pd.read_parquet(folder / "data" / f"{name}.parquet")
        documented = [column.name for column in TABLES[f"comparison.{name}"].columns]
        assert table.columns.tolist() == [column for column in documented if column not in TEXTS]
        pd.testing.assert_frame_equal(table, comparison.tables()[name][table.columns], check_dtype=False)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert comparison.verdict() in card
    assert comparison.manifest["facts"]["sha256"] in card
    assert "| `subject` |" not in card
    assert "secret" not in card


def test_the_licence_is_the_users_and_empty_tables_have_types(comparison: Comparison, tmp_path: Path) -> None:
    nothing = replace(comparison, agreement=comparison.agreement[:0].astype(object), neurons=comparison.neurons[:0])
    folder = nothing.export_dataset(tmp_path / "dataset")
    assert "license" not in front_of(folder)
    table = pd.read_parquet(folder / "data" / "agreement.parquet")
    assert table.value.dtype == float
    assert pd.api.types.is_string_dtype(table.fact.dtype)


@pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets: pip install datasets")
def test_datasets_loads_it(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset

    folder = comparison.export_dataset(tmp_path / "dataset", license="mit")
    for name in NAMES:
        loaded = load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == len(comparison.tables()[name])
    default = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert default.column_names == comparison.rows.columns.tolist()
    assert list(default["value"]) == pytest.approx(comparison.rows.value.tolist(), nan_ok=True)


def test_nothing_is_written_over_unasked(comparison: Comparison, tmp_path: Path) -> None:
    board, folder = tmp_path / "board.json", tmp_path / "dataset"
    for _ in range(2):
        comparison.export_leaderboard(board, overwrite=True)
        comparison.export_dataset(folder, overwrite=True)
    before = board.read_bytes()
    with pytest.raises(StoreError, match="exists"):
        comparison.export_leaderboard(board)
    with pytest.raises(StoreError, match="exists and holds other files"):
        comparison.export_dataset(folder)
    assert board.read_bytes() == before


def test_the_command_line_exports(comparison: Comparison, tmp_path: Path) -> None:
    run, board, folder = (tmp_path / name for name in ("run", "board.json", "dataset"))
    comparison.save(run)
    asked = ["report", str(run), "--leaderboard", str(board), "--dataset", str(folder), "--license", "mit"]

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments))

    assert invoke(*asked).exit_code == 0
    assert read(board)["methods"]
    assert front_of(folder)["license"] == "mit"
    (folder / "README.md").unlink()
    board.unlink()
    refused = invoke(*asked)
    assert isinstance(refused.exception, StoreError)
    assert not board.exists()
    assert invoke(*asked, "--overwrite", "--markdown").exit_code == 0
    assert board.exists()
    both = invoke("report", str(run), str(run), "--leaderboard", str(tmp_path / "other.json"))
    assert "2 folders are given; expected one with --leaderboard or --dataset" in str(both.exception)
    alone = invoke("report", str(run), "--license", "mit")
    assert "--license changes nothing without --dataset" in str(alone.exception)
