"""Saved things that are damaged, foreign, or not there, and what is said of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from hostile_commands import assert_says, said_by
from kn_attrib import Comparison, FactSet, NeuronModel, NeuronScores, NeuronSet
from kn_attrib.errors import KnAttribError, NeuronError, StoreError
from kn_attrib.evaluation.comparison.grid import Factor, compare_grid
from kn_attrib.evaluation.planted.result import PlantedResult
from kn_attrib.evaluation.planted.suite import load_suite
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.records.journal import Entry, Journal
from kn_attrib.evaluation.report.grid import Grid

Damage = Callable[[Path], object]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def holds(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def says(*keys: Any, value: Any = None, drop: bool = False) -> Damage:
    """Another value in a JSON file, or none."""

    def change(path: Path) -> None:
        record = here = json.loads(path.read_text())
        for key in keys[:-1]:
            here = here[key]
        if drop:
            del here[keys[-1]]
        else:
            here[keys[-1]] = value
        path.write_text(json.dumps(record))

    return change


def table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    return lambda path: change(pd.read_parquet(path)).to_parquet(path, index=False)


M, R, DEEP = "manifest.json", "rows.parquet", b"[" * 100_000
RUNS: list[tuple[str, Damage, str]] = [
    (M, gone, "holds no saved comparison; expected manifest.json"),
    (M, folder, "holds no saved comparison"),
    (M, holds(b""), "is damaged: cannot read .*manifest.json: Expecting value"),
    (M, holds(b"{"), "cannot read .*manifest.json: Expecting property name"),
    (M, cut, "cannot read .*manifest.json"),
    (M, holds(DEEP), "cannot read .*manifest.json: nested too deep"),
    (M, holds(b"1" * 5000), "cannot read .*manifest.json: Exceeds the limit"),
    (M, holds(bytes(range(256))), "cannot read .*manifest.json: 'utf-8' codec"),
    (M, holds("{}".encode("utf-16")), "cannot read .*manifest.json: 'utf-8' codec"),
    (M, holds(b"[]"), "it holds list; expected a JSON object"),
    (M, holds(b"null"), "it holds NoneType; expected a JSON object"),
    (M, holds(b"{}"), "says nothing of 'methods'"),
    (M, holds(b'{"tool": "other"}'), "says nothing of 'methods'"),
    (M, says("methods", drop=True), "says nothing of 'methods'"),
    (M, says("methods", value={}), "'methods' is {}; expected a list"),
    (M, says("methods", value=["random"]), "'methods' is 'random'; expected an object"),
    (M, says("methods", 0, "method", value=3), "'method' is 3; expected another kind of value"),
    (M, says("settings", value=None), "'settings' is None; expected an object"),
    (M, says("settings", "seed", value="0"), "'seed' is '0'; expected another kind"),
    (M, says("settings", "seed", value=True), "'seed' is True; expected another kind"),
    (M, says("complete", value=1), "'complete' is 1; expected another kind"),
    (M, says("model", value="bert"), "'model' is 'bert'; expected an object"),
    (M, says("model", "name", drop=True), "'model' says nothing of 'name'"),
    (M, says("facts", drop=True), "says nothing of 'facts'"),
    (R, gone, "is damaged: cannot read .*rows.parquet: No such file"),
    (R, folder, "cannot read .*rows.parquet: it is a folder"),
    (R, holds(b""), "cannot read .*rows.parquet: .*Run the same command"),
    (R, holds(b"PAR1"), "cannot read .*rows.parquet"),
    (R, cut, "cannot read .*rows.parquet"),
    (R, holds(b"id,value\n1,2\n"), "cannot read .*rows.parquet"),
    (R, table(lambda f: f.drop(columns="value")), "rows.parquet has no column 'value'"),
    (R, table(lambda f: f.rename(columns={"metric": "measure"})), "rows.parquet has no column 'metric'"),
    (R, table(lambda f: f.assign(value="a")), "column 'value' holds .*; expected numbers"),
    (R, table(lambda f: f.assign(value=True)), "column 'value' holds bool; expected numbers"),
    (R, table(lambda f: f.assign(method=1)), "column 'method' holds int64; expected texts"),
    (R, table(lambda f: f.assign(fact=f.fact.where(f.index > 0))), "column 'fact' holds .*; expected texts"),
    (R, table(lambda f: f.iloc[:0]), "nothing is measured yet"),
    ("facts.parquet", table(lambda f: f.drop(columns="status")), "facts.parquet has no column 'status'"),
    ("facts.parquet", table(lambda f: f.assign(prompts="a")), "column 'prompts' holds .*; expected numbers"),
    ("neurons.parquet", table(lambda f: f.drop(columns="layer")), "neurons.parquet has no column 'layer'"),
    ("agreement.parquet", gone, "cannot read .*agreement.parquet"),
    (R, table(lambda f: f.assign(method="other")), "cannot be reported: its tables and its manifest do not belong"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "damage", "said"), RUNS, ids=[f"{file}-{i}" for i, (file, _, _) in enumerate(RUNS)])
def test_a_damaged_comparison(damaged: Path, file: str, damage: Damage, said: str) -> None:
    damage(damaged / "comparison" / file)
    assert_says(said_by("report", damaged / "comparison"), said)


FOREIGN: list[tuple[Callable[[Path], object], str, str]] = [
    (Comparison.load, "benchmark", "holds no comparison|the comparison in .* is damaged"),
    (Comparison.load, "protocol", "the comparison in .* is damaged|holds no comparison"),
    (Comparison.load, "plants", "holds no saved comparison"),
    (Comparison.load, "facts.jsonl", "holds no saved comparison"),
    (Comparison.load, "nowhere", "holds no saved comparison"),
    (PlantedResult.load, "comparison", "holds no benchmark that can be read: .*says nothing of 'models'"),
    (PlantedResult.load, "protocol", "holds no benchmark that can be read"),
    (ProtocolResult.load, "comparison", "holds no run of a protocol; expected what ProtocolResult.save wrote"),
    (ProtocolResult.load, "benchmark", "the run of a protocol in .* is damaged: cannot read .*facts.parquet"),
    (NeuronScores.load, "facts.jsonl", "cannot read scores from .*facts.jsonl"),
    (NeuronScores.load, "plants/gpt2-facts.safetensors", "it says nothing of scores"),
    (NeuronScores.load, "plants", "cannot read scores from .*plants"),
    (NeuronScores.load, "nowhere", "cannot read scores from .*nowhere"),
    (NeuronSet.load, "scores.safetensors", "not a neuron set"),
    (NeuronSet.load, "comparison/manifest.json", "not a neuron set .KeyError"),
    (NeuronSet.load, "comparison", "not a neuron set .IsADirectoryError"),
]


@pytest.mark.parametrize(("load", "place", "said"), FOREIGN, ids=[f"{i}-{case[1]}" for i, case in enumerate(FOREIGN)])
def test_something_else(saved: Path, load: Callable[[Path], object], place: str, said: str) -> None:
    with pytest.raises(KnAttribError, match=said):
        load(saved / place)


NEURONS: list[tuple[bytes, str]] = [
    (b"", "not a neuron set"),
    (b"[]", "not a neuron set"),
    (DEEP, "nested too deep"),
    (b'{"neurons": null}', "'neurons' is NoneType"),
    (b'{"neurons": {"a": 1}}', "'neurons' is dict"),
    (b'{"neurons": "ab"}', "'neurons' is str"),
    (b'{"neurons": [1, 2]}', "not a neuron set"),
    (b'{"neurons": [[1]]}', "expected a pair of integers"),
    (b'{"neurons": [[1, 2, 3]]}', "expected a pair of integers"),
    (b'{"neurons": [[1, 2.0]]}', "expected a pair of integers"),
    (b'{"neurons": [[1, NaN]]}', "expected a pair of integers"),
    (b'{"neurons": [[true, 1]]}', "expected a pair of integers"),
    (b'{"neurons": [["1", 1]]}', "expected a pair of integers"),
    (b'{"neurons": [[0, -1]]}', "is negative; layers and indices count from 0"),
    (b'{"neurons": [[0, ' + b"1" * 5000 + b"]]}", "not a neuron set"),
]


@pytest.mark.parametrize(("content", "said"), NEURONS, ids=[content[:30].decode() for content, _ in NEURONS])
def test_a_damaged_neuron_set(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "neurons.json").write_bytes(content)
    with pytest.raises(NeuronError, match=rf"(?s)neurons\.json.*{said}"):
        NeuronSet.load(tmp_path / "neurons.json")


def scores(record: dict[str, Any] | None = None, drop: str = "", **tensors: Any) -> Damage:
    """Other tensors, or another record, in a file of scores."""

    def change(path: Path) -> None:
        found = NeuronScores.load(path)
        about = {"facts": found.facts, "relations": found.relations, "texts": found.texts, "method": "random",
                 "tokens": found.tokens}  # fmt: skip
        kept = {name: tensor for name, tensor in (load_file(path) | tensors).items() if name != drop}
        save_file(kept, path, metadata={"kn_attrib": json.dumps(about | (record or {}))})

    return change


SCORES: list[tuple[Damage, str]] = [
    (holds(b""), "cannot read scores from"),
    (cut, "cannot read scores from"),
    (holds(b"\xff" * 100), "cannot read scores from"),
    (holds(b"{}"), "cannot read scores from"),
    (scores(drop="values"), "expected 'values' at least"),
    (scores(other=torch.ones(1)), "its tensors are .*other"),
    (scores(values=torch.ones(2, 3)), "its values are .*not .prompt, layer, neuron."),
    (scores(values=torch.ones(2, 3, 4, dtype=torch.int8)), "its values are torch.int8"),
    (scores(values=torch.ones(5, 3, 4)), "it has 2 facts for 5 prompts"),
    (scores(gap=torch.ones(2, 9)), r"its gap is .*\[2, 9\]; expected \[2, 3\]"),
    (scores(capped=torch.ones(2, 3)), "its capped is torch.float32"),
    (scores(token_values=torch.ones(9, 3, 4)), r"its token_values .*expected \[3, 3, 4\]"),
    (scores({"facts": "ab"}), "its 'facts' are no list of texts"),
    (scores({"facts": [1, 2]}), "its 'facts' are no list of texts"),
    (scores({"texts": None}), "its 'texts' are no list of texts"),
    (scores({"method": None}), "its 'method' is None, not of type str"),
    (scores({"params": []}), r"its 'params' is \[\], not of type dict"),
    (scores({"tokens": [1]}), "it has 1 tokens for 2 prompts"),
    (scores({"tokens": [True, 2]}), "its 'tokens' are no list of numbers"),
    (scores({"values": 1}), "it has a field 'values'"),
]


@pytest.mark.parametrize(("damage", "said"), SCORES, ids=range(len(SCORES)))
def test_damaged_scores(damaged: Path, damage: Damage, said: str) -> None:
    path = damaged / "scores.safetensors"
    damage(path)
    with pytest.raises(StoreError, match=rf"cannot read scores from .*{said}|{said}"):
        NeuronScores.load(path)


def weights(drop: str = "", **tensors: torch.Tensor) -> Damage:
    def change(path: Path) -> None:
        found = load_file(path) | {f"k=1-0.{name}": tensor for name, tensor in tensors.items()}
        save_file({name: tensor for name, tensor in found.items() if name != f"k=1-0.{drop}"}, path)

    return change


J, W, P = "gpt2-facts.json", "gpt2-facts.safetensors", ("plants", "k=1-0")
PLANTS: list[tuple[str, Damage, str]] = [
    (J, gone, "unknown planted benchmark of model 'zoo:gpt2-facts'"),
    (J, holds(b"[]"), "it holds list; expected a JSON object"),
    (J, holds(b"{}"), "cannot read plants from .*KeyError"),
    (J, holds(DEEP), "nested too deep"),
    (J, says("plants", value=[]), "cannot read plants from"),
    (J, says("about", value=3), "cannot read plants from"),
    (J, says("about", "model", value="zoo:bert-facts"), "its plants are of 'zoo:bert-facts'"),
    (J, says("about", "seed", drop=True), "not a planted benchmark of .*'seed'"),
    (J, says("about", "items", value=[]), "not a planted benchmark"),
    (J, says("about", "items", "k=1-0", "split", value="train"), "axis and split of 'k=1-0' are 'k=1' and 'train'"),
    (J, says(*P, "neurons", value=[[1, 2], [0, 1]]), "are not in sorted order"),
    (J, says(*P, "neurons", value=[[0, 1], [0, 1]]), "are not in sorted order"),
    (J, says(*P, "neurons", value=[[0, -1]]), "is negative"),
    (J, says(*P, "neurons", value=[[0, 1]]), r"the keys of 'k=1-0' are \[2, 1, 5\]; expected \[1, 1, 5\]"),
    (J, says(*P, "targets", 0, "fact", "answer", value=""), "'answer' is ''; expected a non-empty text"),
    (J, says(*P, "targets", 0, "fact", "new", value=1), "cannot read plants from"),
    (J, says(*P, "targets", 0, "check", value=[]), "cannot read plants from"),
    (J, says(*P, "targets", 0, "check", "left", value="0.1"), "'left' of a check is '0.1'; expected a number"),
    (W, gone, "cannot read .*gpt2-facts.safetensors"),
    (W, cut, "cannot read .*gpt2-facts.safetensors"),
    (W, weights(drop="keys"), "cannot read plants from .*k=1-0.keys"),
    (W, weights(keys=torch.ones(2, 5)), "expected .neuron, path, hidden."),
    (W, weights(values=torch.ones(2, 9)), r"the values of 'k=1-0' are \[2, 9\]; expected \[2, 5\]"),
    (W, weights(biases=torch.ones(2)), r"the biases of 'k=1-0' are \[2\]"),
    (W, weights(keys=torch.ones(2, 1, 5, dtype=torch.int8)), "are torch.int8; expected finite weights"),
    (W, weights(values=torch.full((2, 5), torch.nan)), "expected finite weights"),
]


@pytest.mark.parametrize(("file", "damage", "said"), PLANTS, ids=[f"{f}-{i}" for i, (f, _, _) in enumerate(PLANTS)])
def test_damaged_plants(damaged: Path, file: str, damage: Damage, said: str) -> None:
    damage(damaged / "plants" / file)
    with pytest.raises(KnAttribError, match=rf"(?s){said}"):
        load_suite("zoo:gpt2-facts", damaged / "plants")


G, GRID_ROWS = "grid.json", "grid.parquet"
GRIDS: list[tuple[str, Damage, str]] = [
    (G, gone, "holds no grid; expected grid.json and grid.parquet"),
    (G, holds(b"{"), "cannot read .*grid.json"),
    (G, holds(b"[]"), "it holds list; expected a JSON object"),
    (G, holds(b"{}"), "says nothing of 'factors'"),
    (G, says("methods", value=3), "'methods' is 3; expected a list"),
    (G, says("factors", value={"share": [1]}), "grid.parquet has no column 'share'"),
    (G, says("factors", value={"threshold": 1}), "'threshold' is 1; expected another kind of value"),
    (GRID_ROWS, gone, "cannot read .*grid.parquet: No such file"),
    (GRID_ROWS, cut, "cannot read .*grid.parquet"),
    (GRID_ROWS, holds(b"PAR1" * 9), "cannot read .*grid.parquet"),
    (GRID_ROWS, folder, "it is a folder"),
    (GRID_ROWS, table(lambda rows: rows.drop(columns="value")), "has no column 'value'"),
    (GRID_ROWS, table(lambda rows: rows.assign(value="much")), "column 'value' holds"),
]


@pytest.mark.parametrize(("file", "damage", "said"), GRIDS, ids=[f"{f}-{i}" for i, (f, _, _) in enumerate(GRIDS)])
def test_a_damaged_grid(damaged: Path, file: str, damage: Damage, said: str) -> None:
    damage(damaged / "grid" / file)
    with pytest.raises(StoreError, match=said):
        Grid.load(damaged / "grid")


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [("threshold=0.1/rows.parquet", cut, "is damaged: cannot read .*rows.parquet"),
     ("threshold=0.1/manifest.json", holds(b"[]"), "it holds list; expected a JSON object")],
)  # fmt: skip
def test_a_damaged_combination_of_a_grid(
    damaged: Path,
    load_tiny: Callable[..., NeuronModel],
    facts: FactSet,
    small: dict[str, Any],
    file: str,
    damage: Damage,
    said: str,
) -> None:
    damage(damaged / "grid" / "combinations" / file)
    factors = [Factor("threshold", (0.1, 0.5))]
    with pytest.raises(StoreError, match=said):
        compare_grid(load_tiny("masked"), facts, ["random"], factors, folder=damaged / "grid", **small)


def test_a_grid_of_another_kind_is_not_gone_on_with(
    damaged: Path, load_tiny: Callable[..., NeuronModel], facts: FactSet, small: dict[str, Any]
) -> None:
    holds(b"[]")(damaged / "grid" / G)
    factors = [Factor("threshold", (0.1, 0.5))]
    with pytest.raises(StoreError, match="it holds list; expected a JSON object"):
        compare_grid(load_tiny("masked"), facts, ["random"], factors, folder=damaged / "grid", **small)


UNITS: list[tuple[str, Damage, str]] = [
    ("run.json", holds(b"[]"), "it holds list; expected a JSON object"),
    ("run.json", holds(b"{}"), "holds an unfinished run with other seed"),
    ("unit.json", holds(b"{"), "holds an unfinished run that is damaged: .*Delete .*unit.json"),
    ("unit.safetensors", cut, "holds an unfinished run that is damaged"),
    ("unit.parquet", cut, "holds an unfinished run that is damaged"),
]


@pytest.mark.parametrize(("file", "damage", "said"), UNITS, ids=range(len(UNITS)))
def test_a_damaged_unfinished_run(damaged: Path, file: str, damage: Damage, said: str) -> None:
    damage(damaged / "journal" / "unfinished" / file)
    journal = Journal(damaged / "journal")
    with pytest.raises(StoreError, match=said):
        assert journal.open({"seed": 0}) and journal.get("unit", Entry)  # noqa: PT018  # either says it
    journal.close()


def test_what_is_not_damaged_is_read(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "saved"
    shutil.copytree(saved, copy)
    assert Comparison.load(copy / "comparison").methods == ["random"]
    assert list(Grid.load(copy / "grid").factors) == ["threshold"]
    assert PlantedResult.load(copy / "benchmark").models == ["zoo:gpt2-facts"]
    assert ProtocolResult.load(copy / "protocol").columns == ["method", "metric"]
    assert NeuronScores.load(copy / "scores.safetensors").tokens == (1, 2)
    assert len(NeuronSet.load(copy / "neurons.json")) == 2
    assert [item.axis for item in load_suite("zoo:gpt2-facts", copy / "plants").items] == ["k=1"]
