"""Every bad input a user can give, and the words it is answered with."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from kn_attrib import Attribution, Batch, Fact, FactSet, NeuronModel, Scorer, compare, load_facts, load_model, score
from kn_attrib.cli import app
from kn_attrib.errors import ConfigError, FactError, MethodError, ModelError, NeuronError, PromptError, StoreError
from kn_attrib.evaluation import ComparisonInterrupted
from kn_attrib.scoring.score import SkippedPromptWarning

Kinds = type[BaseException]


@pytest.fixture
def bert(load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return load_tiny("masked")


@pytest.fixture
def gpt2(load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return load_tiny("causal")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is not asked (without a network it would be asked six times over 23 seconds)."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def fact(*prompts: str, answer: str = "Paris", name: str = "capital:France") -> Fact:
    return Fact(name, "capital", "France", answer, prompts or ("the capital of France is [Y].",), ("the city is [Y].",))


# -- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def zoo_of_one(tmp_path: Path, saved_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(saved_bert, tmp_path / "zoo" / "bert-tiny")
    monkeypatch.setattr("kn_attrib.models.shipped.MODELS", tmp_path / "zoo")


@pytest.mark.usefixtures("offline", "zoo_of_one")
def test_unknown_model_shows_a_close_zoo_name() -> None:
    with pytest.raises(
        ModelError, match=r"unknown model 'bert-tny'\. Did you mean 'zoo:bert-tiny'\?.*neither a zoo mo"
    ):
        load_model("bert-tny")
    with pytest.raises(ModelError, match=r"unknown zoo model 'bert-tny'\. Did you mean 'bert-tiny'\? Known: bert-tiny"):
        load_model("zoo:bert-tny")


def test_model_without_a_language_model_head(
    make_tiny_bert: Callable[[], tuple[Any, PreTrainedTokenizerFast]], tmp_path: Path
) -> None:
    model, tokenizer = make_tiny_bert()
    model.bert.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    said = r"BertModel\)? has no masked, causal or encoder-decoder language-model head.*a class such as BertForMaskedLM"
    with pytest.raises(ModelError, match=rf"base' \({said}"):
        load_model(tmp_path / "base")
    with pytest.raises(ModelError, match=f"^{said}"):
        load_model((model.bert, tokenizer))


def test_folder_of_a_model_that_is_damaged(saved_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(saved_bert, folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"bert' could not be loaded: Error while deserializing header"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"bert' could not be loaded: .*no file named model\.safetensors"):
        load_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": None}))
    with pytest.raises(ModelError, match=r"bert': its config names no architecture; pass \(model, tokenizer\) instead"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(
        ModelError, match=r"could not be loaded: .*not a valid JSON file.*a folder that save_pretrained"
    ):
        load_model(folder)


def test_unknown_dtype_and_device(saved_bert: Path) -> None:
    with pytest.raises(ModelError, match=r"unknown dtype 'float23'\. Did you mean 'float32'"):
        load_model(saved_bert, dtype="float23")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ModelError, match=f"device '{device}' cannot be used here .*; expected 'cpu', or 'cuda'"):
            load_model(saved_bert, device=device)


# -- settings --------------------------------------------------------------------------------------------------------

BAD_SETTINGS: list[tuple[dict[str, Any], Kinds, str]] = [
    ({"methods": ["integrated_gradient"]}, MethodError, "unknown method 'integrated_gradient'.*mean 'integrated_grad"),
    ({"methods": ["integrated_gradients:dai"]}, MethodError, "unknown preset 'dai'. Did you mean 'dai2022'"),
    ({"methods": ["ablation(objective='logits')"]}, MethodError, "ablation: unknown objective 'logits'.*mean 'logit'"),
    (
        {"methods": ["integrated_gradients(rule='gauslegendre')"]},
        MethodError,
        "unknown rule 'gauslegendre'.*mean 'gausslegendre'",
    ),
    ({"methods": ["layer_integrated_gradients(baseline='maks')"]}, MethodError, "unknown baseline 'maks'.*mean 'mask'"),
    ({"methods": ["random", "random"]}, ConfigError, "methods names the same scorer twice: random, random"),
    ({"methods": []}, ConfigError, "methods is empty; expected at least one"),
    ({"refinement": "dai"}, ConfigError, "unknown refinement preset 'dai'. Did you mean 'dai2022'"),
    ({"keep": ["unknwon"]}, ConfigError, "keep holds 'unknwon'; expected 'unknown', 'ambiguous' or 'leaking'"),
    ({"budgets": [1, 145]}, NeuronError, "budget k = 145; expected 1 to 144, the number of neurons of BertForMaskedLM"),
    ({"budgets": [0]}, NeuronError, "budget k = 0; expected 1 to 144"),
    ({"factor": -1.0}, ConfigError, "factor is -1.0; expected a number of at least 0"),
    (
        {"factor": 3.0, "interventions": ["suppress"]},
        ConfigError,
        "factor is 3.0, which only an amplification",
    ),
    ({"limit": 0}, ConfigError, "limit is 0; expected at least 1"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), BAD_SETTINGS, ids=[str(row[0]) for row in BAD_SETTINGS])
def test_settings_of_a_comparison(
    bert: NeuronModel, facts: FactSet, settings: dict[str, Any], kind: Kinds, message: str
) -> None:
    given: dict[str, Any] = {"methods": ["random"], "progress": False} | settings
    with pytest.raises(kind, match=rf"{message}.*\.$"):
        compare(bert, facts, **given)


def test_unknown_relation(facts: FactSet) -> None:
    with pytest.raises(FactError, match=r"unknown relation 'captal'\. Did you mean 'capital'"):
        facts.of("captal")


def test_budget_larger_than_the_model(bert: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(NeuronError, match="budget k = 145; expected 1 to 144, the number of neurons of the model"):
        score(bert, facts[0], "random").top_k(145)


# -- facts and prompts -----------------------------------------------------------------------------------------------


def test_facts_file_with_a_bad_line(facts_file: Path) -> None:
    lines = facts_file.read_text().splitlines()
    facts_file.write_text("\n".join([lines[0], lines[1].replace('"answer"', '"anwser"')]))
    with pytest.raises(FactError, match=r"facts\.jsonl, line 2: field 'answer' is missing; expected id, relation"):
        load_facts(facts_file)


def test_no_slot_two_slots_no_prompts() -> None:
    with pytest.raises(FactError, match=r"'Paris' holds the slot \[Y\] 0 times; expected exactly once"):
        fact("Paris")
    with pytest.raises(FactError, match=r"holds the slot \[Y\] 2 times; expected exactly once"):
        fact("[Y] [Y]")
    with pytest.raises(FactError, match=r"'prompts' is an empty list; give at least one text with \[Y\]"):
        Fact("a", "r", "s", "o", ())


def test_causal_slot_that_is_not_at_the_end(gpt2: NeuronModel) -> None:
    with pytest.raises(PromptError, match=r"goes on after the slot .* Rephrase it, or use a masked model"):
        score(gpt2, fact("[Y] is the capital of France."), "random")


def test_answer_that_becomes_unk(bert: NeuronModel) -> None:
    with pytest.raises(
        PromptError, match=r"does not know the answer 'Lutetia' \(it becomes \['\[UNK\]'\]\); choose an"
    ):
        score(bert, fact(answer="Lutetia"), "random")


def test_facts_that_cannot_be_asked_are_said_counted_and_skipped(bert: NeuronModel, facts: FactSet) -> None:
    foreign = fact(answer="Lutetia", name="foreign")
    with pytest.warns(
        SkippedPromptWarning, match=r"1 of 21 prompts were left out.*fact 'foreign'.*does not know the answer 'Lutetia'"
    ):
        scores = score(bert, [*facts, foreign], "random")
    assert scores.fact_ids == tuple(f.id for f in facts)
    compared = compare(bert, [*facts, foreign], ["random"], keep=["unknown"], budgets=(), progress=False)
    row = compared.facts.set_index("fact").loc["foreign"]
    assert (row.status, row.skipped) == ("unusable", 2)
    assert "does not know the answer" in row.skip_reason


def test_nothing_left_to_ask(bert: NeuronModel) -> None:
    foreign = fact(answer="Lutetia")
    with pytest.raises(PromptError, match="does not know the answer 'Lutetia'"):
        score(bert, foreign, "random")
    with pytest.raises(FactError, match=r"none of the 1 facts can be judged on .*: 1 without a prompt .*'Lutetia'"):
        compare(bert, [foreign], ["random"], progress=False)


def test_no_fact_is_known(bert: NeuronModel, facts: FactSet) -> None:
    unknown = next(f for f in facts if (bert.answer_probability(f) < 0.3).all())
    with pytest.raises(
        FactError, match=r"none of the 1 facts can be judged on BertForMaskedLM: 1 unknown: the model's first choice"
    ):
        compare(bert, [unknown], ["random"], progress=False)


# -- scorers of other people -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Faulty(Scorer):
    """Returns whatever it is told to."""

    fault: str

    def score(self, model: NeuronModel, batch: Batch) -> Any:
        right = torch.zeros(len(batch), model.n_layers, model.n_neurons)
        listed: Any = right.tolist()
        faults: dict[str, Any] = {
            "nan": right + torch.nan,
            "inf": torch.cat([right[..., 1:], right[..., :1] + torch.inf], -1),
            "shape": right[:, 0],
            "more": torch.cat([right, right]),
            "list": listed,
            "none": None,
            "wrapped": Attribution(listed),
        }
        return faults[self.fault]


Faulty.name = "faulty"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", r"returned \d+ scores that are not finite \(nan or inf\) among \d+; a score must be a finite number"),
        ("inf", "returned 3 scores that are not finite"),
        (
            "shape",
            r"returned scores of shape \(1, 48\); expected a tensor \[prompt, layer, neuron\] of shape \(1, 3, 48\)",
        ),
        ("more", r"returned scores of shape \(2, 3, 48\); expected a tensor .* of shape \(1, 3, 48\)"),
        ("list", r"returned list for scores; expected a tensor \[prompt, layer, neuron\]"),
        ("none", "returned NoneType for scores; expected a tensor"),
        ("wrapped", "returned list for scores; expected a tensor"),
    ],
)
def test_faulty_scorers_are_named(bert: NeuronModel, fault: str, message: str) -> None:
    with pytest.raises(MethodError, match=f"method 'faulty' {message}"):
        score(bert, fact(), Faulty(fault))


# -- places to write to ----------------------------------------------------------------------------------------------


def command(model: Path, facts: Path, out: Path) -> BaseException | None:
    """What a comparison by command line ends with."""
    arguments = [
        "compare",
        "--model",
        model,
        "--facts",
        facts,
        "--keep",
        "unknown",
        "--methods",
        "random",
        "--out",
        out,
    ]
    return CliRunner().invoke(app, [str(a) for a in arguments]).exception


def test_out_folder_with_another_run_or_other_files(saved_bert: Path, facts_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    error = command(saved_bert, facts_file, out)
    assert isinstance(error, StoreError)
    assert str(error) == f"{out} exists and holds other files; choose another --out folder, or say --overwrite."
    (out / "manifest.json").write_text("{}")
    assert "holds another run;" in str(command(saved_bert, facts_file, out))


def test_out_is_a_file(saved_bert: Path, facts_file: Path) -> None:
    error = command(saved_bert, facts_file, facts_file)
    assert isinstance(error, StoreError)
    assert str(error) == f"{facts_file} is a file; expected a folder to write to."


def test_out_cannot_be_made_is_said_before_the_model_is_loaded(facts_file: Path) -> None:
    error = command(Path("no-such-model"), facts_file, facts_file / "run")
    assert isinstance(error, StoreError)
    assert str(error) == f"cannot write to {facts_file / 'run'}: Not a directory; choose another --out folder."


def test_full_disk_leaves_no_manifest_and_no_half_files(
    bert: NeuronModel, facts: FactSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare(bert, facts, ["random"], keep=["unknown"], budgets=(), progress=False)
    written: list[Path] = []
    original = pd.DataFrame.to_parquet

    def fill_up(frame: pd.DataFrame, path: Path, **options: Any) -> None:
        if written:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        original(frame, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fill_up)
    with pytest.raises(
        StoreError, match=r"cannot write .*facts\.parquet: No space left on device.*free space or choose"
    ):
        comparison.save(tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["rows.parquet"]


def test_ctrl_c_gives_what_is_finished(bert: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: object, model: NeuronModel, batch: Batch) -> Tensor:
        if len(batch) > 1:
            raise KeyboardInterrupt
        return model.record(batch)

    monkeypatch.setattr("kn_attrib.methods.Activation.score", stop)
    with pytest.raises(ComparisonInterrupted) as end:
        compare(bert, facts, ["random", "activation"], keep=["unknown"], progress=False)
    assert end.value.comparison.methods == []
    assert set(end.value.comparison.neurons.method) == {"random"}
    assert not end.value.comparison.complete
