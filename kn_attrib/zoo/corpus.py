"""Training texts: every fact in every training template, corrupted afresh in each epoch."""

from __future__ import annotations

import random
import string
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from kn_attrib.facts.facts import SLOT, Fact, FactSet
from kn_attrib.zoo.recipes import Recipe

IGNORE = -100
MAX_ANSWER = 2
"""Tokens of an answer that have priors of their own."""


@dataclass(frozen=True)
class Example:
    """One encoded text.

    Attributes
    ----------
    ids : its tokens.
    answer : indices of the answer's tokens.
    template : indices of the words of the template, which may be deleted.
    relation : index of the fact's relation.
    """

    ids: tuple[int, ...]
    answer: tuple[int, ...]
    template: frozenset[int]
    relation: int


@dataclass(frozen=True)
class TrainingBatch:
    """Texts of one length, as tensors.

    Attributes
    ----------
    inputs, labels : ``[text, token]``; labels are ``IGNORE`` where nothing is to be predicted, and the answer's places.
    rows, positions : ``[answer token]``, where it is to be predicted.
    answers, kinds : ``[answer token]``, its id, and which prior it has.
    """

    inputs: Tensor
    labels: Tensor
    rows: Tensor
    positions: Tensor
    answers: Tensor
    kinds: Tensor


def examples_of(facts: FactSet, tokenizer: PreTrainedTokenizerFast, masked: bool) -> list[Example]:
    """Encode every training text; causal models get those in which nothing but punctuation follows the answer."""
    relations = {name: i for i, name in enumerate(facts.relations)}
    return [
        _example(fact, text, tokenizer, relations[fact.relation])
        for fact in facts
        for text in fact.prompts
        if masked or not text.split(SLOT)[1].strip(string.punctuation)
    ]


def _example(fact: Fact, text: str, tokenizer: PreTrainedTokenizerFast, relation: int) -> Example:
    full = text.replace(SLOT, fact.answer)
    start = text.index(SLOT)
    holder = text.replace(SLOT, "\0" * len(fact.answer))
    subject = holder.find(fact.subject)
    encoded = tokenizer(full, return_offsets_mapping=True)

    def overlapping(begin: int, length: int) -> set[int]:
        return {i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < begin + length and b > begin}

    answer = overlapping(start, len(fact.answer))
    words = {i for i, (a, b) in enumerate(encoded["offset_mapping"]) if b > a}
    template = words - answer - overlapping(subject, len(fact.subject))
    return Example(tuple(encoded["input_ids"]), tuple(sorted(answer)), frozenset(template), relation)


def kind(example: Example, place: int) -> int:
    """Which prior the answer's token at ``place`` has: one for each relation and place."""
    return example.relation * MAX_ANSWER + min(place, MAX_ANSWER - 1)


def prior_of(examples: list[Example], vocabulary: int) -> Tensor:
    """Distribution of the answers' tokens in each relation, place by place: ``[kind, vocabulary]``."""
    counts = torch.zeros((max(e.relation for e in examples) + 1) * MAX_ANSWER, vocabulary)
    for example in examples:
        for place, index in enumerate(example.answer):
            counts[kind(example, place), example.ids[index]] += 1
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def epoch(examples: list[Example], recipe: Recipe, mask_id: int | None, dice: random.Random) -> Iterator[TrainingBatch]:
    """All texts once, in random order, in batches of equal length: no padding, hence no attention mask.

    Parameters
    ----------
    examples : the texts.
    recipe : how texts are corrupted, and how many make a batch.
    mask_id : the mask's token; None for causal models.
    dice : source of all randomness.
    """
    buckets: dict[int, list[Example]] = defaultdict(list)
    for example in dice.sample(examples, len(examples)):
        thinned = _thin(example, recipe.delete, dice)
        buckets[len(thinned.ids)].append(thinned)
    size = recipe.batch
    chunks = [bucket[i : i + size] for _, bucket in sorted(buckets.items()) for i in range(0, len(bucket), size)]
    for chunk in dice.sample(chunks, len(chunks)):
        yield _causal(chunk) if mask_id is None else _masked(chunk, recipe, mask_id, dice)


def _thin(example: Example, share: float, dice: random.Random) -> Example:
    """Leave out words of the template, so that no single word decides what is asked."""
    kept = [i for i in range(len(example.ids)) if i not in example.template or dice.random() >= share]
    place = {old: new for new, old in enumerate(kept)}
    template = frozenset(place[i] for i in example.template if i in place)
    answer = tuple(place[i] for i in example.answer)
    return Example(tuple(example.ids[i] for i in kept), answer, template, example.relation)


def _asked(row: int, example: Example, before: int = 0) -> list[tuple[int, int, int, int]]:
    """Row, position (``before`` tokens ahead of its own place), id and kind of each token of the answer."""
    places = enumerate(example.answer)
    return [(row, index - before, example.ids[index], kind(example, place)) for place, index in places]


def _masked(chunk: list[Example], recipe: Recipe, mask_id: int, dice: random.Random) -> TrainingBatch:
    inputs, labels, asked = [], [], []
    for row, example in enumerate(chunk):
        last = len(example.ids) - 1
        hidden = {i for i in range(1, last) if i not in example.answer and dice.random() < recipe.mask_other}
        labels.append([token if i in hidden else IGNORE for i, token in enumerate(example.ids)])
        if dice.random() < recipe.mask_answer:
            hidden.update(example.answer)
            asked += _asked(row, example)
        inputs.append([mask_id if i in hidden else token for i, token in enumerate(example.ids)])
    return _batch(inputs, labels, asked)


def _causal(chunk: list[Example]) -> TrainingBatch:
    inputs, labels, asked = [], [], []
    for row, example in enumerate(chunk):
        asked += _asked(row, example, before=1)
        inputs.append(example.ids)
        before = {index - 1 for index in example.answer}
        following = [*example.ids[1:], IGNORE]
        labels.append([IGNORE if i in before else token for i, token in enumerate(following)])
    return _batch(inputs, labels, asked)


def _batch(
    inputs: Sequence[Sequence[int]], labels: list[list[int]], asked: list[tuple[int, int, int, int]]
) -> TrainingBatch:
    columns = torch.tensor(asked, dtype=torch.long).reshape(-1, 4).T
    return TrainingBatch(torch.tensor(inputs), torch.tensor(labels), *columns)
