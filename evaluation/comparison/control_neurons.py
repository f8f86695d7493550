"""The neurons that a method's own are compared with: random, matched, another fact's, always on, lowest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kn_attrib.evaluation.vocabulary import BUDGET_CONTROLS
from kn_attrib.facts.prompts import Text
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import numpy_generator
from kn_attrib.techniques.deciles import deciles


def control_set(kind: str, neurons: NeuronSet, model: NeuronModel, seed: int, fact: str) -> NeuronSet:
    """A set of the same size: ``random`` over the model, or ``random_same_layer`` with the same number per layer.

    The draw avoids the method's own neurons wherever enough others are left, and depends only on seed, fact and
    size (or layers), so that methods with equally many neurons share their control.
    """
    if kind == "random":
        rng = numpy_generator(seed, kind, fact, len(neurons))
        order = rng.permutation(model.n_layers * model.n_neurons)
        drawn = [Neuron(*divmod(int(i), model.n_neurons)) for i in order[: 2 * len(neurons)]]
        return NeuronSet(_avoid(drawn, neurons, len(neurons)))
    chosen: list[Neuron] = []
    for layer, count in sorted(neurons.layers.items()):
        rng = numpy_generator(seed, kind, fact, layer, count)
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
        order = numpy_generator(seed, "random_matched", fact, layer, index).permutation(len(cell))
        drawn = [Neuron(layer, cell[i]) for i in order]
        taken.add(min(drawn, key=lambda n: (n in taken, n in neurons)))
    return NeuronSet(taken)


def _avoid(drawn: list[Neuron], taken: NeuronSet, count: int) -> list[Neuron]:
    members = set(taken)
    return sorted(drawn, key=lambda n: n in members)[:count]


@dataclass(frozen=True)
class SelectedNeurons:
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
        if kind in BUDGET_CONTROLS:
            return control_set(kind, own, self.model, self.seed, fact)
        if kind == "random_matched":
            return None if strength is None else matched_set(own, strength, self.seed, fact)
        if kind == "bottom_k":
            return NeuronSet(self.lowest[fact][: len(own)])
        if kind == "always_on":
            return NeuronSet(self.frequent[: len(own)])
        return self._other_fact(fact, same=kind == "other_fact_same_relation")

    def _other_fact(self, fact: str, same: bool) -> NeuronSet | None:
        relation = self.relations[fact]
        others = [other for other in self.sets if other != fact and (self.relations[other] == relation) == same]
        if not others:
            return None
        rng = numpy_generator(self.seed, "other_fact", fact, same)
        return self.sets[others[int(rng.integers(len(others)))]]

    @cached_property
    def frequent(self) -> list[Neuron]:
        """All selected neurons, those of most facts first."""
        counts = Counter(neuron for neurons in self.sets.values() for neuron in neurons)
        return sorted(counts, key=lambda neuron: (-counts[neuron], neuron))


def strengths(model: NeuronModel, prompts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Mean ``|a| · ‖v‖`` and mean size of the gradient of log p(answer) over texts, each ``[layer, neuron]``."""
    queries = [query for text in prompts for query in text.queries]
    write = torch.zeros(model.n_layers, model.n_neurons, dtype=torch.float64)
    slope = torch.zeros_like(write)
    for _, batch in model.batches(queries):
        function = objective_function(model, batch, "logprob")
        rows = Rows.of(function.activations)
        _, gradient = function.evaluate(rows.activations, rows.layers, rows.prompts, gradient=True)
        assert gradient is not None
        slope += gradient.view(function.activations.shape).double().abs().sum(0).cpu()
        write += (function.activations.abs() * model.value_norms()).double().sum(0).cpu()
    return write / len(queries), slope / len(queries)
