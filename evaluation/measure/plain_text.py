"""Ordinary words as queries: does silencing a fact's neurons harm the model's language as such?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.facts.facts import SLOT, Fact
from kn_attrib.facts.prompts import Text
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import numpy_generator

RELATION = "plain_text"
SENTENCES = 400
"""Most sentences that are taken from facts."""
WORD = re.compile(r"\w+")


def sentences_of(
    pool: Sequence[Candidate], seed: int, n_sentences: int = SENTENCES
) -> list[tuple[str, tuple[str, ...]]]:
    """Held-out sentences of facts with their answers filled in, and what must not be asked for: answer and subject."""
    order = numpy_generator(seed, "sentences").permutation(len(pool))[:n_sentences]
    chosen = [pool[i].held_out[0] for i in order]
    return [(t.text.replace(SLOT, t.fact.answer), (t.fact.answer, t.fact.subject)) for t in chosen]


def plain_texts(
    model: NeuronModel, sentences: Sequence[tuple[str, tuple[str, ...]]], seed: int = 0, n_words: int = 200
) -> tuple[Text, ...]:
    """One word of each sentence as a query, drawn with the seed: its probability given the rest (or what precedes it).

    The position that predicts the word is the answer position, where interventions act. So ``exp`` of the mean minus
    log-probability is the perplexity per token of ordinary text under an intervention (for masked models the
    pseudo-perplexity).

    Parameters
    ----------
    sentences : with the parts of each that are not asked for.
    n_words : most words. Words that the tokenizer does not know are passed over.
    """
    facts = []
    for number, (sentence, without) in enumerate(sentences):
        words = _words(sentence, without)
        if not words:
            continue
        start, end = words[int(numpy_generator(seed, "word", sentence).integers(len(words)))]
        after = sentence[end:] if model.kind == "masked" else ""
        text = sentence[:start] + SLOT + after
        facts.append(Fact(f"{RELATION}:{number}", RELATION, "a word", sentence[start:end], (text,)))
    # Language as such is no answer in a chat.
    return replace(model.encoder, chat=False).encode_all(facts, "prompts").texts[:n_words]


def _words(sentence: str, without: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words are that may be asked for: not the first one, and none of what is left out."""
    hidden = sentence
    for part in without:
        hidden = hidden.replace(part, "\0" * len(part))
    return [match.span() for match in WORD.finditer(hidden) if match.start() > 0]


def given_sentences(texts: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """A user's own sentences.

    Raises
    ------
    ConfigError : there is none.
    """
    found: list[tuple[str, tuple[str, ...]]] = [(text.strip(), ()) for text in texts if text.strip()]
    if not found:
        raise ConfigError("plain_text holds no sentence; give at least one, or leave it out.")
    return found
