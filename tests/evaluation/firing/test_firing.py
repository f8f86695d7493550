"""`prompt_types` as a whole: what it measures, the answer, on disk, after a stop, and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from command_line import output
from kn_attrib import FactSet, NeuronModel, score
from kn_attrib.errors import ConfigError, FactError
from kn_attrib.evaluation import PromptTypes, load_texts, prompt_types
from kn_attrib.evaluation.firing.firing import Firing, PromptTypesSettings
from kn_attrib.evaluation.firing.groups import DESIGNS, PUBLISHED, UNCONFOUNDED, Grouping
from kn_attrib.evaluation.firing.holes import Hole
from kn_attrib.facts.prompts import Batch
from small_results import FIRING_TEXTS

Load = Callable[..., NeuronModel]
METHODS = ["activation", "random"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(FIRING_TEXTS), encoding="utf-8")
    return path


def types_of(model: NeuronModel, facts: FactSet, texts: Path, **settings: object) -> PromptTypes:
    given = {"known_share": 0, "progress": False, "budget": 2, **settings}
    return prompt_types(model, facts, METHODS, texts=texts, **given)  # type: ignore[arg-type]


def activations(model: NeuronModel, facts: FactSet, holes: Sequence[Hole]) -> torch.Tensor:
    """One by one, as the encoder reads a text of the fact with a slot: ``[text, layer, neuron]``."""
    prompts = [model.encoder.encode(facts[0], hole.text)[0] for hole in holes]
    return torch.stack([model.record(Batch((prompt,), model.device))[0] for prompt in prompts])


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_it_measures_what_it_says(open_model: Load, facts: FactSet, texts: Path, kind: str) -> None:
    model = open_model(kind)
    result = types_of(model, facts, texts)
    fact = facts[0]
    groups = Grouping(load_texts(texts), facts, model.kind, 10, 40, 0).groups(fact)
    scores = score(model, fact, "activation").values.mean(0)
    best = scores.flatten().topk(2).indices
    for design, names in DESIGNS.items():
        for group in names:
            raw = activations(model, facts, groups[design][group]).mean(0)
            cell = result.rows[
                (result.rows.fact == fact.id)
                & (result.rows.method == "activation")
                & (result.rows.design == design)
                & (result.rows.group == group)
            ].set_index(["neurons", "metric"])["value"]
            assert cell["own", "activation"] == pytest.approx(float(raw.flatten()[best].mean()))
            texts_row = result.texts[
                (result.texts.fact == fact.id) & (result.texts.design == design) & (result.texts.group == group)
            ].iloc[0]
            assert texts_row.n == len(groups[design][group])
            assert texts_row.example == groups[design][group][0].text


def test_contrasts_by_hand(open_model: Load, facts: FactSet, texts: Path) -> None:
    result = types_of(open_model("causal"), facts, texts)
    wide = result.rows[result.rows.metric == "standardised"].pivot_table(
        index="fact", columns=["method", "design", "neurons", "group"], values="value"
    )
    found = result.contrasts.set_index(["method", "design", "contrast", "neurons"])["mean"]
    own, others = (wide["activation"][UNCONFOUNDED][neurons] for neurons in ("own", "same layers"))
    both = own["subject and answer"] - own["answer"] - own["subject"] + own["neither"]
    assert found["activation", UNCONFOUNDED, "both together", "own"] == pytest.approx(both.dropna().mean())
    less = (own["subject and answer"] - own["answer"]) - (others["subject and answer"] - others["answer"])
    assert found["activation", UNCONFOUNDED, "the subject", "difference"] == pytest.approx(less.dropna().mean())
    published = wide["random"][PUBLISHED]["own"]
    fact = published["subject and answer"] - published["subject"]
    assert found["random", PUBLISHED, "the fact", "own"] == pytest.approx(fact.dropna().mean())


def test_it_is_the_same_after_a_stop_and_on_disk(open_model: Load, facts: FactSet, texts: Path, tmp_path: Path) -> None:
    model = open_model("causal")
    whole = types_of(model, facts, texts)
    seen: list[str] = []

    class Stopped(Firing):
        def measure(self, unit):  # type: ignore[no-untyped-def]
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(unit.candidate.fact.id)
            return super().measure(unit)

    settings = PromptTypesSettings(known_share=0, budget=2, texts=str(texts))
    with pytest.raises(KeyboardInterrupt):
        Stopped(model, facts, METHODS, settings, tmp_path / "run", progress=False).run()
    result = types_of(model, facts, texts, folder=tmp_path / "run")
    loaded = PromptTypes.load(tmp_path / "run")
    for name in PromptTypes.frames:
        assert getattr(whole, name).equals(getattr(result, name))
        assert getattr(loaded, name).equals(getattr(result, name))
    assert result.manifest["texts"]["sha256"] == load_texts(texts).digest
    texts.write_text("Rome is in Italy\n", encoding="utf-8")
    assert PromptTypesSettings(texts=str(texts)) != PromptTypesSettings(texts=str(texts), texts_sha256="another")


def test_facts_without_texts_are_named(open_model: Load, facts: FactSet, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("Rome is in Italy\nthe city of Italy is Rome\nParis is in France\n", encoding="utf-8")
    model = open_model("masked")
    result = types_of(model, facts, path)
    assert result.manifest["without_texts"] == [facts[2].id, facts[3].id]
    path.write_text("Rome is in Germany\n", encoding="utf-8")
    with pytest.raises(FactError, match="knows no fact with texts of its own"):
        types_of(model, facts, path)
    path.write_text("Italy " * 40 + "Rome\n", encoding="utf-8")
    with pytest.raises(FactError, match="too long"):
        types_of(model, facts, path)


def test_texts_of_the_facts_themselves_are_those_held_out(open_model: Load, facts: FactSet) -> None:
    result = prompt_types(open_model("causal"), facts, METHODS, known_share=0, progress=False)
    assert result.manifest["texts"]["source"] is None
    assert result.manifest["texts"]["n"] == sum(len(fact.held_out) for fact in facts)
    examples = set(result.texts[result.texts.group == "subject and answer"].example)
    assert examples <= {text.split("[Y]")[0] + "[Y]" for fact in facts for text in fact.held_out}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"texts_per_group": 0}, "texts_per_group is 0"),
        ({"words": 0}, "words is 0"),
        ({"reference": 1}, "reference is 1; expected at least 2"),
        ({"budget": 0}, "budget is 0"),
        ({"budget": 48}, "budget is 48; expected fewer than the 48 neurons"),
        ({"texts": "none.txt"}, r"cannot read the texts none\.txt"),
    ],
)
def test_bad_settings_are_named(open_model: Load, facts: FactSet, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prompt_types(open_model("causal"), facts, METHODS, progress=False, **settings)  # type: ignore[arg-type]


def test_the_result_is_shown(open_model: Load, facts: FactSet, texts: Path, tmp_path: Path) -> None:
    result = types_of(open_model("masked"), facts, texts)
    page = result.report(tmp_path / "page").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "Contrasts, unconfounded design" in page
    assert {path.name for path in (tmp_path / "page" / "figures").iterdir()} == {
        "groups.svg", "groups.png", "contrasts.svg", "contrasts.png",
    }  # fmt: skip
    assert "4 facts" in repr(result)
    assert "unconfounded design" in result._repr_html_()
    assert len(result.plot("contrasts")) == 2
    with pytest.raises(ConfigError, match="unknown kind of figure 'lines'"):
        result.plot("lines")  # type: ignore[arg-type]


def test_the_command_runs_on_a_shipped_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    printed = output(
        "prompts", "--model", "zoo:gpt2-facts", "--relations", "capital,continent", "--limit", "4", "--methods",
        "activation", "--texts-per-group", "3", "--out", out,
    )  # fmt: skip
    assert "Do a fact's neurons fire for the fact, or for its words?" in printed
    assert (out / "report.html").exists()
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["experiment"] == "prompts"
