"""``kn-attrib facts --model``: a fact token by token."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import output, raise_from, run
from kn_attrib import Fact, FactSet
from kn_attrib.errors import FactError

CAUSAL = "zoo:gpt2-facts"


def saved(folder: Path, *facts: Fact) -> Path:
    path = folder / "facts.jsonl"
    FactSet(facts).save(path)
    return path


def fact(name: str, *prompts: str, held_out: tuple[str, ...] = ()) -> Fact:
    return Fact(name, "capital", "Argentina", "Buenos Aires", prompts, held_out)


def test_a_fact_is_shown_as_a_masked_model_is_given_it() -> None:
    text = output("facts", "--fact", "capital:France", "--model", "zoo:bert-facts")
    assert "capital:France: France → Paris\nzoo:bert-facts, masked, asked by 'masks': one mask per" in text
    assert " '[Y] is the capital of France.'\n given: [CLS] [MASK] is the capital of France . [SEP]\n" in text
    assert " answer: Paris (id 1564), predicted at token 1, [MASK]\n" in text
    prompts, held_out = text.split("\nheld_out:\n")
    assert prompts.count("given:") == 8
    assert held_out.count("given:") == 5


def test_every_token_of_the_answer_has_its_position_and_what_is_left_out_its_reason(tmp_path: Path) -> None:
    given = fact(
        "f", "The capital of Argentina is [Y].", "[Y] is a capital.", held_out=("The capital of Argentina is [Y]",)
    )
    text = output("facts", "--facts", saved(tmp_path, given), "--model", CAUSAL)
    assert "given: The Ġcapital Ġof ĠArgentina Ġis\n" in text
    assert "answer: ĠBuenos (id 2220), predicted at token 4, Ġis\n" in text
    assert "answer: ĠAires (id 2109), predicted at token 5, ĠBuenos\n" in text
    assert "'[Y] is a capital.'\n left out (slot in the middle): fact 'f': '[Y] is a capital.' goes on after" in text
    assert "held_out:\n 'The capital of Argentina is [Y]'\n left out (held-out text is a prompt): fact 'f'" in text


def test_without_an_id_the_first_fact_that_can_be_asked_is_shown(tmp_path: Path) -> None:
    middle, end = fact("middle", "[Y] is a capital."), fact("end", "The capital of Argentina is [Y].")
    text = output("facts", "--facts", saved(tmp_path, middle, end), "--model", CAUSAL)
    assert "end: Argentina" in text
    assert "middle: Argentina" not in text
    shown = output("facts", "--facts", saved(tmp_path, middle, end), "--model", CAUSAL, "--fact", "middle")
    assert "middle: Argentina" in shown
    with pytest.raises(
        FactError, match=r"none of the 2 facts has a prompt that can be put to zoo:gpt2-facts; kn-attrib"
    ):
        raise_from(run("facts", "--facts", saved(tmp_path, middle, fact("m", "[Y] is.")), "--model", CAUSAL))
