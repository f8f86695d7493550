"""`read` as a whole: what it measures, on disk, after a stop, and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from command_line import output
from kn_attrib import Batch, FactSet, NeuronModel, Scorer
from kn_attrib.errors import ConfigError, FactError, NeuronError, PromptError
from kn_attrib.evaluation import ReadingResult, read
from kn_attrib.evaluation.reading.reading import ROW_BYTES, Reading, ReadingSettings
from kn_attrib.models import compute

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


def test_methods_do_not_take_all_memory_while_they_score(
    open_model: Load, facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "free_memory", lambda _: 100 * ROW_BYTES)
    model = open_model("causal")
    assert model.execution.row_budget(model.device) > ROW_BYTES
    seen: list[int] = []

    @dataclass(frozen=True)
    class Budget(Scorer):
        name: ClassVar[str] = "budget"

        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            seen.append(model.execution.row_budget(model.device))
            return torch.zeros(len(batch), model.n_layers, model.n_neurons)

    read(model, facts, [Budget()], known_share=0, progress=False)
    assert seen
    assert max(seen) <= ROW_BYTES
    assert model.execution.limit is None


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


def written(folder: Path, content: bytes) -> Path:
    file = folder / "corpus.txt"
    file.write_bytes(content)
    return file


def test_bad_corpora_are_named(open_model: Load, facts: FactSet, tmp_path: Path) -> None:
    model = open_model("causal")
    with pytest.raises(ConfigError, match="the corpus holds no text"):
        reading_of(model, facts, corpus=written(tmp_path, b"\n  \n"))
    with pytest.raises(ConfigError, match="the corpus holds no context; expected texts of at least two tokens"):
        reading_of(model, facts, corpus=written(tmp_path, b"Rome\n"))
    with pytest.raises(PromptError, match=r"text 2 of the corpus \('is is .* tokens, but .* reads at most"):
        reading_of(model, facts, corpus=written(tmp_path, b"Rome is\n" + b"is " * 40))
    with pytest.raises(ConfigError, match=r"cannot read the corpus .*corpus\.txt: .*expected UTF-8 text"):
        reading_of(model, facts, corpus=written(tmp_path, "Zürich is".encode("latin-1")))
    with pytest.raises(ConfigError, match=rf"cannot read the corpus .*{tmp_path.name}: .*expected UTF-8 text"):
        reading_of(model, facts, corpus=tmp_path)
    with pytest.raises(ConfigError, match=r"contexts is 'prefixes'.*masked model; say 'masks'"):
        reading_of(open_model("masked"), facts, contexts="prefixes")


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_the_result_is_shown(open_model: Load, facts: FactSet, tmp_path: Path, kind: str) -> None:
    model = open_model(kind)
    result = reading_of(model, facts, neurons="L1:3")
    page = result.report(tmp_path / "page")
    assert page == tmp_path / "page" / "report.html"
    assert {path.name for path in (tmp_path / "page" / "figures").iterdir()} == {
        "agreement.svg", "agreement.png", "lens.svg", "lens.png",
    }  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 2
    assert f"Neurons of {model.name} as memories" in text
    assert "Neurons asked for" in text
    # Without a fact there is no lens, and the rest is shown.
    bare = read(model, facts, METHODS, known_share=1.01, neurons="L0:5", progress=False)
    assert bare.report(tmp_path / "bare").read_text(encoding="utf-8").count("<svg") == 1
    assert {path.stem for path in (tmp_path / "bare" / "figures").iterdir()} == {"agreement"}


def test_notebooks_show_agreement_by_layers(open_model: Load, facts: FactSet) -> None:
    result = reading_of(open_model("causal"), facts)
    shown = result._repr_html_()
    assert repr(result) in shown
    for title in ("layers", "neurons", "agreement, own values", "among 10, shuffled values"):
        assert f'<th scope="col" style="text-align: left">{title}</th>' in shown
    n = result.agreement[(result.agreement.measure == "agreement") & (result.agreement["values"] == "own")].n.sum()
    left = 'style="text-align: left"'
    assert f'<th scope="row" {left}>all</th><td {left}>{n}</td>' in shown.replace("\n", "")


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
