"""What a method's neurons are compared with: other facts, plain words, and other neurons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.draws import generator
from kn_attrib.evaluation.selection import Candidate
from kn_attrib.forward import Rows
from kn_attrib.matching import deciles
from kn_attrib.model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.objective import objective_function
from kn_attrib.prompts import Text

Group = Literal["target", "same_object", "same_subject", "same_relation", "other_relation", "plain_text"]
GROUPS: tuple[Group, ...] = (
    "target", "same_object", "same_subject", "same_relation", "other_relation", "plain_text",
)  # fmt: skip
CONTROLS = (
    "random", "random_same_layer", "random_matched", "other_fact_same_relation", "other_fact_other_relation",
    "always_on", "bottom_k",
)  # fmt: skip
"""Control neurons of a set, as many as it has:

- ``random`` of the model, ``random_same_layer`` with as many per layer;
- ``random_matched``: of the same layer and decile of ``|a| · ‖v‖`` (for amplification: of the gradient's size);
- ``other_fact_…``: what the method selects for another fact (its own number of neurons);
- ``always_on``: the neurons that the method selects for most facts;
- ``bottom_k``: the neurons that the method gives the lowest scores.
"""
EVERYWHERE_CONTROLS = ("random", "random_same_layer")
"""Controls of equal budgets; all others are of the refined sets alone."""


def check_controls(names: Sequence[str]) -> None:
    """Raise on a control that does not exist."""
    for name in names:
        if name not in CONTROLS:
            raise ConfigError(unknown("control", name, CONTROLS))


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
        rng = generator(seed, "group", group, target.fact.id)
        chosen = rng.permutation(len(members))[:n_facts]
        groups[group] = tuple(members[i].held_out[int(rng.integers(len(members[i].held_out)))] for i in chosen)
    order = generator(seed, "group", "plain_text", target.fact.id).permutation(len(plain))
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


def matched_set(neurons: NeuronSet, strength: Tensor, seed: int, fact: str) -> NeuronSet:
    """For each neuron another one of its layer and of its decile of ``strength [layer, neuron]``, drawn at random.

    Neurons of the set are taken again only where its cell has no others left.
    """
    cells = deciles(strength[None])[0]
    taken: set[Neuron] = set()
    for layer, index in neurons:
        cell = (cells[layer] == cells[layer, index]).nonzero().flatten().tolist()
        order = generator(seed, "random_matched", fact, layer, index).permutation(len(cell))
        drawn = [Neuron(layer, cell[i]) for i in order]
        taken.add(min(drawn, key=lambda n: (n in taken, n in neurons)))
    return NeuronSet(taken)


def _avoid(drawn: list[Neuron], taken: NeuronSet, count: int) -> list[Neuron]:
    members = set(taken)
    return sorted(drawn, key=lambda n: n in members)[:count]


@dataclass(frozen=True)
class Chosen:
    """What one method has selected for all facts of a model or view, and the controls that follow from it.

    Parameters
    ----------
    model : the model or view.
    sets : fact -> neurons, of one selection.
    relations : fact -> relation.
    lowest : fact -> the lowest-scoring neurons, at least as many as the fact's set has, the lowest first.
    seed : of all draws.
    """

    model: NeuronModel
    sets: Mapping[str, NeuronSet]
    relations: Mapping[str, str]
    lowest: Mapping[str, Sequence[Neuron]]
    seed: int

    def control(self, kind: str, fact: str, strength: Tensor | None = None) -> NeuronSet | None:
        """The control set of a fact; None where there is none (no other fact, or no strengths to match)."""
        own = self.sets[fact]
        if kind in EVERYWHERE_CONTROLS:
            return control_set(kind, own, self.model, self.seed, fact)
        if kind == "random_matched":
            return None if strength is None else matched_set(own, strength, self.seed, fact)
        if kind == "bottom_k":
            return NeuronSet(self.lowest[fact][: len(own)])
        if kind == "always_on":
            return NeuronSet(self.frequent[: len(own)])
        return self._other_fact(fact, same=kind == "other_fact_same_relation")

    def _other_fact(self, fact: str, same: bool) -> NeuronSet | None:
        others = [
            other for other in self.sets
            if other != fact and (self.relations[other] == self.relations[fact]) == same
        ]  # fmt: skip
        if not others:
            return None
        return self.sets[others[int(generator(self.seed, "other_fact", fact, same).integers(len(others)))]]

    @cached_property
    def frequent(self) -> list[Neuron]:
        """All selected neurons, those of most facts first."""
        counts = Counter(neuron for neurons in self.sets.values() for neuron in neurons)
        return sorted(counts, key=lambda neuron: (-counts[neuron], neuron))


def strengths(model: NeuronModel, prompts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Mean ``|a| · ‖v‖`` and mean size of the gradient of log p(answer) over texts, each ``[layer, neuron]``."""
    queries = [query for text in prompts for query in text.queries]
    write, slope = (torch.zeros(model.n_layers, model.n_neurons, dtype=torch.float64) for _ in range(2))
    for _, batch in model.batches(queries):
        function = objective_function(model, batch, "logprob")
        rows = Rows.of(function.activations)
        _, gradient = function.evaluate(rows.activations, rows.layers, rows.prompts, gradient=True)
        assert gradient is not None
        slope += gradient.view(function.activations.shape).double().abs().sum(0).cpu()
        write += (function.activations.abs() * model.value_norms()).double().sum(0).cpu()
    return write / len(queries), slope / len(queries)
