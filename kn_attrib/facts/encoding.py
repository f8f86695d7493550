"""From a fact's text to queries: token ids, the position that predicts, and the gold token, for each answer token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from kn_attrib.errors import PromptError
from kn_attrib.facts.chat import PLACEHOLDER, user_turn
from kn_attrib.facts.facts import SLOT, Fact
from kn_attrib.facts.prompts import Encoding, Kind, Prompt, Skipped, Split
from kn_attrib.facts.repeats import Repeats
from kn_attrib.facts.slot import parts_of, says_nothing

SENTINEL = "<extra_id_0>"
CONVENTIONS = {
    "masks": "one mask per answer token in the slot, all masks at once",
    "prefix": "the text up to the slot, then the gold answer tokens one by one",
    "chat": "the text up to the slot as the user's message; the assistant's turn is given the gold answer tokens",
    "sentinel": f"{SENTINEL} in the slot; the decoder is given {SENTINEL} and the gold answer tokens one by one",
    "mask and prefix": "a mask in the slot; the decoder is given the text up to the slot and the gold answer tokens",
    "source prefix": "the encoder reads the text up to the slot; the decoder is given the gold answer tokens",
}
"""How answers are asked for, by name."""


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes texts for one model: one query per answer token, always with the **gold** tokens before it.

    - masked models read the whole text with one mask per answer token in the slot (all stay masks), and predict token
      ``t`` at mask ``t``;
    - causal models read the text up to the slot and the gold tokens before ``t``, and predict at the last token;
    - encoder-decoders answer in the decoder, which is given the gold tokens before ``t``. With sentinels (T5) the
      encoder reads ``<extra_id_0>`` in the slot and the decoder starts with it; with a mask token only (BART) the
      encoder reads one mask in the slot and the decoder, which repeats the text, starts with the text up to the slot;
      with neither the encoder reads the text up to the slot.

    A causal model's chat template may frame its texts: the text up to the slot, without the white space at its end, is
    the user's message, and the answer begins the assistant's turn. The template brings all special tokens.

    The answer has the leading space that the tokenizer gives it there: where the text has one (and no more) before the
    slot, or the answer itself begins with one. Other white space before the slot belongs to the text, and a special
    token that the text brings along is not added again.

    Parameters
    ----------
    tokenizer, kind : of the model.
    start : first token of a decoder (``config.decoder_start_token_id``).
    vocabulary : number of the model's token embeddings, if ids are to be checked against it.
    longest : most tokens that the model has positions for, if it has a table of them.
    chat : whether texts are put to the model as a chat.
    memory : ids of texts (without or with special tokens) that were tokenized before.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    start: int | None = None
    vocabulary: int | None = None
    longest: int | None = None
    chat: bool = False
    memory: Mapping[tuple[str, bool], list[int]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def most_tokens(self) -> int:
        """The most that a text may have: what the tokenizer names, or fewer if the table of positions is shorter."""
        named = int(self.tokenizer.model_max_length)
        return named if self.longest is None else min(named, self.longest)

    @property
    def convention(self) -> str:
        """How answers are asked for: a key of `CONVENTIONS`."""
        if self.kind == "causal":
            return "chat" if self.chat else "prefix"
        if self.kind == "masked":
            return "masks"
        if self._sentinel is not None:
            return "sentinel"
        return "source prefix" if self.tokenizer.mask_token is None else "mask and prefix"

    @cached_property
    def chat_frame(self) -> str:
        """What the chat template makes of ``"[text]"``: what surrounds every text; empty without chat."""
        return user_turn(self.tokenizer, PLACEHOLDER) if self.chat else ""

    def _before(self, text: str) -> str:
        """What stands before the answer, as the model is to read it."""
        before = text.split(SLOT)[0]
        return user_turn(self.tokenizer, before.rstrip()) if self.chat and before.strip() else before

    @property
    def _sentinel(self) -> int | None:
        found = self.tokenizer.convert_tokens_to_ids(SENTINEL)
        return found if isinstance(found, int) and found != self.tokenizer.unk_token_id else None

    def encode(self, fact: Fact, text: str) -> tuple[Prompt, ...]:
        """The queries of one text of a fact, one for each token of its answer.

        Raises
        ------
        PromptError : the answer is unknown to the tokenizer, the text is too long, or a model that predicts from the
            left is given a text that goes on after the slot.
        """
        before = self._before(text)
        answer = self._answer_ids(fact, before)
        if self.kind == "masked":
            ids, places = self._masked(fact, text, len(answer))
            inputs = [(ids, place) for place in places]
            source: list[int] = []
        else:
            source, prefix = self._prefix(fact, text, before)
            inputs = [(prefix + answer[:t], len(prefix) + t - 1) for t in range(len(answer))]
        for ids in (source, *(ids for ids, _ in inputs)):
            self._check(fact, text, ids)
        return tuple(
            Prompt(fact, text, tuple(ids), position, answer[t], t, len(answer), tuple(source))
            for t, (ids, position) in enumerate(inputs)
        )

    def encode_all(self, facts: Iterable[Fact], split: Split = "prompts") -> Encoding:
        """Encode one list of texts of every fact; what cannot be encoded is returned with its reason.

        So is a text that is the same input for this model as an earlier one of its fact's list, or, held out, as one
        of the fact's prompts.
        """
        facts = list(facts)
        return self._with_memory(facts, split)._encode_all(facts, split)

    def _with_memory(self, facts: Sequence[Fact], split: Split) -> PromptEncoder:
        """A copy that has tokenized at once what the texts will be asked for one by one: many times faster."""
        texts = [(fact, text) for fact in facts for _, text in _texts_to_read(fact, split)]
        parts: set[str] = set()
        for fact, text in texts:
            with suppress(PromptError):
                parts.update(parts_of(fact, self._before(text)))
        memory = self._tokenized(parts, special=False)
        first = replace(self, memory=memory)
        if self.kind != "masked":
            return first
        readings = set()
        for fact, text in texts:
            with suppress(PromptError):
                tokens = len(first._answer_ids(fact, text.split(SLOT)[0]))
                readings.add(self._reading(text, tokens))
        return replace(self, memory=memory | self._tokenized(readings, special=True))

    def _tokenized(self, texts: set[str], special: bool) -> dict[tuple[str, bool], list[int]]:
        if not texts:
            return {}
        ordered = sorted(texts)
        only_ids = {"return_attention_mask": False, "return_token_type_ids": False}
        found = self.tokenizer(ordered, add_special_tokens=special, **only_ids)["input_ids"]
        return {(text, special): list(ids) for text, ids in zip(ordered, found, strict=True)}

    def _encode_all(self, facts: Sequence[Fact], split: Split) -> Encoding:
        prompts: list[Prompt] = []
        skipped: list[Skipped] = []
        for fact in facts:
            repeats = Repeats()
            for kind, text in _texts_to_read(fact, split):
                try:
                    queries = self.encode(fact, text)
                    repeats.add(queries, kind)
                except PromptError as error:
                    if kind == split:
                        skipped.append(Skipped(fact.id, text, str(error), error.cause))
                else:
                    prompts += queries if kind == split else ()
        return Encoding(tuple(prompts), tuple(skipped))

    def subject_span(self, prompt: Prompt) -> tuple[int, int] | None:
        """Where the subject's tokens are in what the model reads (encoder-decoders: in ``source``): first, last + 1.

        None where the text does not hold the subject word for word.
        """
        read = self._reading(prompt.text, prompt.tokens)
        start = read.find(prompt.fact.subject, *self._own_part(prompt.text, read))
        if start < 0:
            return None
        end = start + len(prompt.fact.subject)
        if self.tokenizer.is_fast:
            special = not self.chat
            offsets = self.tokenizer(read, return_offsets_mapping=True, add_special_tokens=special)["offset_mapping"]
            inside = [i for i, (first, last) in enumerate(offsets) if max(first, start) < min(last, end)]
            added = self._added_twice(read) if special else 0
            return (inside[0] - added, inside[-1] + 1 - added) if inside else None
        # Without offsets: count the tokens of the text up to the subject, and up to its end.
        head = self._opening(read[:start].rstrip())
        whole = self._opening(read[:end])
        ids = list(prompt.source or prompt.input_ids)
        if ids[: len(whole)] != whole or whole[: len(head)] != head:
            return None
        return len(head), len(whole)

    def _own_part(self, text: str, read: str) -> tuple[int, int]:
        """Where a text stands in what is read of it: the frame of a chat may have the subject's words too."""
        if not self.chat:
            return 0, len(read)
        message = text.split(SLOT)[0].strip()
        start = read.find(message, self.chat_frame.index(PLACEHOLDER))
        return start, start + len(message)

    def _reading(self, text: str, tokens: int) -> str:
        """The text as the model (an encoder-decoder's encoder) reads it, for an answer of so many tokens."""
        before, after = text.split(SLOT)
        if self.convention in ("prefix", "chat", "source prefix"):
            return self._before(text)
        if self.convention == "sentinel":
            return before + SENTINEL + after
        masks = tokens if self.kind == "masked" else 1
        return before + str(self.tokenizer.mask_token) * masks + after

    def _masked(self, fact: Fact, text: str, tokens: int) -> tuple[list[int], list[int]]:
        """Ids of the text with masks in its slot, and where they are."""
        ids = self._with_specials(self._reading(text, tokens))
        places = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
        if len(places) != tokens:
            raise PromptError(
                f"fact {fact.id!r}: {text!r} has {len(places)} mask tokens once encoded; expected {tokens}."
            )
        return ids, places

    def _prefix(self, fact: Fact, text: str, before: str) -> tuple[list[int], list[int]]:
        """What the encoder reads (causal models: nothing), and what the answering stack is given before the answer."""
        after = text.split(SLOT)[1]
        start = [] if self.start is None else [self.start]
        source: list[int] = []
        if self.kind != "causal":
            read = self._stem(fact, before) if self.convention == "source prefix" else self._reading(text, 1)
            source = self._with_specials(read)
        if self._sentinel is not None and source:
            return source, [*start, self._sentinel]
        if self.convention == "mask and prefix":
            return source, start + self._opening(self._stem(fact, before))
        if not all(says_nothing(character) for character in after):
            raise PromptError(
                f"fact {fact.id!r}: {text!r} goes on after the slot {SLOT}; a causal model predicts from the left, "
                "so the slot must end the text (punctuation aside). Rephrase it, or use a masked model.",
                cause="slot in the middle",
            )
        if not before.strip():
            raise PromptError(f"fact {fact.id!r}: {text!r} has nothing before the slot {SLOT} to predict from.")
        if source:
            return source, start
        return source, self._opening(self._stem(fact, before))

    def _opening(self, text: str) -> list[int]:
        """Ids of a text with the special tokens in front of it and none behind: after an end nothing is answered."""
        if self.chat:
            return self._ids(text)
        if not text:
            return self._opening("a")[: -len(self._ids("a"))]
        front, plain, _ = self._framed(text)
        return front + plain

    def _with_specials(self, text: str) -> list[int]:
        """Ids of a text with the special tokens of its model, none of them twice."""
        if not any(token in text for token in self._frames):
            return self._ids(text, special=True)
        front, plain, back = self._framed(text)
        return front + plain + back

    def _added_twice(self, text: str) -> int:
        """How many special tokens the tokenizer adds before a text that has brought them along."""
        if not any(token in text for token in self._frames):
            return 0
        front, plain, _ = self._framed(text)
        full = self._ids(text, special=True)
        return next(at for at in range(len(full)) if full[at : at + len(front + plain)] == front + plain)

    @cached_property
    def _frames(self) -> list[str]:
        """Special tokens that a text may bring along itself."""
        return [token for token in self.tokenizer.all_special_tokens if token != self.tokenizer.mask_token]

    def _framed(self, text: str) -> tuple[list[int], list[int], list[int]]:
        """Special tokens before a text that it has not brought along itself, its own ids, and those behind it."""
        plain, full = self._ids(text), self._ids(text, special=True)
        for at in range(len(full) - len(plain) + 1):
            if full[at : at + len(plain)] == plain:
                front, back = full[:at], full[at + len(plain) :]
                has_front = plain[: len(front)] == front
                has_back = bool(back) and plain[-len(back) :] == back
                return [] if has_front else front, plain, [] if has_back else back
        return full, [], []

    def _check(self, fact: Fact, text: str, ids: list[int]) -> None:
        longest = self.most_tokens
        if len(ids) > longest:
            raise PromptError(
                f"fact {fact.id!r}: {text[:60]!r}… is {len(ids)} tokens; expected at most {longest}, the longest that "
                "the model reads. Shorten it.",
                cause="too long",
            )
        if self.vocabulary is not None and max(ids, default=0) >= self.vocabulary:
            raise PromptError(
                f"fact {fact.id!r}: the tokenizer gives token id {max(ids)}, but the model has {self.vocabulary} token "
                "embeddings; is this the model's own tokenizer?",
                cause="wrong tokenizer",
            )

    def _ids(self, text: str, special: bool = False) -> list[int]:
        known = self.memory.get((text, special))
        if known is None:
            known = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return list(known)

    def _stem(self, fact: Fact, before: str) -> str:
        """The text before the answer's first token: all of it, but for a space that the answer begins with.

        Where the tokenizer joins further space to the answer, the last one goes with it.
        """
        stem, joined, _ = parts_of(fact, before)
        if stem == before and stem.endswith(" ") and not self._splits(stem, joined):
            return stem[:-1]
        return stem

    def _splits(self, stem: str, joined: str) -> bool:
        """Whether a text's tokens begin with those of its beginning."""
        prefix = self._ids(stem)
        return self._ids(joined)[: len(prefix)] == prefix

    def _answer_ids(self, fact: Fact, before: str) -> list[int]:
        _, joined, answer = parts_of(fact, before)
        stem = self._stem(fact, before)
        # A tokenizer that merges across the boundary gives no clean split; the answer alone is the fallback.
        ids = self._ids(joined)[len(self._ids(stem)) :] if self._splits(stem, joined) else self._ids(answer)
        if not ids or self.tokenizer.unk_token_id in ids:
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            raise PromptError(
                f"fact {fact.id!r}: the tokenizer does not know the answer {fact.answer!r} (it becomes {pieces}); "
                "choose an answer of its vocabulary.",
                cause="answer unknown to the tokenizer",
            )
        return ids


def _texts_to_read(fact: Fact, split: Split) -> list[tuple[Split, str]]:
    """The texts of a split; before held-out ones the prompts, which they are compared with."""
    splits: tuple[Split, ...] = ("prompts",) if split == "prompts" else ("prompts", "held_out") if fact.held_out else ()
    return [(each, text) for each in splits for text in getattr(fact, each)]
