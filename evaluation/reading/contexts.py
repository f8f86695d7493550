"""A corpus as a model reads it: prefixes of its texts, or its texts with one token masked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from kn_attrib.errors import ConfigError, PromptError, unknown
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.store import reason_of, shown

Corpus = str | Path | Sequence[str]
Contexts = Literal["auto", "prefixes", "masks"]
CONTEXTS: dict[Contexts, str] = {
    "auto": "prefixes for causal models, masks for masked ones",
    "prefixes": "a text up to a token; the token after it is what comes next",
    "masks": "a text with one token masked, which is what is missing",
}
PLACES = 2**20
"""More than a text has tokens: a context's number is its text's, times this, plus the place of its last token."""
TOKENS_AT_ONCE = 2**11
"""Tokens that go through the model in one pass."""
BUFFER = 2**15
"""Tokens among which passages of one length are looked for, and no context is read twice."""


class Passage(NamedTuple):
    """Tokens that are read in one row, and the contexts in it.

    Attributes
    ----------
    ids : token ids.
    places : tokens at which neurons are looked at.
    numbers : number of each context.
    keys : a hash of each context's tokens, by which equal contexts are known.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    numbers: tuple[int, ...]
    keys: tuple[int, ...]


def kind_of(model: NeuronModel, contexts: Contexts) -> Contexts:
    """What contexts of a model are.

    Raises
    ------
    ConfigError : an unknown word, one that does not go with the model, or an encoder-decoder.
    """
    if contexts not in CONTEXTS:
        raise ConfigError(unknown("kind of contexts", contexts, CONTEXTS))
    own: dict[str, Contexts] = {"causal": "prefixes", "masked": "masks"}
    if model.kind not in own:
        raise ConfigError(
            f"{model.name} is an {model.kind}; expected a causal or a masked model, which reads one text."
        )
    if contexts not in ("auto", own[model.kind]):
        raise ConfigError(
            f"contexts is {contexts!r} ({CONTEXTS[contexts]}), but {model.name} is a {model.kind} model; say "
            f"{own[model.kind]!r} ({CONTEXTS[own[model.kind]]})."
        )
    return own[model.kind]


def texts_of(corpus: Corpus) -> Iterator[str]:
    """The texts of a file (one a line) or of a sequence, one after another; empty ones are passed over.

    Raises
    ------
    ConfigError : the file cannot be read.
    """
    if not isinstance(corpus, str | Path):
        yield from (text.strip() for text in corpus if text.strip())
        return
    try:
        with Path(corpus).open(encoding="utf-8-sig") as file:
            yield from (line.strip() for line in file if line.strip())
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no name of a file
        raise ConfigError(
            f"cannot read the corpus {shown(Path(corpus))}: {reason_of(error)}; expected UTF-8 text, a text a line."
        ) from error


def digest_of(corpus: Corpus) -> str:
    """SHA-256 of a corpus's texts.

    Raises
    ------
    ConfigError : the file cannot be read, or there is no text.
    """
    digest, n = hashlib.sha256(), 0
    for n, text in enumerate(texts_of(corpus), start=1):  # noqa: B007  # the last number is how many there are
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    if not n:
        raise ConfigError("the corpus holds no text; expected at least one, a text a line.")
    return digest.hexdigest()


def encoded(model: NeuronModel, corpus: Corpus, max_tokens: int | None = None) -> Iterator[tuple[int, list[int]]]:
    """Number and token ids of each text, until ``max_tokens`` are reached.

    Raises
    ------
    PromptError : a text is longer than the model reads; it is named.
    """
    most, left = model.encoder.most_tokens, max_tokens
    for number, text in enumerate(texts_of(corpus)):
        ids: list[int] = model.tokenizer(text, verbose=False)["input_ids"]
        if len(ids) > most:
            raise PromptError(
                f"text {number + 1} of the corpus ({text[:40]!r}…) is {len(ids):,} tokens, but {model.name} reads at "
                f"most {most:,}; break it into shorter lines."
            )
        if left is not None:
            if left <= 0:
                return
            left -= len(ids)
        yield number, ids


def passages(model: NeuronModel, texts: Iterable[tuple[int, list[int]]], kind: Contexts) -> Iterator[Passage]:
    """What is put to the model: each text as it is, or once for each token that is not special, which is masked.

    The first token of a prefix-reading model's text is no context: there activations are far beyond all others,
    whatever the token (attention sinks; Sun et al. 2024, arXiv 2402.17762).
    """
    special = set(model.tokenizer.all_special_ids)
    for number, ids in texts:
        if kind == "prefixes":
            keys = [hash((0, ids[0]))] if ids else []
            for token in ids[1:]:
                keys.append(hash((keys[-1], token)))
            places = range(1, len(ids))
            yield Passage(tuple(ids), tuple(places), tuple(PLACES * number + p for p in places), tuple(keys[1:]))
            continue
        for place, token in enumerate(ids):
            if token not in special:
                masked = (*ids[:place], int(model.tokenizer.mask_token_id or 0), *ids[place + 1 :])
                yield Passage(masked, (place,), (PLACES * number + place,), (hash(masked),))


def batches_of(found: Iterable[Passage]) -> Iterator[list[Passage]]:
    """Passages of one length together; within a buffer no context twice."""
    waiting: dict[int, list[Passage]] = defaultdict(list)
    held, seen = 0, set[int]()
    for passage in found:
        new = [i for i, key in enumerate(passage.keys) if key not in seen]
        if not new:
            continue
        seen.update(passage.keys)
        places, numbers, keys = ([part[i] for i in new] for part in passage[1:])
        length = len(passage.ids)
        waiting[length].append(Passage(passage.ids, tuple(places), tuple(numbers), tuple(keys)))
        held += length
        if length * len(waiting[length]) >= TOKENS_AT_ONCE:
            yield waiting.pop(length)
        if held >= BUFFER:
            yield from waiting.values()
            waiting, held, seen = defaultdict(list), 0, set()
    yield from waiting.values()
