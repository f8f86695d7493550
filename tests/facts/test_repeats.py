"""Texts of a fact that a model cannot tell apart: used once, and never both to attribute and to evaluate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from kn_attrib import Fact, NeuronModel, load_facts, load_model, score
from kn_attrib.errors import FactError, PromptError
from kn_attrib.evaluation import compare
from kn_attrib.evaluation.measure.known_facts import select_facts
from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Encoding, Kind, Split, causes
from kn_attrib.facts.repeats import NOT_HELD_OUT, REPEATED
from kn_attrib.scoring.score import SkippedPromptWarning

CAPITAL = "the capital of France is [Y]"
CITY = "the city of France is [Y]"


def fact(*prompts: str, held_out: tuple[str, ...] = (), answer: str = "Paris") -> Fact:
    return Fact("capital:France", "capital", "France", answer, prompts, held_out)


def encoded(tokenizer: Any, kind: Kind, given: Fact, split: Split) -> Encoding:
    start = 0 if kind == "encoder-decoder" else None
    return PromptEncoder(tokenizer, kind, start).encode_all([given], split)


def left(encoding: Encoding) -> tuple[list[str], list[tuple[str, str]]]:
    """Texts that are used, and those that are not, with their causes."""
    return [text.text for text in encoding.texts], [(s.text, s.cause) for s in encoding.skipped]


def uncased(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same words whatever the case of the text's letters (its own vocabulary is written with capitals)."""
    proper = [normalizers.Replace(name.lower(), name) for name in ("France", "Paris")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *proper])
    return tokenizer


@pytest.mark.parametrize("end", [".", " .", "!", "\n"])
def test_a_held_out_text_that_differs_after_a_causal_slot_is_no_held_out_text(
    tokenizers: dict[str, PreTrainedTokenizerFast], end: str
) -> None:
    given = fact(CAPITAL, held_out=(CAPITAL + end, CITY))
    encoding = encoded(tokenizers["causal"], "causal", given, "held_out")
    assert left(encoding) == ([CITY], [(CAPITAL + end, NOT_HELD_OUT)])
    (skipped,) = encoding.skipped
    assert f"held-out {CAPITAL + end!r} is the same input for this model as the prompt {CAPITAL!r}" in skipped.reason
    assert "a text may attribute or evaluate, not both" in skipped.reason
    assert left(encoded(tokenizers["causal"], "causal", given, "prompts")) == ([CAPITAL], [])


def test_what_a_masked_model_reads_after_the_slot_tells_texts_apart(
    tokenizers: dict[str, PreTrainedTokenizerFast],
) -> None:
    given = fact(CAPITAL, held_out=(CAPITAL + " .", CAPITAL + "  ", "the  capital of France is [Y]"))
    same = [(text, NOT_HELD_OUT) for text in given.held_out[1:]]
    assert left(encoded(tokenizers["masked"], "masked", given, "held_out")) == ([CAPITAL + " ."], same)


def test_letter_case_tells_texts_apart_where_the_tokenizer_keeps_it(
    tokenizers: dict[str, PreTrainedTokenizerFast],
) -> None:
    given = fact(CAPITAL, held_out=("the capital OF France is [Y]",))
    assert not encoded(tokenizers["masked"], "masked", given, "held_out").skipped
    assert causes(encoded(uncased(tokenizers["masked"]), "masked", given, "held_out").skipped) == {NOT_HELD_OUT: 1}


@pytest.mark.parametrize("split", ["prompts", "held_out"])
def test_a_repeated_text_is_counted_once(tokenizers: dict[str, PreTrainedTokenizerFast], split: Split) -> None:
    texts = (CAPITAL, CITY, CAPITAL + ".", CAPITAL)
    given = fact(*texts) if split == "prompts" else fact("France is [Y]", held_out=texts)
    encoding = encoded(tokenizers["causal"], "causal", given, split)
    assert left(encoding) == ([CAPITAL, CITY], [(CAPITAL + ".", REPEATED), (CAPITAL, REPEATED)])
    assert f"also of its {split!r}; it is counted once" in encoding.skipped[0].reason


