"""What a method's neurons are compared with: other facts, and other neurons."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from kn_attrib.evaluation.selection import Candidate
from kn_attrib.model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.prompts import Text

Group = Literal["target", "same_object", "same_subject", "same_relation", "other_relation"]
GROUPS: tuple[Group, ...] = ("target", "same_object", "same_subject", "same_relation", "other_relation")
NEURON_SETS = ("method", "random", "random_same_layer")


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on the seed and on what it is for, not on what ran before it."""
    digest = hashlib.sha256(repr((seed, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def group_prompts(
    target: Candidate, pool: Sequence[Candidate], n_facts: int, seed: int
) -> dict[Group, tuple[Text, ...]]:
    """Held-out prompts of the target and of its control facts.

    ``target``: all held-out prompts of the fact. Each control group: up to ``n_facts`` other facts that the model
    knows, one held-out prompt each, drawn with the seed: ``same_object`` (same answer), ``same_subject`` (same subject,
    other relation and answer), ``same_relation`` (same relation, other answer), ``other_relation`` (other relation,
    answer and subject). A group may be empty.
    """
    groups: dict[Group, tuple[Text, ...]] = {"target": target.held_out}
    for group in GROUPS[1:]:
        members = [c for c in pool if _belongs(group, target, c)]
        rng = generator(seed, "group", group, target.fact.id)
        chosen = rng.permutation(len(members))[:n_facts]
        groups[group] = tuple(members[i].held_out[int(rng.integers(len(members[i].held_out)))] for i in chosen)
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


def control_set(kind: str, neurons: NeuronSet, model: NeuronModel, seed: int, fact: str) -> NeuronSet:
    """A set of the same size: ``random`` over the model, or ``random_same_layer`` with the same number per layer.

    The draw avoids the method's own neurons wherever enough others are left, and depends only on seed, fact and
    size (or layers), so that methods with equally many neurons share their control.
    """
    if kind == "random":
        rng = generator(seed, kind, fact, len(neurons))
        order = rng.permutation(model.n_layers * model.n_neurons)
        drawn = [Neuron(*divmod(int(i), model.n_neurons)) for i in order[: 2 * len(neurons)]]
        return NeuronSet(_avoid(drawn, neurons, len(neurons)))
    chosen: list[Neuron] = []
    for layer, count in sorted(neurons.layers.items()):
        rng = generator(seed, kind, fact, layer, count)
        drawn = [Neuron(layer, int(i)) for i in rng.permutation(model.n_neurons)[: 2 * count]]
        chosen += _avoid(drawn, neurons, count)
    return NeuronSet(chosen)


def _avoid(drawn: list[Neuron], taken: NeuronSet, count: int) -> list[Neuron]:
    members = set(taken)
    return sorted(drawn, key=lambda n: n in members)[:count]
