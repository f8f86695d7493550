"""Prompts as real tokenizers see them: trained here on a few sentences, byte-level, WordPiece and Unigram."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from kn_attrib import Fact, FactSet, NeuronModel, compare, load_model, score
from kn_attrib.errors import PromptError
from kn_attrib.evaluation.measure.known_facts import select_facts
from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.facts.prompts import Kind, causes
from kn_attrib.scoring.score import SkippedPromptWarning

SENTENCES = [
    "The capital of France is Paris.", "The capital of Italy is Rome.", "Paris is the capital of France.",
    "The language of France is French.", "New York lies in America.", "The largest city of America is New York.",
    "The capital:Paris", "The capital:Rome",
] * 20  # fmt: skip
FACT = Fact("f", "capital", "France", "Paris", ("The capital of France is [Y].",))
LONG = Fact("g", "city", "America", "New York", ("The largest city of America is [Y].",))


def byte_level(prefix_space: bool = False, size: int = 320, template: str = "$A", masked: bool = False) -> Any:
    """A byte-level BPE tokenizer; ``template`` says which special tokens it adds."""
    special = ["<s>", "</s>", "<unk>", "<pad>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    if masked:
        from tokenizers import AddedToken

        # As RoBERTa has it: the mask takes the space before it.
        fast.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True, special=True)})
    return fast


def word_piece(lower: bool = False) -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def unigram() -> Any:
    """As SentencePiece tokenizers are: ▁ marks a space, one is put before the text, </s> after it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([s.replace(":", " ") for s in SENTENCES], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        extra_special_tokens=["<extra_id_0>"],
    )  # fmt: skip
    return fast


def queries(tokenizer: Any, kind: Kind, fact: Fact = FACT, text: str | None = None, **more: Any) -> Any:
    return PromptEncoder(tokenizer, kind, **more).encode(fact, text or fact.prompts[0])


def pieces(tokenizer: Any, ids: Any) -> list[str]:
    found: list[str] = tokenizer.convert_ids_to_tokens(list(ids))
    return found


# -- the leading space ------------------------------------------------------------------------------------------------


def test_the_answer_carries_its_leading_space_after_a_space() -> None:
    tokenizer = byte_level()
    (query,) = queries(tokenizer, "causal")
    assert pieces(tokenizer, [query.answer_id]) == ["ĠParis"]
    assert tokenizer.decode([*query.input_ids, query.answer_id]) == "The capital of France is Paris"
    assert pieces(tokenizer, query.input_ids)[-1] == "Ġis"


def test_without_a_space_before_the_slot_it_carries_none() -> None:
    tokenizer = byte_level()
    found = queries(tokenizer, "causal", text="The capital:[Y]")
    assert tokenizer.decode([*found[-1].input_ids, found[-1].answer_id]) == "The capital:Paris"
    assert not pieces(tokenizer, [found[0].answer_id])[0].startswith("Ġ")


def test_an_answer_given_with_its_space_is_the_same_answer() -> None:
    tokenizer = byte_level()
    spaced = Fact("f", "r", "France", " Paris", ("The capital of France is[Y].",))
    assert [(q.input_ids, q.answer_id) for q in queries(tokenizer, "causal", spaced)] == [
        (q.input_ids, q.answer_id) for q in queries(tokenizer, "causal")
    ]


@pytest.mark.parametrize("prefix_space", [True, False])
def test_a_tokenizer_that_puts_a_space_before_every_text(prefix_space: bool) -> None:
    tokenizer = byte_level(prefix_space)
    (query,) = queries(tokenizer, "causal")
    assert pieces(tokenizer, [query.answer_id]) == ["ĠParis"]
    assert pieces(tokenizer, query.input_ids)[0].startswith("Ġ") == prefix_space


def test_pieces_of_a_rare_answer_continue_each_other() -> None:
    tokenizer = byte_level(size=300)
    found = queries(tokenizer, "causal", LONG)
    assert len(found) > 1
    assert tokenizer.decode([*found[-1].input_ids, found[-1].answer_id]).endswith("America is New York")
    for first, second in pairwise(found):
        assert second.input_ids == (*first.input_ids, first.answer_id)


