"""The command line, run in this process on a saved tiny model; once as a program of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from command_line import output, raise_from, run
from kn_attrib import Comparison, NeuronScores, Refinement, list_methods, load_facts, refine_all
from kn_attrib.errors import ConfigError, FactError, ModelError, StoreError
from kn_attrib.evaluation.comparison.effect_stage import Measurement
from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.evaluation.measure.outcomes import Evaluator
from kn_attrib.evaluation.report.figures import FIGURES
from kn_attrib.methods import Random
from kn_attrib.store import read_json, versions

COMMANDS = ("compare", "score", "methods", "models", "facts")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def common(saved_bert: Path, facts_file: Path) -> list[object]:
    """Options that make any run small."""
    return ["--model", saved_bert, "--facts", facts_file]


@pytest.fixture
def small(common: list[object]) -> list[object]:
    """Options of a comparison that takes a second."""
    return [*common, "--keep", "unknown", "--methods", "random,activation", "--budgets", "1,3"]


# -- help, methods, models, facts ------------------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    text = output("--help")
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example(command: str) -> None:
    assert f"Example: kn-attrib {command}" in output(command, "--help")


def test_an_unknown_option_is_refused_with_status_2() -> None:
    result = run("compare", "--modle", "x")
    assert result.exit_code == 2
    assert "No such option: --modle" in result.stderr


def test_methods_lists_everything_about_each() -> None:
    text = output("methods")
    for name in list_methods():
        assert re.search(rf"^{name}\b", text, re.MULTILINE)
    assert "layer_conductance (also layer_integrated_conductance)" in text
    assert Random.summary() in text
    assert "parameters: steps=0, rule='adaptive', tolerance=0.01, objective='prob', max_rows=" in text
    assert "presets: integrated_gradients:dai2022, integrated_gradients:eleuther" in text
    assert "paper: Dai et al. 2022, arXiv 2104.08696" in text
    assert re.search(r"origin: \S+random\.py:\d+", text)


@pytest.mark.usefixtures("registry")
def test_methods_lists_those_of_a_plugin() -> None:
    text = output("methods", "--plugin", EXAMPLES / "weighted_activation.py")
    assert re.search(r"^weighted_activation$", text, re.MULTILINE)
    assert re.search(r"origin: \S+weighted_activation\.py:\d+", text)


def test_models_lists_the_zoo() -> None:
    from kn_attrib.models.shipped import zoo_names, zoo_path

    assert zoo_names(), "no model ships with the package"
    text = output("models")
    for name in zoo_names():
        assert f"zoo:{name}" in text
        assert zoo_path(name).name in text
    assert re.search(r"\d+\.\d%", text)


def test_models_checks_one(saved_bert: Path) -> None:
    text = output("models", "--check", saved_bert)
    for line in (
        "family: bert (BertForMaskedLM), masked",
        "layers: 3",
        "neurons per layer: 48",
        "site: bert.encoder.layer.{i}.output.dense (listed type; Linear, with bias)",
        "neuron vector: act",
        "head: cls.predictions.decoder, with bias, tied to the input embeddings",
        "23 tokens, adds [CLS] [SEP], mask [MASK], keeps case, spaces are no part of tokens",
        "answers: masks: one mask per answer token in the slot",
    ):
        assert line in text
    assert re.search(
        r"^validation: passed: .* to \d\.\de-\d+; one changed neuron moves the logits by", text, re.MULTILINE
    )
    given = output("models", "--check", saved_bert, "--ffn-pattern", "bert.encoder.layer.{i}.output.dense")
    assert "(given as ffn_pattern; Linear" in given


def test_models_says_why_a_model_cannot_be_used(saved_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no modules"):
        raise_from(run("models", "--check", saved_bert, "--ffn-pattern", "bert.{i}"))
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    with pytest.raises(ModelError, match=r"\(ViTModel\) has no masked, causal or encoder-decoder"):
        raise_from(run("models", "--check", tmp_path))


def test_facts_counts_each_relation(facts_file: Path) -> None:
    text = output("facts", "--facts", facts_file)
    assert f"4 facts of 1 relations, sha256 {load_facts(facts_file).digest[:12]}" in text
    assert "capital 4 4 0 0 5 2" in text


def test_facts_takes_answers_of_so_many_words(tmp_path: Path) -> None:
    out = tmp_path / "two.jsonl"
    assert "2 relations" in output("facts", "--relations", "capital,sport", "--answer-words", 2, "--out", out)
    assert {len(fact.answer.split()) for fact in load_facts(out)} == {2}
    with pytest.raises(FactError, match="none of the 174 facts has an answer of 9 words"):
        raise_from(run("facts", "--relations", "capital", "--answer-words", 9))


def test_facts_shows_one_fact(facts_file: Path) -> None:
    text = output("facts", "--facts", facts_file, "--fact", "capital:Italy")
    assert "capital:Italy: Italy → Rome" in text
    assert "the capital city of Italy is [Y]." in text
    assert "held_out:\n the country Italy capital is [Y]." in text


def test_facts_writes_a_file_once(facts_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    arguments = ("facts", "--facts", facts_file, "--relations", "capital", "--out", target)
    assert f"Facts: {target}" in output(*arguments)
    assert load_facts(target) == load_facts(facts_file)
    with pytest.raises(StoreError, match=r"out\.jsonl exists; choose another --out file, or say --overwrite"):
        raise_from(run(*arguments))
    output(*arguments, "--overwrite")


# -- score -----------------------------------------------------------------------------------------------------------


def test_score_prints_neurons_and_writes_scores(common: list[object], saved_bert: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.safetensors"
    text = output("score", *common, "--fact", "capital:France", "--method", "random", "--seed", 3, "--out", target)
    assert f"Random(seed=3) on {saved_bert}\n" in text
    assert re.search(r"capital:France \d+ L\d:\d+ \(", text)
    saved = NeuronScores.load(target)
    assert (saved.method, saved.params, saved.fact_ids) == ("random", {"seed": 3}, ("capital:France",))
    assert tuple(saved.values.shape) == (5, 3, 48)  # noqa: PD011  # a tensor
    with pytest.raises(StoreError, match=r"scores\.safetensors exists; choose another --out file, or say --overwrite"):
        raise_from(run("score", *common, "--method", "random", "--out", target))


def test_score_takes_a_limit_a_preset_and_a_dtype(common: list[object], tmp_path: Path) -> None:
    target = tmp_path / "scores.safetensors"
    text = output("score", *common, "--limit", 2, "--method", "activation", "--refinement", "eleuther",
                  "--dtype", "float64", "--out", target)  # fmt: skip
    saved = NeuronScores.load(target)
    assert saved.provenance["dtype"] == "float64"
    assert saved.fact_ids == ("capital:France", "capital:Italy")
    for name, neurons in refine_all(saved, Refinement.preset("eleuther")).items():
        assert f"{name} {len(neurons)} L" in text


# -- compare ---------------------------------------------------------------------------------------------------------


def test_compare_writes_a_whole_run(small: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    text = output("compare", *small, "--out", out)
    expected = {"rows.parquet", "facts.parquet", "neurons.parquet", "agreement.parquet", "manifest.json", "report.html"}
    assert {p.name for p in out.iterdir()} == expected | {"figures"}
    assert {p.name for p in (out / "figures").iterdir()} == {
        f"{n}.{ext}" for n in ["suppress", "amplify", *FIGURES] for ext in ("svg", "png")
    }
    assert (out / "figures" / "suppress.svg").read_text().lstrip().startswith("<?xml")
    assert (out / "figures" / "suppress.png").read_bytes().startswith(b"\x89PNG")
    assert "</html>" in (out / "report.html").read_text(encoding="utf-8")
    assert "4 facts of 1 relations, 5.0 attribution prompts and 2.0 held-out prompts per fact" in text
    assert "Left out: none." in text
    assert f"Report: {out / 'report.html'}" in text
    loaded = Comparison.load(out)
    assert loaded.methods == ["random", "activation"]
    assert loaded.selections == ["refined", "k=1", "k=3"]
    assert loaded.manifest["model"]["sha256"]


def test_the_report_is_made_again_from_the_rows(small: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = output("compare", *small, "--out", out)
    before = (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    again = output("report", out)
    assert (out / "report.html").read_text(encoding="utf-8") == before
    assert "4 facts of 1 relations" in again
    assert first.rstrip().endswith(f"Report: {out / 'report.html'}")
    with pytest.raises(StoreError, match="holds no saved comparison"):
        raise_from(run("report", tmp_path / "nothing"))


def test_a_grid_from_the_command_line_and_from_a_file(common: list[object], tmp_path: Path) -> None:
    options = [*common, "--keep", "unknown", "--methods", "activation,random", "--budgets", "2", "--controls", "none"]
    text = output("compare", *options, "--grid", "threshold=0.1,0.9", "--out", tmp_path / "grid")
    assert "Main effects" in text
    assert (tmp_path / "grid" / "figures" / "effects.svg").is_file()
    assert "Which settings matter?" in (tmp_path / "grid" / "report.html").read_text(encoding="utf-8")
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"grid": {"threshold": [0.1, 0.9]}}), encoding="utf-8")
    again = output("compare", *options, "--config", settings, "--out", tmp_path / "again")
    assert again.splitlines()[3:6] == text.splitlines()[3:6]
    with pytest.raises(ConfigError, match="unknown setting 'thresh'"):
        raise_from(run("compare", *options, "--grid", "thresh=1", "--out", tmp_path / "bad"))


def test_other_interventions_and_curves(common: list[object], tmp_path: Path) -> None:
    sentences = tmp_path / "plain.txt"
    sentences.write_text("the people of the city lies in the country\n", encoding="utf-8")
    output("compare", *common, "--keep", "unknown", "--methods", "activation,random", "--budgets", "2", "--curves",
           "--interventions", "mean,resample,suppress_everywhere", "--plain-text", sentences,
           "--out", tmp_path / "run")  # fmt: skip
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Set to the mean over other facts of the relation" in html
    assert "Suppression (×0), at all tokens" in html
    assert "<h2>Deletion and insertion</h2>" in html
    rows = Comparison.load(tmp_path / "run").rows
    assert {"mean", "resample", "suppress_everywhere"} <= set(rows.intervention)
    assert "plain_text" in set(rows.group)


def test_compare_refuses_a_folder_that_holds_a_run(small: list[object], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(
        StoreError, match="run exists and holds another run; choose another --out folder, or say --over"
    ):
        raise_from(run("compare", *small, "--out", tmp_path / "run"))
    assert (tmp_path / "run" / "manifest.json").read_text() == "{}"
    output("compare", *small, "--out", tmp_path / "run", "--overwrite")
    assert read_json(tmp_path / "run" / "manifest.json")["complete"] is True


def test_a_finished_run_is_written_over(small: list[object], tmp_path: Path) -> None:
    for seed in ("0", "1"):
        output("compare", *small, "--seed", seed, "--out", tmp_path / "run", "--overwrite")
        assert read_json(tmp_path / "run" / "manifest.json")["settings"]["seed"] == int(seed)
    grid = ["--grid", "threshold=0.1,0.5", "--out", tmp_path / "run", "--overwrite"]
    for seed in ("0", "1"):
        output("compare", *small, "--seed", seed, *grid)
        combinations = read_json(tmp_path / "run" / "grid.json")["combinations"]
        assert [each["manifest"]["settings"]["seed"] for each in combinations] == [int(seed)] * 2


def test_ctrl_c_keeps_what_was_finished(small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kn_attrib.evaluation.comparison.run.MEASURED_AT_ONCE", 3)
    dropout = Measurement.dropout

    def stop(self: Measurement, evaluator: Evaluator, targets: Sequence[Candidate]) -> None:
        if len(targets) == 1:  # the second chunk of four facts
            raise KeyboardInterrupt
        dropout(self, evaluator, targets)

    with monkeypatch.context() as patched:
        patched.setattr(Measurement, "dropout", stop)
        result = run("compare", *small, "--out", tmp_path / "run")
    assert result.exit_code == 130
    rows = pd.read_parquet(tmp_path / "run" / "rows.parquet")
    assert rows.fact.nunique() == 3
    said = f"Interrupted. {len(rows)} rows of 3 facts kept in {tmp_path / 'run'}; the same command goes on from there."
    assert said in result.stderr
    assert not Comparison.load(tmp_path / "run").complete
    other = run("compare", *small, "--out", tmp_path / "run", "--seed", "1")
    assert "Going on" not in other.stderr
    with pytest.raises(StoreError, match="unfinished run with other settings; ask for the same to go on"):
        raise_from(other)
    again = run("compare", *small, "--out", tmp_path / "run")
    assert again.exit_code == 0
    assert f"Going on with the unfinished run in {tmp_path / 'run'}." in again.stderr
    whole = Comparison.load(tmp_path / "run")
    assert whole.complete
    report = tmp_path / "run" / "report.html"
    with pytest.raises(StoreError, match=f"this run is finished: see {report}; --overwrite starts it anew"):
        raise_from(run("compare", *small, "--out", tmp_path / "run"))
    assert whole.rows.fact.nunique() == 4
    assert whole.rows[: len(rows)].equals(rows)
    assert not (tmp_path / "run" / "unfinished").exists()


def test_ctrl_c_before_the_first_row_leaves_a_readable_run(
    small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kn_attrib.evaluation.measure.outcomes.Evaluator.without_ffn", stop)
    result = run("compare", *small, "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert "Interrupted. 0 rows of 0 facts kept" in result.stderr
    assert len(Comparison.load(tmp_path / "run").rows) == 0


@pytest.mark.usefixtures("registry")
def test_compare_takes_a_plugin(common: list[object], tmp_path: Path) -> None:
    plugin = EXAMPLES / "weighted_activation.py"
    output("compare", *common, "--keep", "unknown", "--plugin", plugin, "--methods", "weighted_activation",
           "--out", tmp_path / "run")  # fmt: skip
    assert Comparison.load(tmp_path / "run").methods == ["weighted_activation"]


def test_version_names_what_a_number_may_depend_on() -> None:
    shown = dict(line.split() for line in output("--version").splitlines())
    assert shown == versions()
    assert {"kn_attrib", "torch", "transformers", "captum"} <= set(shown)
