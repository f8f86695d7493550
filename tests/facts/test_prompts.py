"""From texts to token ids, by ids worked out by hand for the tiny vocabularies."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from kn_attrib import Batch, Fact, NeuronModel
from kn_attrib.errors import PromptError
from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Kind, Prompt, batches

Tokenizers = dict[str, PreTrainedTokenizerFast]


def fact(*prompts: str, answer: str = "Paris") -> Fact:
    return Fact("capital:France", "capital", "France", answer, prompts or ("the capital of France is [Y].",))


def encode(tokenizers: Tokenizers, kind: Kind, given: Fact) -> Prompt:
    (prompt,) = PromptEncoder(tokenizers[kind], kind).encode(given, given.prompts[0])
    return prompt


def test_masked_prompts_hold_one_mask_where_the_answer_belongs(tokenizers: Tokenizers) -> None:
    prompt = encode(tokenizers, "masked", fact())
    assert prompt.input_ids == (2, 5, 6, 7, 19, 8, 4, 10, 3)  # [CLS] the capital of France is [MASK] . [SEP]
    assert prompt.position == 6
    assert prompt.answer_id == 15


def test_masked_slots_may_stand_anywhere(tokenizers: Tokenizers) -> None:
    prompt = encode(tokenizers, "masked", fact("[Y] is the capital of France"))
    assert prompt.input_ids == (2, 4, 8, 5, 6, 7, 19, 3)
    assert prompt.position == 1


def test_causal_prompts_end_before_the_answer_which_has_its_leading_space(tokenizers: Tokenizers) -> None:
    prompt = encode(tokenizers, "causal", fact())
    assert prompt.input_ids == (1, 20, 21, 33, 22)  # the Ġcapital Ġof ĠFrance Ġis
    assert prompt.position == 4
    assert prompt.answer_id == 29  # ĠParis, not Paris (11)


def test_without_a_space_before_the_slot_the_answer_has_none(tokenizers: Tokenizers) -> None:
    assert encode(tokenizers, "causal", fact("the capital.[Y]")).answer_id == 11


@pytest.mark.parametrize("end", ["", ".", " !", '."', "\n"])
def test_punctuation_may_follow_a_causal_slot(tokenizers: Tokenizers, end: str) -> None:
    assert encode(tokenizers, "causal", fact("the capital is [Y]" + end)).input_ids == (1, 20, 22)


def test_a_causal_slot_in_the_middle_is_refused(tokenizers: Tokenizers) -> None:
    with pytest.raises(PromptError, match=r"capital:France.*goes on after the slot \[Y\].*must end the text.*Rephrase"):
        encode(tokenizers, "causal", fact("the city [Y] is the capital of France."))


def test_a_causal_text_needs_words_before_its_slot(tokenizers: Tokenizers) -> None:
    with pytest.raises(PromptError, match=r"'\[Y\]\.' has nothing before the slot \[Y\] to predict from"):
        encode(tokenizers, "causal", fact("[Y]."))


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_an_answer_outside_the_vocabulary_is_refused(tokenizers: Tokenizers, kind: Kind) -> None:
    unknown = r"\[UNK\]" if kind == "masked" else r"<\|endoftext\|>"
    with pytest.raises(PromptError, match=rf"not know the answer 'Lutetia' \(it becomes \['{unknown}'\]\); choose"):
        encode(tokenizers, kind, fact(answer="Lutetia"))


def test_a_second_mask_in_the_text_is_refused(tokenizers: Tokenizers) -> None:
    with pytest.raises(PromptError, match="has 2 mask tokens once encoded; expected 1"):
        encode(tokenizers, "masked", fact("the [MASK] of France is [Y]."))


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_a_text_longer_than_the_model_reads_is_refused(tokenizers: Tokenizers, kind: Kind) -> None:
    tokenizers[kind].model_max_length = 4
    with pytest.raises(PromptError, match=r"is \d tokens; expected at most 4, the longest that the model reads"):
        encode(tokenizers, kind, fact())


def test_encode_all_lists_what_it_left_out(tokenizers: Tokenizers) -> None:
    mixed = fact("the capital of France is [Y].", "[Y] is the capital of France.")
    encoding = PromptEncoder(tokenizers["causal"], "causal").encode_all([mixed])
    assert [p.text for p in encoding.prompts] == ["the capital of France is [Y]."]
    (skipped,) = encoding.skipped
    assert (skipped.fact, skipped.text) == ("capital:France", "[Y] is the capital of France.")
    assert "goes on after the slot" in skipped.reason


def test_encode_all_takes_the_split_asked_for(tiny: NeuronModel, facts: FactSet) -> None:
    assert len(tiny.encode(facts)) == 20
    assert {p.text for p in tiny.encode(facts[0], "held_out").prompts} == set(facts[0].held_out)


def test_a_model_refuses_facts_of_which_no_text_is_left(tiny: NeuronModel) -> None:
    with pytest.raises(PromptError, match="does not know the answer 'Lutetia'"):
        tiny.encode(fact(answer="Lutetia"))
    with pytest.raises(PromptError, match="there are no held_out to encode"):
        tiny.encode(fact(), "held_out")


@pytest.mark.parametrize("size", [1, 3, 64])
def test_batches_group_by_length_and_lose_nothing(tiny: NeuronModel, facts: FactSet, size: int) -> None:
    prompts = tiny.encode(facts).prompts
    found = list(batches(prompts, torch.device("cpu"), size))
    assert sorted(i for indices, _ in found for i in indices) == list(range(len(prompts)))
    for indices, batch in found:
        assert len(batch) == len(indices) <= size
        assert batch.prompts == tuple(prompts[i] for i in indices)
        assert batch.input_ids.tolist() == [list(prompts[i].input_ids) for i in indices]
        assert batch.positions.tolist() == [prompts[i].position for i in indices]
        assert batch.answers.tolist() == [prompts[i].answer_id for i in indices]
    if size == 64:
        assert len(found) == len({len(p.input_ids) for p in prompts})


def test_a_batch_of_unequal_lengths_is_refused(tokenizers: Tokenizers) -> None:
    given = fact("the capital is [Y]", "the capital of France is [Y]")
    encoding = PromptEncoder(tokenizers["causal"], "causal").encode_all([given])
    with pytest.raises(PromptError, match=r"prompts of \[3, 5\] tokens; expected at least one, all of equal length"):
        Batch(encoding.prompts)
    with pytest.raises(PromptError, match=r"prompts of \[\] tokens"):
        Batch(())
