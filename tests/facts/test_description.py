"""What a model is given for a fact, token by token."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kn_attrib import Fact, load_facts, load_model
from kn_attrib.facts.description import GivenText, Token, describe_texts
from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.facts.repeats import NOT_HELD_OUT

CAPITAL = "the capital of France is [Y]"


def fact(*prompts: str, held_out: tuple[str, ...] = (), answer: str = "Paris") -> Fact:
    return Fact("capital:France", "capital", "France", answer, prompts, held_out)


def shown(tokens: tuple[Token, ...]) -> str:
    return " ".join(map(str, tokens))


def only(encoder: PromptEncoder, given: Fact) -> GivenText:
    (text,) = describe_texts(encoder, given)
    return text


def test_a_masked_text_is_shown_with_its_masks_and_frame() -> None:
    model, france = load_model("zoo:bert-facts"), load_facts("world")["capital:France"]
    first, *others = describe_texts(model.encoder, france)
    assert first.text == "The capital of France is [Y]."
    assert shown(first.tokens) == "[CLS] The capital of France is [MASK] . [SEP]"
    assert [token.id for token in first.tokens] == list(model.encode(france).prompts[0].input_ids)
    assert (shown(first.answer), first.positions, first.source, first.skipped) == ("Paris", (6,), (), None)
    assert [text.text for text in (first, *others)] == [*france.prompts, *france.held_out]
    assert [text.split for text in (first, *others)] == ["prompts"] * 8 + ["held_out"] * 5


def test_a_causal_text_is_shown_up_to_its_answer() -> None:
    model = load_model("zoo:gpt2-facts")
    argentina = load_facts("world")["capital:Argentina"]
    first, *others = describe_texts(model.encoder, argentina)
    assert shown(first.tokens) == "The Ġcapital Ġof ĠArgentina Ġis"
    assert shown(first.answer) == "ĠBuenos ĠAires"
    assert first.positions == (4, 5)
    assert [token.text for token in first.answer] == [" Buenos", " Aires"]
    left_out = [text for text in others if text.skipped]
    assert all(text.text.count("[Y]") and not text.tokens and not text.answer for text in left_out)
    assert {(text.split, text.skipped.cause) for text in left_out if text.skipped} == {
        ("prompts", "slot in the middle"),
        ("held_out", "slot in the middle"),
    }


def test_an_encoder_decoder_shows_what_each_stack_reads(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    encoder = PromptEncoder(tokenizers["masked"], "encoder-decoder", start=3)
    text = only(encoder, fact(CAPITAL + " ."))
    assert shown(text.source) == "[CLS] the capital of France is [MASK] . [SEP]"
    assert shown(text.tokens) == "[SEP] [CLS] the capital of France is"
    assert (shown(text.answer), text.positions) == ("Paris", (6,))


def test_texts_that_are_left_out_stand_in_their_place(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    texts = (CAPITAL, "[Y] is the capital of France", CAPITAL, "the city of France is [Y]")
    encoder = PromptEncoder(tokenizers["causal"], "causal")
    found = describe_texts(encoder, fact(*texts, held_out=(CAPITAL + "!",)))
    assert [text.text for text in found] == [*texts, CAPITAL + "!"]
    causes = [text.skipped.cause if text.skipped else "" for text in found]
    assert causes == ["", "slot in the middle", "repeated text", "", NOT_HELD_OUT]


def trained(tokenizer: Tokenizer, trainer: trainers.BpeTrainer) -> Tokenizer:
    tokenizer.train_from_iterator(["The capital is Paris", "Question:\nAnswer:\n\tParis  "] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def test_white_space_in_byte_level_tokens_is_seen() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained(tokenizer, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    text = only(PromptEncoder(fast, "causal"), fact("The capital\n[Y]"))
    assert shown(text.tokens) == "<s> The Ġcapital Ċ='\\n'"
    assert [(token.piece, token.text) for token in text.tokens[-2:]] == [("Ġcapital", " capital"), ("Ċ", "\n")]


def test_white_space_in_sentencepiece_tokens_is_seen() -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trained(tokenizer, trainers.BpeTrainer(vocab_size=100, special_tokens=["<s>", "<unk>"]))
    tokenizer.add_tokens([AddedToken("\n", normalized=False), AddedToken("a b", normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    text = only(PromptEncoder(fast, "causal"), fact("The capital\na b [Y]"))
    assert shown(text.tokens) == "<s> ▁The ▁capital '\\n' 'a b'"
