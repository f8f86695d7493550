"""``kn-attrib facts --model``: which facts a model knows; and what is said of facts that nobody can judge."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import output, raise_from, run
from kn_attrib import Fact, FactSet, load_facts, load_model
from kn_attrib.cli import known
from kn_attrib.errors import FactError
from kn_attrib.evaluation.measure.known_facts import select_facts

MODEL = "zoo:gpt2-facts"


@pytest.fixture(scope="module")
def facts() -> FactSet:
    """Known facts, one with a wrong answer, one that has nothing to be judged on, and one with two answers."""
    world = load_facts("world")
    france, italy, spain = (world[f"capital:{country}"] for country in ("France", "Italy", "Spain"))
    currency = world["currency:Japan"]
    wrong = replace(italy, id="capital:wrong", answer="Berlin")
    return FactSet((france, wrong, replace(italy, held_out=()), replace(spain, alternatives=("Paris",)), currency))


@pytest.fixture
def file(facts: FactSet, tmp_path: Path) -> Path:
    facts.save(tmp_path / "facts.jsonl")
    return tmp_path / "facts.jsonl"


def test_each_fact_has_a_line_with_what_a_comparison_would_make_of_it(facts: FactSet, file: Path) -> None:
    text = output("facts", "--facts", file, "--model", MODEL)
    assert "2 of 5 facts can be judged on zoo:gpt2-facts\n" in text
    assert re.search(r"\nfact +answer +status +correct +p prompts +p held out\n", text)
    frame = select_facts(load_model(MODEL), facts).to_frame()
    assert list(frame.status) == ["used", "unknown", "unusable", "ambiguous", "used"]
    for row in frame.itertuples():
        p_held_out = f"{row.p_held_out:.2f}" if row.status == "used" else "–"
        line = f"{row.fact} {row.answer} {row.status} {row.correct:.2f} {row.p_prompts:.2f} {p_held_out}\n"
        assert line in text
    assert "unknown: the model does not know the answer" in text
    assert "leaking" not in text
    assert "1 fact without held-out text, which cannot be judged: capital:Italy. Add 'held_out'" in text
    assert text.startswith("capital:France: France → Paris\nzoo:gpt2-facts, causal")
    assert "by relation" not in text


def test_json_holds_all_that_is_known_of_every_fact(file: Path, facts: FactSet) -> None:
    found = json.loads(output("facts", "--facts", file, "--model", MODEL, "--json"))
    assert [row["fact"] for row in found["known"]] == [fact.id for fact in facts]
    assert 0 < found["known"][0]["p_held_out"] < 1
    assert found["known"][1]["p_held_out"] is None
    assert found["without_held_out"] == ["capital:Italy"]
    assert found["texts"][0]["text"] == facts[0].prompts[0]


def test_one_fact_alone_is_asked_too(file: Path) -> None:
    text = output("facts", "--facts", file, "--model", MODEL, "--fact", "capital:Italy")
    assert "0 of 1 fact can be judged" in text
    assert "held_out: none, so that the fact cannot be judged" in text
    assert "held_out: none, so that" in output("facts", "--facts", file, "--fact", "capital:Italy")


def test_many_facts_are_counted_by_relation(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_LISTED", 4)
    monkeypatch.setattr(known, "FIRST", 2)
    text = output("facts", "--facts", file, "--model", MODEL)
    assert "What zoo:gpt2-facts knows, by relation\nrelation facts used unusable unknown ambiguous correct\n" in text
    assert "capital 4 1 1 1 1 0.75\ncurrency 1 1 0 0 0 1.00\n" in text
    assert "2 of 5 facts can be judged on zoo:gpt2-facts, the first 2\n" in text
    assert "\ncapital:wrong" in text
    assert "\ncurrency:Japan" not in text


def test_facts_without_held_out_text_are_told_without_a_model_too(file: Path, facts: FactSet, tmp_path: Path) -> None:
    assert "1 fact without held-out text, which cannot be judged: capital:Italy." in output("facts", "--facts", file)
    facts[:1].save(tmp_path / "whole.jsonl")
    assert "held-out text" not in output("facts", "--facts", tmp_path / "whole.jsonl")


CAUSES = {
    "capital:wrong": r"1 unknown: the model's first choice is another word .*see kn-attrib facts --model",
    "capital:Italy": r"1 without held-out text \(add 'held_out'",
    "capital:Spain": "1 ambiguous: several answers are right",
}


@pytest.mark.parametrize("fact", CAUSES)
def test_a_comparison_without_a_fact_says_what_to_do(fact: str, facts: FactSet, tmp_path: Path) -> None:
    FactSet((facts[fact],)).save(tmp_path / "one.jsonl")
    result = run("compare", "--facts", tmp_path / "one.jsonl", "--model", MODEL, "--out", tmp_path / "run")
    with pytest.raises(FactError, match=f"none of the 1 facts can be judged on zoo:gpt2-facts: {CAUSES[fact]}"):
        raise_from(result)
    assert not (tmp_path / "run" / "unfinished").exists()


def test_several_causes_are_counted_apart(facts: FactSet, tmp_path: Path) -> None:
    middle = Fact("m", "r", "France", "Paris", ("[Y] is it.",), ("Still [Y] is it.",))
    FactSet((*facts[1:4], middle)).save(tmp_path / "some.jsonl")
    result = run("compare", "--facts", tmp_path / "some.jsonl", "--model", MODEL, "--out", tmp_path / "run")
    said = (
        r": 1 unknown: .*; 1 without held-out text .*; 1 ambiguous: .*; 1 without a prompt or .*first text left out: "
    )
    with pytest.raises(FactError, match=said):
        raise_from(result)
