"""Queries, the texts they belong to, and batches of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from kn_attrib.errors import ConfigError, PromptError
from kn_attrib.facts.facts import Fact

Kind = Literal["masked", "causal", "encoder-decoder"]
Split = Literal["prompts", "held_out"]


@dataclass(frozen=True)
class Prompt:
    """One query: an encoded text of a fact, and one token of the answer that the model is asked for.

    An answer of several tokens makes several queries of the same text.

    Parameters
    ----------
    fact : the fact it expresses.
    text : the text with its slot.
    input_ids : token ids put to the model (with the masks, or up to the asked token); encoder-decoders: the decoder's.
    position : index of the token at which the asked token is predicted.
    answer_id : token id of the gold answer's token.
    token, tokens : which token of the answer is asked for (from 0), and how many it has.
    source : token ids that the encoder of an encoder-decoder reads.
    """

    fact: Fact
    text: str
    input_ids: tuple[int, ...]
    position: int
    answer_id: int
    token: int = 0
    tokens: int = 1
    source: tuple[int, ...] = ()

    def __hash__(self) -> int:
        # Of what tells prompts apart; of all fields, the fact's texts included, it would be most of the time of a dict.
        return hash((self.fact.id, self.text, self.token))


@dataclass(frozen=True)
class Text:
    """One text of a fact: its queries, one for each token of the answer."""

    queries: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def fact(self) -> Fact:
        """The fact it expresses."""
        return self.queries[0].fact

    @property
    def text(self) -> str:
        """The text with its slot."""
        return self.queries[0].text


def owners(prompts: Sequence[Prompt]) -> list[int]:
    """For each query the index of its text; a text's queries stand side by side, its first token first."""
    found: list[int] = []
    before: Prompt | None = None
    for prompt in prompts:
        same = before is not None and prompt.token > 0 and (prompt.fact, prompt.text) == (before.fact, before.text)
        last = found[-1] if found else -1
        found.append(last if same else last + 1)
        before = prompt
    return found


def texts_of(prompts: Sequence[Prompt]) -> tuple[Text, ...]:
    """The texts that queries belong to, in order."""
    groups: dict[int, list[Prompt]] = defaultdict(list)
    for owner, prompt in zip(owners(prompts), prompts, strict=True):
        groups[owner].append(prompt)
    return tuple(Text(tuple(group)) for group in groups.values())


def by_text(values: Tensor, prompts: Sequence[Prompt], mean: bool = False) -> Tensor:
    """Sum (or mean) over the queries of each text: ``[query, …]`` -> ``[text, …]``."""
    if all(prompt.tokens == 1 for prompt in prompts):
        return values
    owner = torch.tensor(owners(prompts), device=values.device)
    if mean:
        tokens = torch.tensor([p.tokens for p in prompts], device=values.device, dtype=values.dtype)
        values = values / tokens.reshape(-1, *[1] * (values.dim() - 1))
    zero = values.new_zeros(int(owner.max()) + 1, *values.shape[1:])
    return zero.index_add(0, owner, values)


@dataclass(frozen=True)
class Batch:
    """Queries of equal length, as tensors: no padding, so a row never depends on its neighbours.

    Attributes
    ----------
    input_ids : ``[prompt, token]``.
    positions, answers : ``[prompt]``, answer position and gold answer id.
    """

    prompts: tuple[Prompt, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        for lengths in self._lengths():
            if len(lengths) != 1:
                raise PromptError(
                    f"a batch holds prompts of {lengths} tokens; expected at least one, all of equal length."
                )

    def _lengths(self) -> tuple[list[int], ...]:
        return tuple(sorted({len(getattr(p, ids)) for p in self.prompts}) for ids in ("input_ids", "source"))

    @property
    def longest(self) -> int:
        """Most tokens of a prompt."""
        return self._lengths()[0][-1]

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
        given = {"input_ids": self.input_ids}
        sources = self.sources
        if sources is not None:
            given["source_ids"] = sources
        return given if rows is None else {name: ids[rows] for name, ids in given.items()}

    @property
    def where(self) -> tuple[Tensor, ...]:
        """Answer positions and answers (and what an encoder reads), as `EmbeddingObjective` takes them."""
        sources = self.sources
        given = (self.positions, self.answers)
        return given if sources is None else (*given, sources)

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
class MixedBatch(Batch):
    """Queries of any lengths of a causal model, for methods that ask only what holds for prompts of any length.

    That is the objective as a function of rows (`kn_attrib.forward`), positions and answers; there is no tensor of ids.
    """

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError("a batch holds no prompts; expected at least one.")

    @property
    def input_ids(self) -> Tensor:
        """Not there.

        Raises
        ------
        PromptError : always.
        """
        raise PromptError(
            f"a batch of prompts of {self._lengths()[0]} tokens has no tensor of ids; ask its `parts`, or leave the "
            "method's `any_length` at False."
        )

    @property
    def parts(self) -> list[tuple[list[int], Batch]]:
        """Its prompts by length: their indices, and their batch."""
        return list(batches(self.prompts, self.device, len(self)))


@dataclass(frozen=True)
class Skipped:
    """A text that cannot be put to the model, and why (in full, and in a word or two)."""

    fact: str
    text: str
    reason: str
    cause: str = "other"


@dataclass(frozen=True)
class Encoding:
    """The queries of some facts, and the texts that had to be left out."""

    prompts: tuple[Prompt, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def texts(self) -> tuple[Text, ...]:
        """The texts that can be put to the model, each with its queries."""
        return texts_of(self.prompts)


def causes(skipped: Sequence[Skipped]) -> dict[str, int]:
    """How many texts were left out for which cause, most frequent first."""
    return dict(Counter(each.cause for each in skipped).most_common())


def left_out(skipped: Sequence[Skipped], used: int) -> str:
    """In words: how many texts were left out beside those that are used, for which causes, and the first reason."""
    by_cause = ", ".join(f"{cause}: {n}" for cause, n in causes(skipped).items())
    return f"{len(skipped)} of {len(skipped) + used} prompts were left out ({by_cause}); the first: {skipped[0].reason}"


def check_batch_size(max_prompts: int) -> None:
    """Raise on a batch size with which nothing would be computed.

    Raises
    ------
    ConfigError : it is not positive.
    """
    if max_prompts < 1:
        raise ConfigError(f"max_prompts is {max_prompts}; expected at least 1 prompt in a batch.")


def batches(
    prompts: Sequence[Prompt], device: torch.device, max_prompts: int = 64
) -> Iterator[tuple[list[int], Batch]]:
    """Group prompts of equal length; yields the prompts' indices and their batch.

    Raises
    ------
    ConfigError : ``max_prompts`` is not positive.
    """
    check_batch_size(max_prompts)
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        buckets[len(prompt.input_ids), len(prompt.source)].append(index)
    for _, bucket in sorted(buckets.items()):
        for start in range(0, len(bucket), max_prompts):
            chunk = bucket[start : start + max_prompts]
            yield chunk, Batch(tuple(prompts[i] for i in chunk), device)
