"""The texts that a fact's neurons are judged on: its own held-out ones, and those of control facts."""

from __future__ import annotations

from collections.abc import Sequence

from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.evaluation.vocabulary import GROUPS, Group
from kn_attrib.facts.prompts import Text
from kn_attrib.randomness import numpy_generator


def group_prompts(
    target: Candidate, pool: Sequence[Candidate], n_facts: int, seed: int, plain: Sequence[Text] = ()
) -> dict[Group, tuple[Text, ...]]:
    """Held-out prompts of the target and of its control facts.

    ``target``: all held-out prompts of the fact. Each control group: up to ``n_facts`` other facts that the model
    knows, one held-out prompt each, drawn with the seed: ``same_object`` (same answer), ``same_subject`` (same subject,
    other relation and answer), ``same_relation`` (same relation, other answer), ``other_relation`` (other relation,
    answer and subject). ``plain_text``: as many words of ordinary sentences. A group may be empty.
    """
    groups: dict[Group, tuple[Text, ...]] = {"target": target.held_out}
    for group in GROUPS[1:-1]:
        members = [c for c in pool if _belongs(group, target, c)]
        rng = numpy_generator(seed, "group", group, target.fact.id)
        texts = []
        for i in rng.permutation(len(members))[:n_facts]:
            held_out = members[i].held_out
            texts.append(held_out[int(rng.integers(len(held_out)))])
        groups[group] = tuple(texts)
    order = numpy_generator(seed, "group", "plain_text", target.fact.id).permutation(len(plain))
    groups["plain_text"] = tuple(plain[i] for i in order[:n_facts])
    return groups


def _belongs(group: Group, target: Candidate, other: Candidate) -> bool:
    a, b = target.fact, other.fact
    if group == "same_object":
        return a.answer == b.answer and a.subject != b.subject
    if group == "same_subject":
        return a.subject == b.subject and a.relation != b.relation and a.answer != b.answer
    if group == "same_relation":
        return a.relation == b.relation and a.answer != b.answer and a.subject != b.subject
    return a.relation != b.relation and a.answer != b.answer and a.subject != b.subject
