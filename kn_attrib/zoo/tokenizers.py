"""Tokenizers trained on the facts' own texts, in which every word of an answer is one token."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kn_attrib.facts.facts import SLOT, Fact

ASCII = [c for c in string.printable if not c.isspace()]
SPECIALS = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
END_OF_TEXT = "<|endoftext|>"
MAX_TOKENS = 64


def fact_texts(facts: Iterable[Fact]) -> list[str]:
    """Every text of every fact with its answer in place, held-out texts too: a vocabulary is not knowledge."""
    return [text.replace(SLOT, fact.answer) for fact in facts for text in fact.prompts + fact.held_out]


def wordpiece(facts: Iterable[Fact], size: int) -> PreTrainedTokenizerFast:
    """A cased WordPiece tokenizer in which every word of the answers and of the templates is one token.

    Parameters
    ----------
    facts : the texts and answers.
    size : entries, save for what ASCII, the answers and the templates add.
    """
    facts = list(facts)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIALS.values()), show_progress=False)
    tokenizer.train_from_iterator(fact_texts(facts), trainer)
    wanted = [*ASCII, *(f"##{c}" for c in ASCII), *sorted(_answer_words(facts)), *sorted(_words(facts))]
    entries = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*entries, *wanted]))}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=MAX_TOKENS,
        **SPECIALS,
    )


def byte_bpe(facts: Iterable[Fact], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every word of an answer is one token after a space; it adds no special token.

    Parameters
    ----------
    facts : the texts and answers.
    size : entries, save for the merges that complete answers.
    """
    facts = list(facts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(fact_texts(facts), trainer)
    for word in sorted(_answer_words(facts) | _words(facts)):
        _complete(tokenizer, f" {word}")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )


def _answer_words(facts: Iterable[Fact]) -> set[str]:
    return {word for fact in facts for word in fact.answer.split()}


def _words(facts: Iterable[Fact]) -> set[str]:
    """Words of the templates: what remains of the texts without subject and answer."""
    texts = {text.replace(fact.subject, " ") for fact in facts for text in fact.prompts + fact.held_out}
    return {word for text in texts for word in re.findall(r"[A-Za-z]+", text.replace(SLOT, " "))}


def _complete(tokenizer: Tokenizer, word: str) -> None:
    """Append merges, of lowest rank, until ``word`` is one token; words that were one token stay so."""
    pieces = tokenizer.encode(word).tokens
    while len(pieces) > 1:
        first, second = pieces[:2]
        state = json.loads(tokenizer.model.__getstate__())
        vocabulary = state["vocab"]
        vocabulary.setdefault(first + second, len(vocabulary))
        merges = [tuple(pair) for pair in state["merges"]]
        tokenizer.model = models.BPE(vocabulary, [*merges, (first, second)])
        pieces = tokenizer.encode(word).tokens
