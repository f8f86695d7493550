"""From a fact's text to token ids, the answer position and the gold answer's id."""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kn_attrib.errors import PromptError
from kn_attrib.facts import SLOT, Fact

Kind = Literal["masked", "causal", "encoder-decoder"]
Split = Literal["prompts", "held_out"]


@dataclass(frozen=True)
class Prompt:
    """One encoded text of a fact.

    Parameters
    ----------
    fact : the fact it expresses.
    text : the text with its slot.
    input_ids : token ids put to the model (with the mask, or up to the answer).
    position : index of the token at which the answer is predicted.
    answer_id : token id of the gold answer.
    """

    fact: Fact
    text: str
    input_ids: tuple[int, ...]
    position: int
    answer_id: int
    token: int = 0
    tokens: int = 1
    source: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Prompts of equal length, as tensors: no padding, so a row never depends on its neighbours.

    Attributes
    ----------
    input_ids : ``[prompt, token]``.
    positions, answers : ``[prompt]``, answer position and gold answer id.
    """

    prompts: tuple[Prompt, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        lengths = sorted({len(p.input_ids) for p in self.prompts})
        if len(lengths) != 1:
            raise PromptError(f"a batch holds prompts of {lengths} tokens; expected at least one, all of equal length.")

    def __len__(self) -> int:
        return len(self.prompts)

    def _tensor(self, values: Sequence[object]) -> Tensor:
        return torch.tensor(values, device=self.device)

    @property
    def input_ids(self) -> Tensor:
        return self._tensor([p.input_ids for p in self.prompts])

    @property
    def sources(self) -> Tensor | None:
        """What the encoder of an encoder-decoder reads: ``[prompt, token]``."""
        return self._tensor([p.source for p in self.prompts]) if self.prompts[0].source else None

    def inputs(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Inputs of `NeuronModel.logits`: all prompts, or those of ``rows``."""
        given = {"input_ids": self.input_ids} | ({} if self.sources is None else {"source_ids": self.sources})
        return given if rows is None else {name: ids[rows] for name, ids in given.items()}

    @property
    def where(self) -> tuple[Tensor, ...]:
        """Answer positions and answers (and what an encoder reads), as `AnswerObjective` takes them."""
        given = (self.positions, self.answers)
        return given if self.sources is None else (*given, self.sources)

    @property
    def positions(self) -> Tensor:
        return self._tensor([p.position for p in self.prompts])

    @property
    def answers(self) -> Tensor:
        return self._tensor([p.answer_id for p in self.prompts])

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The fact of each row."""
        return tuple(p.fact for p in self.prompts)


@dataclass(frozen=True)
class Skipped:
    """A text that cannot be put to the model, and why."""

    fact: str
    text: str
    reason: str


@dataclass(frozen=True)
class Encoding:
    """The encoded prompts of some facts, and the texts that had to be left out."""

    prompts: tuple[Prompt, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes texts for one tokenizer.

    Masked models read the whole text with one mask in the slot. Causal models read the text up to the slot and
    predict the answer with the leading space that the tokenizer gives it there.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: Kind

    def encode(self, fact: Fact, text: str) -> Prompt:
        """Encode one text of a fact.

        Raises
        ------
        PromptError : the answer is unknown to the tokenizer or takes several tokens, or a causal model is given a
            text that goes on after the slot.
        """
        before, after = text.split(SLOT)
        answer_id = self._answer_id(fact, text, before)
        if self.kind == "causal":
            if after.strip(string.punctuation + string.whitespace):
                raise PromptError(
                    f"fact {fact.id!r}: {text!r} goes on after the slot {SLOT}; a causal model predicts from the left, "
                    "so the slot must end the text (punctuation aside). Rephrase it, or use a masked model."
                )
            if not before.strip():
                raise PromptError(f"fact {fact.id!r}: {text!r} has nothing before the slot {SLOT} to predict from.")
            ids = self._ids(before.rstrip(), special=True)
            return Prompt(fact, text, self._fitting(fact, text, ids), len(ids) - 1, answer_id)
        mask = str(self.tokenizer.mask_token)
        ids = self._ids(before + mask + after, special=True)
        places = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
        if len(places) != 1:
            raise PromptError(f"fact {fact.id!r}: {text!r} has {len(places)} mask tokens once encoded; expected one.")
        return Prompt(fact, text, self._fitting(fact, text, ids), places[0], answer_id)

    def encode_all(self, facts: Iterable[Fact], split: Split = "prompts") -> Encoding:
        """Encode one list of texts of every fact; what cannot be encoded is returned with its reason."""
        prompts, skipped = [], []
        for fact in facts:
            for text in getattr(fact, split):
                try:
                    prompts.append(self.encode(fact, text))
                except PromptError as error:
                    skipped.append(Skipped(fact.id, text, str(error)))
        return Encoding(tuple(prompts), tuple(skipped))

    def _fitting(self, fact: Fact, text: str, ids: list[int]) -> tuple[int, ...]:
        if len(ids) > self.tokenizer.model_max_length:
            raise PromptError(
                f"fact {fact.id!r}: {text[:60]!r}… is {len(ids)} tokens; expected at most "
                f"{self.tokenizer.model_max_length}, the longest that the model reads. Shorten it."
            )
        return tuple(ids)

    def _ids(self, text: str, special: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _answer_id(self, fact: Fact, text: str, before: str) -> int:
        space = " " if before[-1:].isspace() else ""
        prefix = self._ids(before.rstrip())
        joint = self._ids(before.rstrip() + space + fact.answer)
        # A tokenizer that merges across the boundary gives no clean split; the answer alone is the fallback.
        ids = joint[len(prefix) :] if joint[: len(prefix)] == prefix else self._ids(space + fact.answer)
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        if not ids or self.tokenizer.unk_token_id in ids:
            raise PromptError(
                f"fact {fact.id!r}: the tokenizer does not know the answer {fact.answer!r} (it becomes {pieces}); "
                "choose an answer of its vocabulary."
            )
        if len(ids) > 1:
            raise PromptError(
                f"fact {fact.id!r}: the answer {fact.answer!r} is {len(ids)} tokens ({pieces}) in {text!r}; "
                "answers of several tokens are not supported yet."
            )
        return ids[0]


def batches(
    prompts: Sequence[Prompt], device: torch.device, max_prompts: int = 64
) -> Iterator[tuple[list[int], Batch]]:
    """Group prompts of equal length; yields the prompts' indices and their batch."""
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        buckets[len(prompt.input_ids), len(prompt.source)].append(index)
    for lengths in sorted(buckets):
        for start in range(0, len(buckets[lengths]), max_prompts):
            chunk = buckets[lengths][start : start + max_prompts]
            yield chunk, Batch(tuple(prompts[i] for i in chunk), device)