def test_prompts_that_cannot_be_asked_take_no_held_out_text_away(
    tokenizers: dict[str, PreTrainedTokenizerFast],
) -> None:
    given = fact("[Y] is the capital of France", held_out=(CAPITAL, "[Y] is the city of France"))
    encoding = encoded(tokenizers["causal"], "causal", given, "held_out")
    assert left(encoding) == ([CAPITAL], [("[Y] is the city of France", "slot in the middle")])


def test_texts_of_two_facts_may_be_the_same(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    two = [fact(CAPITAL), replace(fact(CITY, held_out=(CAPITAL,)), id="other")]
    for split in ("prompts", "held_out"):
        assert not PromptEncoder(tokenizers["causal"], "causal").encode_all(two, split).skipped


def test_encoder_decoders_tell_apart_what_encoder_or_decoder_reads(
    tokenizers: dict[str, PreTrainedTokenizerFast],
) -> None:
    tokenizer = tokenizers["masked"]
    given = fact(CAPITAL, held_out=(CITY, "the  capital of France is [Y]"))
    encoding = encoded(tokenizer, "encoder-decoder", given, "held_out")
    assert left(encoding) == ([CITY], [(given.held_out[1], NOT_HELD_OUT)])


def test_one_warning_says_how_many_prompts_were_left_out(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load_tiny("causal")
    twice = [replace(f, prompts=(*f.prompts, f.prompts[0].rstrip("."))) for f in facts]
    with pytest.warns(SkippedPromptWarning, match=r"4 of 24 prompts were left out \(repeated text: 4\)") as caught:
        scores = score(model, twice, "activation")
    assert len(caught) == 1
    plain = score(model, facts, "activation")
    assert (scores.texts, scores.facts) == (plain.texts, plain.facts)
    assert scores.values.equal(plain.values)


def test_a_comparison_judges_on_what_is_held_out_alone(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load_tiny("causal")
    leaky = [replace(f, held_out=(*f.held_out, f.prompts[0] + "!")) for f in facts]
    settings: dict[str, Any] = {"keep": ("unknown",), "budgets": (1,), "progress": False}
    with pytest.warns(SkippedPromptWarning, match=r"4 of 32 prompts .*\(held-out text is a prompt: 4\)") as caught:
        found = compare(model, leaky, ["random"], **settings)
    assert len(caught) == 1
    clean = compare(model, facts, ["random"], **settings)
    assert found.manifest["facts"]["left_out_texts"] == {NOT_HELD_OUT: 4}
    assert found.facts.held_out.tolist() == clean.facts.held_out.tolist() == [2] * 4
    assert found.rows.value.tolist() == pytest.approx(clean.rows.value.tolist(), nan_ok=True)


def test_a_fact_without_a_held_out_text_left_says_why(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("causal")
    given = fact("[Y] is in France", CAPITAL, held_out=(CAPITAL + ".",))
    with pytest.raises(PromptError, match="is the same input for this model as the prompt"):
        model.answer_probability(given, "held_out")
    with pytest.warns(SkippedPromptWarning, match="1 of 3 prompts"):
        (candidate,) = select_facts(model, FactSet((given,))).candidates
    assert (candidate.status, candidate.held_out) == ("unusable", ())
    assert [s.cause for s in candidate.skipped] == [NOT_HELD_OUT, "slot in the middle"]
    with (
        pytest.warns(SkippedPromptWarning),
        pytest.raises(FactError, match=r"none of the 1 facts .*: 1 without a prompt.*is the same input for this model"),
    ):
        compare(model, [given], ["random"], progress=False)


@pytest.mark.parametrize("name", ["zoo:bert-facts", "zoo:gpt2-facts", "zoo:llama-facts"])
def test_shipped_facts_repeat_no_text(name: str) -> None:
    model, some = load_model(name), load_facts("world").spread(60)
    for split in ("prompts", "held_out"):
        found = causes(model.encoder.encode_all(some, split).skipped)
        assert set(found) <= {"slot in the middle"}
