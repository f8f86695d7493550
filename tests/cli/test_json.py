"""``--json``: one document on stdout that holds what the command says, whatever else is printed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers.utils import logging as transformers_logging

from command_line import output, raise_from, run
from kn_attrib import Comparison, NeuronScores, Refinement, get_method, list_methods, load_facts, refine_all
from kn_attrib.cli import doctor, plants, screen
from kn_attrib.cli.modes import Modes
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.planted.build import build_suite
from kn_attrib.evaluation.planted.result import PlantedResult
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.models.shipped import zoo_names


def never(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def document(*arguments: object, status: int = 0) -> dict[str, Any]:
    """What a command prints with ``--json``, which must be one document and nothing else."""
    result = run(*arguments, "--json")
    assert result.exit_code == status, (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout, parse_constant=never)
    return found


@pytest.fixture
def small(saved_bert: Path, facts_file: Path) -> list[object]:
    """Options of a comparison that takes a second."""
    given: list[object] = ["--model", saved_bert, "--facts", facts_file, "--keep", "unknown"]
    return [*given, "--methods", "random,activation", "--budgets", "1,3"]


def test_compare_holds_its_numbers_answers_and_files(small: list[object], tmp_path: Path, saved_bert: Path) -> None:
    found = document("compare", *small, "--out", tmp_path / "run")
    comparison = Comparison.load(tmp_path / "run")
    assert found["model"] == str(saved_bert)
    assert found["facts"]["used"] == 4
    assert found["verdict"] == comparison.verdict()
    board = comparison.leaderboard()
    assert [row["method"] for row in found["leaderboard"]] == list(board.index)
    for row in found["leaderboard"]:
        assert row["k=3"] == pytest.approx(board.loc[row["method"], "k=3"], rel=1e-15)
        assert isinstance(row["forwards"], float)
    assert all(set(each) == {"question", "short", "answer", "verdict"} for each in found["answers"])
    assert len(found["answers"]) == 5
    cell = comparison.cell(method="activation", selection="refined", neurons="method", group="target")
    told = [
        row["mean"] for row in found["effects"]
        if (row["method"], row["neurons"], row["group"]) == ("activation", "method", "target")
    ]  # fmt: skip
    assert told == pytest.approx(cell["mean"].tolist())
    files = found["files"]
    assert all(Path(file).exists() for file in [files["folder"], files["report"], *files["figures"]])


def test_report_holds_one_object_for_each_folder(small: list[object], tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    first = document("compare", *small, "--out", folders[0])
    output("compare", *small, "--seed", 1, "--out", folders[1])
    found = document("report", *folders)["comparisons"]
    assert [each["files"]["folder"] for each in found] == list(map(str, folders))
    assert found[0] == first


def test_a_grid_holds_its_main_effects(small: list[object], tmp_path: Path) -> None:
    found = document("compare", *small, "--grid", "threshold=0.1,0.5", "--out", tmp_path / "run")
    first, second = [row for row in found["effects"] if row["method"] == "activation"]
    assert (first["factor"], first["level"], second["level"]) == ("threshold", "0.1", "0.5")
    assert isinstance(second["difference"], float)
    assert first["difference"] is None  # of a level from itself: nan in the data frame


def test_score_holds_all_refined_neurons(saved_bert: Path, facts_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.safetensors"
    given = ["--model", saved_bert, "--facts", facts_file, "--method", "activation", "--out", out]
    found = document("score", *given, "--refinement", "eleuther")
    scores = NeuronScores.load(out)
    sets = refine_all(scores, Refinement.preset("eleuther"))
    assert max(map(len, sets.values())) > 6  # more than people are shown
    assert [each["fact"] for each in found["facts"]] == list(sets)
    for each in found["facts"]:
        mean = scores.for_fact(each["fact"]).values.mean(0)  # noqa: PD011  # a tensor
        assert {(n["layer"], n["index"]) for n in each["neurons"]} == set(sets[each["fact"]])
        assert all(n["score"] == float(mean[n["layer"], n["index"]]) for n in each["neurons"])
    assert found["files"] == {"scores": str(out)}


def test_methods_are_listed_with_parameters_and_presets() -> None:
    found = {each["name"]: each for each in document("methods")["methods"]}
    assert list(found) == list_methods()
    gradients = found["integrated_gradients"]
    assert gradients["parameters"] == get_method("integrated_gradients").defaults()
    assert set(gradients["presets"]) == {"dai2022", "eleuther"}
    assert "arXiv" in gradients["reference"]
    assert gradients["origin"].rsplit(":", 1)[0].endswith(".py")


def test_models_are_listed_and_checked(saved_bert: Path) -> None:
    found = document("models")["models"]
    assert [each["model"] for each in found] == [f"zoo:{name}" for name in zoo_names()]
    assert all(0 < each["known"]["prompts"] <= 1 and Path(each["folder"]).is_dir() for each in found)
    checked = document("models", "--check", saved_bert)
    assert checked["model"] == str(saved_bert)
    assert checked["description"]["neurons per layer"] == "48"


def test_facts_holds_relations_one_fact_or_its_tokens(facts_file: Path, saved_bert: Path) -> None:
    facts = load_facts(facts_file)
    found = document("facts", "--facts", facts_file)
    assert found["sha256"] == facts.digest
    row = {"relation": "capital", "facts": 4, "answers": 4, "ambiguous": 0, "answer_in_subject": 0}
    assert found["relations"] == [row | {"prompts": 5, "held_out": 2}]
    one = document("facts", "--facts", facts_file, "--fact", facts[1].id)["fact"]
    assert (one["id"], one["answer"], tuple(one["prompts"])) == (facts[1].id, facts[1].answer, facts[1].prompts)
    given = document("facts", "--facts", facts_file, "--model", saved_bert)
    assert given["fact"]["id"] == facts[0].id
    assert given["kind"] == "masked"
    first = given["texts"][0]
    assert first["tokens"][first["positions"][0]]["piece"] == "[MASK]"
    assert first["answer"][0]["piece"] == facts[0].answer


def test_doctor_holds_its_findings_also_where_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.Finding("packages", False, "torch is missing")
    monkeypatch.setattr(doctor, "findings", lambda: iter([doctor.Finding("Python", True, "3"), finding]))
    found = document("doctor", status=1)
    assert found["fine"] is False
    assert found["findings"][1] == {"what": "packages", "fine": False, "text": "torch is missing"}


def test_benchmark_holds_means_and_differences(tmp_path: Path) -> None:
    given = ["--model", "zoo:gpt2-facts", "--methods", "gradient_x_activation,random", "--limit", 1]
    found = document("benchmark", *given, "--max-prompts", 1, "--contrast-facts", 0, "--out", tmp_path / "run")
    result = PlantedResult.load(tmp_path / "run")
    assert len(found["summary"]) == len(result.summary)
    assert found["summary"][0]["mean"] == pytest.approx(result.summary["mean"].iloc[0])
    (test,) = found["pairwise"]
    assert {test["reference"], test["method"]} == {"gradient_x_activation", "random"}
    assert Path(found["files"]["page"]).is_file()


def test_plants_holds_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kn_attrib.evaluation.planted.axes.SINGLE", 1)
    monkeypatch.setattr("kn_attrib.cli.plants.build_suite", partial(build_suite, axes=["k=1"]))
    result = run("plants", "--model", "zoo:gpt2-facts", "--out", tmp_path / "plants", "--json")
    assert "zoo:gpt2-facts k=1-0 " in result.stderr  # progress
    found = json.loads(result.stdout)
    (made,) = found["models"]
    assert made["model"] == "zoo:gpt2-facts"
    assert 0 <= made["passed"] <= made["tried"]
    assert found["files"] == {"folder": str(tmp_path / "plants")}
    # In a process of its own, which is told how much to say.
    transformers_logging.disable_progress_bar()
    again = plants._made_apart("zoo:gpt2-facts", 0, tmp_path / "again", Modes(quiet=True))
    transformers_logging.enable_progress_bar()
    assert again | {"seconds": 0} == made | {"seconds": 0}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("protocol", ["inj", "del"])
def test_protocols_hold_their_cells_and_tables(protocol: str, tmp_path: Path) -> None:
    given: list[object] = ["--relations", "capital", "--limit", 1, "--max-prompts", 1, "--methods", "random"]
    own = ["--steps", 2] if protocol == "inj" else ["--negatives", 2]
    found = document("protocol", protocol, *given, *own, "--ratio", 0.01, "--out", tmp_path / "run")
    result = ProtocolResult.load(tmp_path / "run")
    assert len(found["summary"]) == len(result.summary)
    assert "zoo:gpt2-facts" in found["tables"][0]["title"]
    assert Path(found["files"]["report"]).is_file()


def test_numbers_that_are_not_finite_are_null_and_paths_text() -> None:
    frame = pd.DataFrame({"n": [1, 2], "x": [0.1, np.nan]}, index=pd.Index(["a", "b"], name="method"))
    found = screen.plain(
        {"frame": frame, "inf": -np.inf, "one": np.float32(0.5), 3: (Path("a/b"), None, True, np.int64(7))}
    )
    rows = [{"method": "a", "n": 1, "x": 0.1}, {"method": "b", "n": 2, "x": None}]
    assert found == {"frame": rows, "inf": None, "one": 0.5, "3": ["a/b", None, True, 7]}
    assert type(found["3"][3]) is int
    json.dumps(found, allow_nan=False)


NOISY = """
print("this file talks")
from dataclasses import dataclass
import kn_attrib

@kn_attrib.register("noisy")
@dataclass(frozen=True)
class Noisy(kn_attrib.Scorer):
    '''Talks.'''
    def score(self, model, batch):
        print("so does this method")
        return model.record(batch).abs()
"""


@pytest.mark.usefixtures("registry")
def test_what_a_plug_in_prints_is_no_part_of_it(saved_bert: Path, facts_file: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    given = ["--model", saved_bert, "--facts", facts_file, "--method", "noisy", "--plugin", tmp_path / "noisy.py"]
    result = run("score", *given, "--json")
    assert json.loads(result.stdout)["method"] == "noisy"
    assert "this file talks" in result.stderr
    assert "so does this method" in result.stderr


def test_markdown_excludes_it(tmp_path: Path) -> None:
    for given in (["methods"], ["report", tmp_path], ["protocol", "inj"], ["protocol", "del"]):
        result = run(*given, "--json", "--markdown")
        assert result.stdout == ""
        with pytest.raises(ConfigError, match="--json and --markdown exclude one another"):
            raise_from(result)
