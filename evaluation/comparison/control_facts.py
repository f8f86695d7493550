"""The texts that a fact's neurons are judged on: its own held-out ones, and those of control facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.evaluation.vocabulary import Group
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Text
from kn_attrib.randomness import numpy_generator

Belongs = Callable[[Fact, Fact], bool]

MEMBERS: dict[Group, Belongs] = {
    "same_object": lambda own, other: own.answer == other.answer and own.subject != other.subject,
    "same_subject": lambda own, other: (
        own.subject == other.subject and own.relation != other.relation and own.answer != other.answer
    ),
    "same_relation": lambda own, other: own.relation == other.relation and _nothing_else(own, other),
    "other_relation": lambda own, other: own.relation != other.relation and _nothing_else(own, other),
}
"""Control group of facts -> whether another fact is in it."""


def _nothing_else(own: Fact, other: Fact) -> bool:
    """The facts share neither answer nor subject."""
    return own.answer != other.answer and own.subject != other.subject


def group_prompts(
    target: Candidate, pool: Sequence[Candidate], n_facts: int, seed: int, plain: Sequence[Text] = ()
) -> dict[Group, tuple[Text, ...]]:
    """Held-out prompts of the target and of its control facts.

    ``target``: all held-out prompts of the fact. Each control group of `MEMBERS`: up to ``n_facts`` other facts that
    the model knows, one held-out prompt each, drawn with the seed. ``plain_text``: as many words of ordinary sentences.
    A group may be empty.
    """
    groups: dict[Group, tuple[Text, ...]] = {"target": target.held_out}
    for group, belongs in MEMBERS.items():
        members = [c for c in pool if belongs(target.fact, c.fact)]
        rng = numpy_generator(seed, "group", group, target.fact.id)
        texts = []
        for i in rng.permutation(len(members))[:n_facts]:
            held_out = members[i].held_out
            texts.append(held_out[int(rng.integers(len(held_out)))])
        groups[group] = tuple(texts)
    order = numpy_generator(seed, "group", "plain_text", target.fact.id).permutation(len(plain))
    groups["plain_text"] = tuple(plain[i] for i in order[:n_facts])
    return groups
