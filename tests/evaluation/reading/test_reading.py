"""`read` as a whole: what it measures, on disk, after a stop, and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import output
from kn_attrib import FactSet, NeuronModel
from kn_attrib.errors import ConfigError, FactError, NeuronError
from kn_attrib.evaluation import ReadingResult, read
from kn_attrib.evaluation.reading.reading import Reading, ReadingSettings

Load = Callable[..., NeuronModel]
METHODS = ["activation", "random"]


def reading_of(model: NeuronModel, facts: FactSet, **settings: object) -> ReadingResult:
    return read(model, facts, METHODS, known_share=0, progress=False, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_measures_are_what_they_say(open_model: Load, facts: FactSet, kind: str) -> None:
    model = open_model(kind)
    result = reading_of(model, facts, budget=3, top=2)
    assert set(result.rows.metric) == {
        "answer_in_words", "answer_log_rank", "answer_follows", "subject_in_context"
    }  # fmt: skip
    own = result.neurons[(result.neurons.fact == facts[0].id) & (result.neurons.method == "activation")]
    assert own.place.tolist() == [1, 2, 3]
    assert own.score.is_monotonic_decreasing
    (first, *_) = model.encode(facts[0]).prompts
    for neuron in own.itertuples():
        words = result.words[
            (result.words.layer == neuron.layer)
            & (result.words.neuron == neuron.neuron)
            & (result.words.sign == neuron.sign)
        ]
        assert (first.answer_id in words.word_id.tolist()) == (neuron.answer_rank <= 2)
    share = result.rows[(result.rows.fact == facts[0].id) & (result.rows.method == "activation")]
    assert share.set_index("metric")["value"]["answer_in_words"] == pytest.approx((own.answer_rank <= 2).mean())
    contexts = result.keys.merge(own[["layer", "neuron"]])
    follows = (contexts.word_id == first.answer_id).mean()
    assert share.set_index("metric")["value"]["answer_follows"] == pytest.approx(follows)
    assert len(result.lens) == len(facts) * model.n_layers


def test_it_is_the_same_after_a_stop_and_on_disk(open_model: Load, facts: FactSet, tmp_path: Path) -> None:
    model = open_model("causal")
    whole = reading_of(model, facts)
    seen: list[str] = []

    class Stopped(Reading):
        def measure(self, unit):  # type: ignore[no-untyped-def]
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(unit.fact.id)
            return super().measure(unit)

    with pytest.raises(KeyboardInterrupt):
        Stopped(model, facts, METHODS, ReadingSettings(known_share=0), tmp_path / "run", progress=False).run()
    forwards = model.execution.cost.forwards
    result = reading_of(model, facts, folder=tmp_path / "run")
    assert model.execution.cost.forwards - forwards < forwards / 2  # the corpus was not read again
    loaded = ReadingResult.load(tmp_path / "run")
    for name in ReadingResult.frames:
        assert getattr(whole, name).equals(getattr(result, name))
        assert getattr(loaded, name).equals(getattr(result, name))


def test_a_run_does_not_go_on_with_another_corpus(open_model: Load, facts: FactSet, tmp_path: Path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text("Rome is in Italy\n", encoding="utf-8")
    before = ReadingSettings(corpus=str(file))
    file.write_text("Rome is in Spain\n", encoding="utf-8")
    assert ReadingSettings(corpus=str(file)) != before
    result = reading_of(open_model("causal"), facts, corpus=file)
    assert result.manifest["corpus"]["sha256"] == ReadingSettings(corpus=str(file)).corpus_sha256
    assert set(result.keys.context) <= {"Rome is", "Rome is in", "Rome is in Spain"}


def test_neurons_by_name_need_no_known_fact(open_model: Load, facts: FactSet) -> None:
    model = open_model("causal")
    with pytest.raises(FactError, match="knows none of the facts"):
        read(model, facts, METHODS, known_share=1.01, progress=False)
    result = read(model, facts, METHODS, known_share=1.01, neurons="L1:3, L0:5", progress=False)
    assert result.further().index.tolist() == ["L0:5", "L1:3"]
    assert result.rows.empty
    assert "writes" in result.further().columns


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"neurons": "L9:1"}, NeuronError, "does not exist"),
        ({"neurons": "3-17"}, ConfigError, "'3-17' is no neuron"),
        ({"top": 0}, ConfigError, "top is 0"),
        ({"budget": 0}, ConfigError, "budget is 0"),
        ({"budget": 1000}, ConfigError, "budget is 1000"),
        ({"contexts": "masks"}, ConfigError, "is a causal model"),
        ({"contexts": "words"}, ConfigError, "kind of contexts"),
        ({"corpus": "none.txt"}, ConfigError, "cannot read the corpus"),
    ],
)
def test_bad_settings_are_named(
    open_model: Load, facts: FactSet, settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        reading_of(open_model("causal"), facts, **settings)


def test_the_command_reads_a_shipped_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    printed = output(
        "read", "--model", "zoo:gpt2-facts", "--facts", "world", "--relations", "capital", "--limit", "1",
        "--methods", "activation", "--neurons", "L3:17", "--max-tokens", "400", "--out", out,
    )  # fmt: skip
    assert "Neurons asked for" in printed
    assert "L3:17" in printed
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "what they fire on, what they write" in page
    assert page.count("<svg") == 2
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["asked"] == [[3, 17]]
