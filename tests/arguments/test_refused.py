"""Arguments that contradict one another, can have no effect, or are of another kind: what is said of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from argument_world import SETTINGS, World
from command_line import raise_from, run
from conftest import bert_tokenizer, tiny_bert
from kn_attrib import NeuronScores, NeuronSet, Refinement, compare, load_model, refine, score
from kn_attrib.errors import ConfigError, KnAttribError, ModelError, NeuronError, PromptError
from kn_attrib.evaluation import (
    Factor,
    Planter,
    Recipe,
    Writing,
    benchmark,
    compare_grid,
    plant,
    run_deletion,
    run_injection,
)  # fmt: skip
from kn_attrib.facts.prompts import batches
from kn_attrib.interventions.activations import ablate_layers, scale_rows
from kn_attrib.models.passes import arguments
from kn_attrib.scoring.score import SkippedPromptWarning

Refused = tuple[Callable[[World], Any], str]


@pytest.fixture(scope="module")
def w(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def compared(**settings: Any) -> Callable[[World], Any]:
    return lambda w: compare(w.bert, w.facts, **{"methods": ["activation"], **SETTINGS, **settings})


def gridded(*factors: Factor, method: str = "activation", **settings: Any) -> Callable[[World], Any]:
    return lambda w: compare_grid(w.bert, w.facts, [method], factors, **settings)


def refined(**given: Any) -> Callable[[World], Any]:
    return lambda w: refine(w.one, **given)


def loaded(**given: Any) -> Callable[[World], Any]:
    return lambda w: load_model((tiny_bert(), bert_tokenizer()), **given)


def source(given: Any) -> Callable[[World], Any]:
    return lambda w: load_model(given)


def writing(**given: Any) -> Callable[[World], Any]:
    return lambda w: Writing(w.fact, NeuronSet([(0, 1)]), **given)


def entered(manager: Callable[[World], Any]) -> Callable[[World], Any]:
    def enter(w: World) -> None:
        with manager(w):
            pass

    return enter


def inputs(kind: Any, *names: str) -> Callable[[World], Any]:
    return lambda w: arguments(kind, dict.fromkeys(names, w.batch.input_ids))


DECOYS, OUTSIDE = NeuronSet([(0, 5)]), NeuronSet([(0, 7)])
CONTRADICTIONS: list[Refused] = [
    (refined(threshold=0.2, percentile=90.0), "percentile stands in the place of threshold, which is 0.2; give one"),
    (refined(preset="dai2022", threshold=0.2, percentile=90.0), "percentile stands in the place of threshold"),
    (refined(preset="eleuther", k=3), "refinement k stands in the place of preset"),
    (refined(preset=""), "unknown refinement preset ''"),
    (lambda w: Refinement.preset("dai2022", tresh=1), "unknown setting of a refinement 'tresh'"),
    (loaded(dtype="float64", precision="medium"), "precision is 'medium', .* dtype is 'float64'; leave one"),
    (loaded(dtype="float64", products="onednn"), "products is 'onednn', .* the model is float64 on cpu"),
    (loaded(device=""), "device '' cannot be used"),
    (lambda w: load_model(w.bert), "source is a NeuronModel, which is loaded already"),  # type: ignore[arg-type]
    (source(tiny_bert()), "source is BertForMaskedLM; expected zoo:NAME"),
    (source((tiny_bert(),)), "source is tuple; expected"),
    (source((bert_tokenizer(), tiny_bert())), "source is tuple; expected"),
    (compared(overwrite=True), "overwrite is True, and there is no folder"),
    (compared(curves=True, methods=["activation@heads"]), "curves are of methods that score neurons, and activation@h"),
    (gridded(Factor("threshold", (0.1,)), threshold=0.3), "threshold is 0.3, and a factor of the grid .*; give one"),
    (gridded(Factor("threshold", (0.1,)), tresh=0.3), "unknown setting 'tresh'"),
    (gridded(Factor("threshold", (0.1,)), overwrite=True), "overwrite is True, and there is no folder"),
    (
        gridded(Factor("integrated_gradients.steps", (2, 4)), method="integrated_gradients(steps=8)"),
        "says that steps is 8, and integrated_gradients.steps is a factor of the grid; give one",
    ),
    (lambda w: run_deletion(w.bert, w.facts, ["random"], text=["a b"], sentences=3), "sentences is 3, .* text is"),
    (lambda w: run_injection(w.bert, w.facts, ["random"], overwrite=True), "overwrite is True, and there is no folder"),
    (lambda w: plant(w.bert, w.fact, [(0, 1)], w.facts, recipe=Recipe(mislead=3.0)), "mislead is 3.0, of mis"),
    (writing(misleading=DECOYS), "misleading decoys and mislead, .* give both or neither"),
    (lambda w: Writing(w.fact, DECOYS, mislead=w.other), "misleading decoys and mislead, .* give both or neither"),
    (writing(enough=(NeuronSet([(0, 1)]),), needed=(NeuronSet([(0, 1)]),)), "enough says .*; give one of them"),
    (writing(broad=OUTSIDE), "L?.*0.*7.* is of broad, and not one of its neurons"),
    (writing(enough=(OUTSIDE,)), "is of enough, and not one of its neurons"),
    (lambda w: w.comparison.report(w.new("a.html"), {"nope": None}), "unknown figure 'nope'"),  # type: ignore[dict-item]
    (lambda w: w.scores.to_frame(0), "budget k = 0; expected 1 to 144"),
    (lambda w: w.scores.to_frame(500), "budget k = 500; expected 1 to 144"),
    (lambda w: score(w.bert, w.fact, "activation", max_prompts=-1), "max_prompts is -1; expected at least 1"),
    (lambda w: score(w.gpt2, w.fact, "integrated_gradients(steps=2)", max_prompts=0), "max_prompts is 0"),
    (lambda w: list(batches((), w.bert.device, 0)), "max_prompts is 0; expected at least 1"),
    (lambda w: w.bert.encode(w.fact, "helt_out"), "unknown split 'helt_out'. Did you mean 'held_out'"),  # type: ignore[arg-type]
    (entered(lambda w: w.bert.edited({-1: lambda v: v})), "layer -1 does not exist"),
    (entered(lambda w: ablate_layers(w.bert, [9])), "layer 9 does not exist"),
    (entered(lambda w: scale_rows(w.bert, [NeuronSet()], 0.0, positions="al")), "positions is 'al'"),  # type: ignore[arg-type]
    (inputs("causal", "input_ids", "source_ids"), "inputs are input_ids, source_ids; a causal model reads one of"),
    (inputs("masked", "input_ids", "inputs_embeds"), "a masked model reads one of input_ids, inputs_embeds"),
    (inputs("encoder-decoder", "input_ids"), "reads one of input_ids, inputs_embeds and one of source_ids"),
    (inputs("causal"), "inputs are none"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), CONTRADICTIONS, ids=[said[:50] for _, said in CONTRADICTIONS])
def test_a_contradiction_is_named(call: Callable[[World], Any], said: str, w: World) -> None:
    with pytest.raises((ConfigError, ModelError, NeuronError, PromptError), match=said):
        call(w)


KINDS: list[Refused] = [
    (compared(budgets="5"), "budgets is '5'; expected several"),
    (compared(budgets=5), "budgets is 5; expected several"),
    (compared(budgets=("5",)), "budgets holds '5'; expected a whole number"),
    (compared(threshold="0.2"), "threshold is '0.2'; expected a number"),
    (compared(seed=1.5), "seed is 1.5; expected a whole number"),
    (compared(seed=True), "seed is True; expected a whole number"),
    (compared(normalised="no"), "normalised is 'no'; expected True or False"),
    (compared(curves=1), "curves is 1; expected True or False"),
    (compared(interventions="suppress"), "interventions is 'suppress'; expected several, such as .'suppress'."),
    (compared(keep="unknown"), "keep is 'unknown'; expected several"),
    (compared(controls="random"), "controls is 'random'; expected several"),
    (compared(plain_text="Rome."), "plain_text is 'Rome.'; expected several"),
    (compared(methods="random"), "methods is 'random'; expected several"),
    (compared(refinement=3), "refinement is 3; expected a text"),
    (compared(limit="3"), "limit is '3'; expected a whole number"),
    (compared(dropout=("a",)), "dropout holds 'a'; expected a number"),
    (lambda w: Refinement(threshold="0.2"), "refinement threshold is '0.2'; expected a number"),  # type: ignore[arg-type]
    (lambda w: Refinement(strict="no"), "refinement strict is 'no'; expected True or False"),  # type: ignore[arg-type]
    (lambda w: Refinement(k=2.0), "refinement k is 2.0; expected a whole number"),  # type: ignore[arg-type]
    (lambda w: Factor("threshold", "0.1"), "grid threshold: levels is '0.1'; expected several"),  # type: ignore[arg-type]
    (lambda w: Factor(3, (0.1,)), "a factor's name is 3; expected a text"),  # type: ignore[arg-type]
    (lambda w: run_injection(w.bert, w.facts, ["random"], steps="3"), "steps is '3'; expected a whole number"),  # type: ignore[arg-type]
    (lambda w: run_injection(w.bert, w.facts, "random"), "methods is 'random'; expected several"),
    (lambda w: run_deletion(w.bert, w.facts, ["random"], ratios=0.1), "ratios is 0.1; expected several"),  # type: ignore[arg-type]
    (lambda w: run_deletion(w.bert, w.facts, ["random"], limit=0), "limit is 0; expected at least 1, or None"),
    (lambda w: benchmark(limit="1"), "limit is '1'; expected a whole number"),  # type: ignore[arg-type]
    (lambda w: benchmark("zoo:gpt2-facts"), "models is 'zoo:gpt2-facts'; expected several"),
    (lambda w: Recipe(steps=1.5), "steps is 1.5; expected a whole number"),  # type: ignore[arg-type]
    (loaded(memory_budget="1GB"), "memory_budget is '1GB'; expected a whole number"),
    (loaded(memory_budget=True), "memory_budget is True; expected a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), KINDS, ids=[said[:50] for _, said in KINDS])
def test_a_value_of_another_kind_is_named(call: Callable[[World], Any], said: str, w: World) -> None:
    with pytest.raises(ConfigError, match=said):
        call(w)


def test_numbers_of_numpy_are_numbers() -> None:
    assert Refinement(k=np.int64(3)) == Refinement(k=3)
    assert Refinement(share=np.float64(0.5)).share == 0.5


def test_text_for_encoder_decoders_is_refused(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(w.bert, "kind", "encoder-decoder")
    for given in ({"text": ["a b"]}, {"sentences": 3}):
        with pytest.raises(ConfigError, match="is for perplexity, which encoder-decoders have none of"):
            run_deletion(w.bert, w.facts, ["random"], **given)


def test_contrast_that_cannot_be_asked_is_said(w: World) -> None:
    strange = replace(w.other, prompts=("[Y] " + "in " * 99,))
    with pytest.raises(PromptError, match="tokens"):
        score(w.bert, w.fact, "activation", contrast=[strange])
    some = replace(w.other, prompts=(*strange.prompts, *w.other.prompts))
    with pytest.warns(SkippedPromptWarning, match="contrast: 1 of 4 prompts were left out"):
        found = score(w.bert, w.fact, "activation", contrast=[some])
    assert found.provenance["contrast_sha256"]
    assert w.one.provenance["contrast_sha256"] is None


def test_kept_tokens_of_short_answers_are_saved(w: World, tmp_path: Path) -> None:
    found = score(w.bert, w.fact, "activation", keep_tokens=True)
    found.save(tmp_path / "scores.safetensors")
    assert NeuronScores.load(tmp_path / "scores.safetensors").of_tokens(0).equal(found.values[:1])


def test_decoys_are_written_by_a_planter(w: World) -> None:
    writing = Writing(w.fact, NeuronSet([(0, 1)]), misleading=DECOYS, mislead=w.other)
    planter = Planter(w.bert, w.facts, Recipe(mislead=3.0, value_steps=1, steps=1))
    assert planter.plant([writing]).targets[0].decoys == DECOYS


COMMANDS: list[tuple[str, str]] = [
    ("score --seed 3", "--seed is 3, and integrated_gradients draws nothing at random; leave --seed out"),
    ("score --method random(seed=2) --seed 3", "--seed is 3, and --method says that its seed is 2; give one"),
    ("score --overwrite", "--overwrite changes nothing without --out; give --out too, or leave it out"),
    ("score --fact capital:France --limit 3", "--limit changes nothing beside --fact; leave one of them out"),
    ("facts --chat", "--chat changes nothing without --model"),
    ("facts --overwrite", "--overwrite changes nothing without --out"),
    ("facts --fact capital:France --out x.jsonl", "--out changes nothing beside --fact"),
    ("facts --model zoo:gpt2-facts --out x.jsonl", "--out changes nothing beside --model"),
    ("models --dtype float64", "--dtype changes nothing without --check"),
    ("models --device cpu", "--device changes nothing without --check"),
    ("models --chat", "--chat changes nothing without --check"),
    ("models --ffn-pattern x.{i}", "--ffn-pattern changes nothing without --check"),
    ("compare --grid share=0.1,0.5 --share 0.5 --out OUT", "--share changes nothing beside --grid share=…"),
    ("compare --grid factor=2,3 --factor 2 --out OUT", "--factor changes nothing beside --grid factor=…"),
]


@pytest.mark.parametrize(("command", "said"), COMMANDS)
def test_an_option_that_changes_nothing_is_refused(command: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(KnAttribError, match=said.replace("(", r"\(").replace(")", r"\)")):
        raise_from(run(*command.replace("OUT", str(tmp_path / "run")).split()))