def test_sentencepiece_marks() -> None:
    tokenizer = unigram()
    found = queries(tokenizer, "encoder-decoder", LONG, start=0)
    assert "".join(pieces(tokenizer, [q.answer_id for q in found])) == "▁New▁York"
    assert pieces(tokenizer, found[0].source)[-1] == "</s>"
    assert "<extra_id_0>" in pieces(tokenizer, found[0].source)
    assert pieces(tokenizer, found[0].input_ids) == ["<pad>", "<extra_id_0>"]
    causal = queries(tokenizer, "causal", LONG)
    assert "".join(pieces(tokenizer, [q.answer_id for q in causal])) == "▁New▁York"
    assert "</s>" not in pieces(tokenizer, causal[0].input_ids)


# -- special tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "first", "last"), [("$A", "The", "Ġis"), ("<s> $A", "<s>", "Ġis"), ("<s> $A </s>", "<s>", "Ġis"),
                                    ("$A </s>", "The", "Ġis")]
)  # fmt: skip
def test_a_causal_text_keeps_its_beginning_token_and_never_has_an_end_token(
    template: str, first: str, last: str
) -> None:
    tokenizer = byte_level(template=template)
    (query,) = queries(tokenizer, "causal")
    found = pieces(tokenizer, query.input_ids)
    assert (found[0], found[-1]) == (first, last)
    assert query.position == len(query.input_ids) - 1


def test_a_mask_that_takes_the_space_before_it() -> None:
    tokenizer = byte_level(template="<s> $A </s>", masked=True)
    (query,) = queries(tokenizer, "masked")
    found = pieces(tokenizer, query.input_ids)
    assert found[query.position - 1 : query.position + 2] == ["Ġis", "<mask>", "."]
    assert (found[0], found[-1]) == ("<s>", "</s>")
    assert pieces(tokenizer, [query.answer_id]) == ["ĠParis"]


def test_masks_of_an_answer_of_several_pieces_stand_side_by_side() -> None:
    tokenizer = byte_level(template="<s> $A </s>", masked=True)
    found = queries(tokenizer, "masked", LONG)
    assert len(found) > 1
    assert [q.position - found[0].position for q in found] == list(range(len(found)))
    assert all(q.input_ids[q.position] == tokenizer.mask_token_id for q in found)


# -- case, types, padding, slow tokenizers ----------------------------------------------------------------------------


def test_lower_casing_tokenizers_lower_the_answer_too() -> None:
    lower, cased = word_piece(lower=True), word_piece()
    assert pieces(lower, [queries(lower, "masked")[0].answer_id]) == ["paris"]
    assert pieces(cased, [queries(cased, "masked")[0].answer_id]) == ["Paris"]


def slow_twin(fast: Any, folder: Path) -> BertTokenizerLegacy:
    """The same vocabulary in a tokenizer written in Python."""
    order = sorted(fast.get_vocab(), key=fast.get_vocab().get)
    (folder / "vocab.txt").write_text("\n".join(order) + "\n", encoding="utf-8")
    return BertTokenizerLegacy(str(folder / "vocab.txt"), do_lower_case=False)


@pytest.mark.parametrize("fact", [FACT, LONG], ids=["one token", "several"])
def test_fast_and_slow_tokenizers_agree(tmp_path: Path, fact: Fact) -> None:
    fast = word_piece()
    slow = slow_twin(fast, tmp_path)
    assert (fast.is_fast, slow.is_fast) == (True, False)
    assert queries(fast, "masked", fact) == queries(slow, "masked", fact)


def tiny_gpt2_for(tokenizer: Any) -> NeuronModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=64,
                        initializer_range=0.3)  # fmt: skip
    return load_model((GPT2LMHeadModel(config).eval(), tokenizer), dtype="float64")


def tiny_roberta_for(tokenizer: Any) -> NeuronModel:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, initializer_range=0.3, pad_token_id=3,
    )  # fmt: skip
    return load_model((RobertaForMaskedLM(config).eval(), tokenizer), dtype="float64")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_batches_of_different_lengths_give_the_numbers_of_single_prompts(kind: Kind, side: str) -> None:
    masked = kind == "masked"
    tokenizer = byte_level(template="<s> $A </s>" if masked else "<s> $A", masked=masked)
    tokenizer.padding_side = side
    model = tiny_roberta_for(tokenizer) if masked else tiny_gpt2_for(tokenizer)
    fact = Fact("h", "r", "France", "New York", tuple(f"{'The capital of ' * n}France is [Y]." for n in (1, 2, 3)))
    together = score(model, [fact, FACT], "gradient_x_activation").values
    alone = torch.cat([
        score(model, Fact("f", "r", f.subject, f.answer, (text,)), "gradient_x_activation").values
        for f in (fact, FACT) for text in f.prompts
    ])  # fmt: skip
    assert (together - alone).abs().max() <= 1e-9
    by_hand = []
    for query in model.encode(fact).prompts:
        # Padded by the tokenizer itself, with the attention mask: what we do without.
        width = 4 + len(query.input_ids)
        padded = tokenizer.pad({"input_ids": [list(query.input_ids)]}, padding="max_length", max_length=width,
                               return_tensors="pt")  # fmt: skip
        shift = 4 if side == "left" else 0
        positions = {} if masked else {"position_ids": (padded["attention_mask"].cumsum(-1) - 1).clamp_min(0)}
        with torch.no_grad():
            logits = model.model(**padded, **positions).logits[0, query.position + shift]
        by_hand.append(logits.log_softmax(-1)[query.answer_id])
    single = [float(model.answers(b).logprob[0]) for q in model.encode(fact).prompts for _, b in model.batches([q])]
    assert single == pytest.approx([float(x) for x in by_hand], abs=1e-9)


