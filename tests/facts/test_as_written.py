"""Prompts are put to models as they are written: white space, special tokens, punctuation, length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from kn_attrib import Fact, load_model
from kn_attrib.errors import PromptError
from kn_attrib.evaluation.measure.perplexity import perplexity
from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.models.passes import positions_of
from natural import natural_folder

CORPUS = [
    "The capital of France is Paris .",
    "Question: capital?\nAnswer:\nParis",
    "a  b\tc",
    "capital of Japan is Tokyo",
]


def fact(text: str, answer: str = "Paris") -> Fact:
    return Fact("f", "capital", "France", answer, prompts=(text,), held_out=())


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer of GPT-2's kind that begins each text with <s>, as Llama 3's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS * 50, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer of Llama 2's kind: spaces are ▁, and one is put before each text."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator(CORPUS * 50, trainer)
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def written(tokenizer: Any, text: str) -> tuple[list[str], list[str]]:
    """Tokens put to a causal model before its answer, and of the answer."""
    prompts = PromptEncoder(tokenizer, "causal").encode(fact(text), text)
    last = prompts[-1]
    ids = [*last.input_ids, last.answer_id]
    first = len(prompts[0].input_ids)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return tokens[:first], tokens[first:]


@pytest.mark.parametrize("before", ["Answer:\n", "Answer:\t", "a  ", "Answer:\xa0", "Answer:\n\n", "is ", "is"])
def test_a_prompt_and_its_answer_are_the_tokens_of_the_text(byte_level: Any, before: str) -> None:
    prompt, answer = written(byte_level, before + "[Y]")
    joint = byte_level.convert_ids_to_tokens(byte_level(before + "Paris")["input_ids"])
    assert prompt + answer == joint
    read = byte_level.convert_tokens_to_string([*prompt[1:], *answer])
    assert read == before + "Paris"


def test_one_space_goes_with_the_answer_and_other_white_space_stays(byte_level: Any) -> None:
    assert written(byte_level, "The capital of France is [Y]")[1][0].startswith("Ġ")
    prompt, answer = written(byte_level, "Answer:\n[Y]")
    assert prompt[-1].endswith("Ċ")
    assert not answer[0].startswith("Ġ")


def test_a_special_token_that_the_text_brings_along_is_not_added_again(byte_level: Any) -> None:
    assert written(byte_level, "<s>The capital of France is [Y]") == written(byte_level, "The capital of France is [Y]")


@pytest.mark.parametrize("text", ["The capital of France is [Y]", "<s>The capital of France is [Y]"])
def test_the_subject_is_found_behind_a_token_that_the_text_brought_along(byte_level: Any, text: str) -> None:
    encoder = PromptEncoder(byte_level, "causal")
    (prompt, *_) = encoder.encode(fact(text), text)
    span = encoder.subject_span(prompt)
    assert span is not None
    tokens = byte_level.convert_ids_to_tokens(prompt.input_ids)[slice(*span)]
    assert byte_level.convert_tokens_to_string(tokens).strip() == "France"


def test_masked_texts_may_bring_their_frame_along(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["masked"]
    encoder = PromptEncoder(tokenizer, "masked")
    bare = "France has [Y] ."
    frame = tokenizer(bare.replace("[Y]", tokenizer.mask_token))["input_ids"]
    front, back = (tokenizer.convert_ids_to_tokens(frame[i]) for i in (0, -1))
    assert {front, back} <= set(tokenizer.all_special_tokens)
    one = fact(bare, "Paris")
    (plain,) = encoder.encode(one, bare)
    for text in (f"{front} {bare} {back}", f"{front} {bare}", f"{bare} {back}"):
        (framed,) = encoder.encode(one, text)
        assert framed.input_ids == plain.input_ids, text


def test_answers_of_sentencepiece_models_are_as_the_model_writes_them(sentencepiece: Any) -> None:
    for text in ("The capital of France is [Y]", "Answer:\n[Y]"):
        prompt, answer = written(sentencepiece, text)
        joint = sentencepiece.convert_ids_to_tokens(sentencepiece(text.replace("[Y]", "Paris"))["input_ids"])
        assert prompt + answer == joint, text
    assert written(sentencepiece, "The capital of France is [Y]")[1][0].startswith("▁")


@pytest.mark.parametrize("after", [".", "。", "।", "؟", "…", "”", " »", "–", ")…", "!?", ""])
def test_punctuation_of_any_script_may_follow_the_slot(byte_level: Any, after: str) -> None:
    assert written(byte_level, f"capital of France is [Y]{after}") == written(byte_level, "capital of France is [Y]")


@pytest.mark.parametrize("after", ["です。", " today", "。です", " 1"])
def test_words_may_not(byte_level: Any, after: str) -> None:
    with pytest.raises(PromptError, match="goes on after the slot"):
        written(byte_level, f"capital of France is [Y]{after}")


SMALL: dict[str, Any] = {"vocab_size": 90, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
TABLES: dict[str, tuple[Any, int | None]] = {
    "bert": (lambda: BertForMaskedLM(BertConfig(**SMALL, max_position_embeddings=20)), 20),
    "roberta": (lambda: RobertaForMaskedLM(RobertaConfig(**SMALL, max_position_embeddings=20, pad_token_id=1)), 18),
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=8, n_layer=1, n_head=2, n_positions=20)), 20),
    "opt": (
        lambda: OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=8, word_embed_proj_dim=8, max_position_embeddings=20)),
        20,
    ),
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**SMALL, max_position_embeddings=20)), None),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_longest_text_is_the_one_that_the_table_of_positions_holds(name: str) -> None:
    make, longest = TABLES[name]
    model = make().eval()
    assert positions_of(model) == longest
    ids = torch.full((1, longest or 30), 5)
    model(input_ids=ids)
    if longest is not None:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 1), 5))


def test_texts_beyond_the_table_are_skipped_though_the_tokenizer_names_no_limit(byte_level: Any) -> None:
    config = GPT2Config(vocab_size=len(byte_level), n_embd=8, n_layer=1, n_head=2, n_positions=20)
    model = load_model((GPT2LMHeadModel(config).eval(), byte_level))
    short, long = "The capital of France is [Y]", "The capital " * 30 + "is [Y]"
    both = Fact("f", "capital", "France", "Paris", prompts=(short, long), held_out=())
    encoding = model.encode(both)
    assert [skipped.cause for skipped in encoding.skipped] == ["too long"]
    assert {prompt.text for prompt in encoding.prompts} == {short}
    with pytest.raises(PromptError, match="expected 2 to 20"):
        perplexity(model, ["The capital " * 30])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("smollm2", "Question: What is the capital of France?\nAnswer:\n[Y]", 0.0140),
        ("gemma3", "<bos>The capital of France is [Y]", 0.0841),
    ],
)
def test_natural_models_answer_what_was_written(name: str, text: str, expected: float) -> None:
    model = load_model(natural_folder(name))
    assert float(model.answer_probability(fact(text))) == pytest.approx(expected, abs=6e-5)