def test_token_types_of_the_tokenizer_are_those_that_the_model_assumes(
    load_tiny: Callable[..., NeuronModel], facts: FactSet
) -> None:
    model = load_tiny("masked")
    query = model.encode(facts[0]).prompts[0]
    given = model.tokenizer(query.text.replace("[Y]", "[MASK]"), return_tensors="pt")
    assert "token_type_ids" in given
    with torch.no_grad():
        logits = model.model(**given).logits[0, query.position]
    _, batch = next(iter(model.batches([query])))
    assert torch.allclose(model.answers(batch).logprob[0], logits.log_softmax(-1)[query.answer_id], atol=1e-9)


# -- the subject's place ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["The capital of France is [Y].", "France is [Y].", "[Y] is the capital of France."])
def test_subject_spans(text: str, tmp_path: Path) -> None:
    fast = word_piece()
    cases: list[tuple[Any, Kind]] = [(fast, "masked"), (slow_twin(fast, tmp_path), "masked"),
                                     (byte_level(template="<s> $A </s>", masked=True), "masked"),
                                     (unigram(), "encoder-decoder")]  # fmt: skip
    if text.endswith("[Y]."):
        cases += [(byte_level(), "causal"), (byte_level(template="<s> $A </s>"), "causal"), (unigram(), "causal")]
    for tokenizer, kind in cases:
        encoder = PromptEncoder(tokenizer, kind, 0 if kind == "encoder-decoder" else None)
        query = encoder.encode(FACT, text)[0]
        span = encoder.subject_span(query)
        assert span is not None
        ids = (query.source or query.input_ids)[slice(*span)]
        assert tokenizer.decode(ids).strip() == "France", (type(tokenizer), kind)


def test_a_subject_that_is_not_in_the_text_has_no_span() -> None:
    tokenizer = word_piece()
    (query,) = queries(tokenizer, "masked", text="The capital of Italy is [Y].")
    assert PromptEncoder(tokenizer, "masked").subject_span(query) is None


# -- what is left out, and the count ----------------------------------------------------------------------------------


def test_causal_slots_in_the_middle_are_counted(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load_tiny("causal")
    middle = []
    for f in facts:
        texts = (f"[Y] is the capital of {f.subject}.", f"the city [Y] lies in {f.subject}.")
        middle.append(Fact(f.id, f.relation, f.subject, f.answer, (*f.prompts, *texts), f.held_out))
    encoding = model.encode(middle)
    assert causes(encoding.skipped) == {"slot in the middle": 8}
    assert len(encoding.texts) == 20
    with pytest.warns(
        SkippedPromptWarning, match=r"8 of 28 prompts were left out \(slot in the middle: 8\); the first"
    ):
        score(model, middle, "activation")
    frame = select_facts(model, FactSet(tuple(middle))).to_frame()
    assert (frame.skipped == 2).all()
    assert frame.skip_reason.str.contains("goes on after the slot").all()
    found = compare(model, middle, ["random"], keep=("unknown",), budgets=(1,), progress=False)
    assert found.manifest["facts"]["left_out_texts"] == {"slot in the middle": 8}


def test_a_tokenizer_of_another_model_is_named(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("causal")
    other = NeuronModel(model.model, byte_level(), "causal", "mixed up")
    with pytest.raises(PromptError, match=r"gives token id \d+, but the model has \d+ token embeddings; is this"):
        other.encode(FACT)


def test_real_tokenizers_pass_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tiny_gpt2_for(byte_level(template="<s> $A"))
        assert model.answer_probability(LONG).shape == (1,)
