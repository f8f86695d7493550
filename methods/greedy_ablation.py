"""Greedy direct search: the set of neurons whose joint removal costs most, grown one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Prompt
from kn_attrib.forward.batching import batches_of
from kn_attrib.interventions.silent_sets import Measure, slopes_of_sets, values_of_sets
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.contrast_pool import Pool
from kn_attrib.scoring.registry import make_scorer, register
from kn_attrib.scoring.scorer import FactScorer

PREFIXES = (1, 2, 5, 10)
"""Sizes at which two orders are compared, beside the full one."""


@register("greedy_ablation")
@dataclass(frozen=True)
class GreedyAblation(FactScorer):
    """Direct search for the neurons that suppress the answer most together: what other methods are measured against.

    ``S ← S ∪ {argmin over i of mean F(S ∪ {i} silent)}``, the mean over all texts of the fact, beginning with none,
    until ``size`` neurons are in; ``score = size, size − 1, …`` in the order of entry. At each step the
    candidates are those neurons whose removal would cost most by the gradient *at the current set*; they are then
    ranked exactly. Neurons outside the set score below 1, in the order of that gradient at the last step. It is what
    search reaches on the prompts that it sees; held-out prompts tell how much of that is chance, and a method may do
    better there. ``F`` is the log-odds of the answer, which still fall where its probability is almost 1. One step at
    a time a search cannot see what only several neurons together do: where the order of ``against`` does better on the
    searched prompts, it is taken. Cost, beside that method's:
    ``size · (candidates · beam + 1)`` forwards and ``size`` backwards per prompt.

    Parameters
    ----------
    size : neurons in the set.
    candidates : neurons tried exactly at each step.
    beam : sets that are kept from step to step.
    objective : ``F``: ``"logodds"`` or ``"prob"``.
    against : a method whose order is taken instead wherever it does better on the searched prompts; ``""`` for none.

    Raises
    ------
    MethodError : a number is below 1, or the model has fewer neurons than the set.

    Reference
    ---------
    The sceptics' question to Dai et al. 2022: would direct search not do better?
    """

    size: int = 20
    candidates: int = 12
    beam: int = 1
    objective: Measure = "logodds"
    against: str = "integrated_gradients"
    reference: ClassVar[str] = "direct search"

    def __post_init__(self) -> None:
        for name in ("size", "candidates", "beam"):
            if getattr(self, name) < 1:
                raise MethodError(f"greedy_ablation: {name} is {getattr(self, name)}; expected at least 1.")

    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        if self.size > model.n_layers * model.n_neurons:
            raise MethodError(f"greedy_ablation: size is {self.size}; {model.name} has fewer neurons.")
        queries = [[pool.prompts[i] for i in pool.of(fact)] for fact in pool.facts]
        chosen = [[Path()] for _ in queries]
        for _ in range(self.size):
            chosen = self._grown(model, queries, chosen)
        chosen = self._better(model, queries, chosen, self._other_order(model, pool))
        slopes = slopes_of_sets(model, queries, [NeuronSet(paths[0].neurons) for paths in chosen], self.objective)
        return {
            fact.id: self._in_order(paths[0].neurons, slope)
            for fact, paths, slope in zip(pool.facts, chosen, slopes, strict=True)
        }

    def _other_order(self, model: NeuronModel, pool: Pool) -> list[Path]:
        """The best neurons of each fact by the method that the search is held against, in its order."""
        if not self.against:
            return []
        scorer = make_scorer(self.against).fit(model, pool.prompts, pool.others)
        values = torch.empty(len(pool.prompts), model.n_layers * model.n_neurons, dtype=torch.float64)
        for indices, batch in batches_of(model, pool.prompts, 64, scorer.any_length):
            found = scorer.score(model, batch)
            scores = found if isinstance(found, Tensor) else found.values
            values[indices] = scores.detach().flatten(1).cpu().double()
        orders = []
        for fact in pool.facts:
            mean = values[pool.of(fact)].mean(0)
            top = mean.sort(descending=True, stable=True).indices[: self.size].tolist()
            orders.append(Path(tuple(Neuron(*divmod(index, model.n_neurons)) for index in top)))
        return orders

    def _better(
        self, model: NeuronModel, queries: list[list[Prompt]], chosen: list[list[Path]], others: list[Path]
    ) -> list[list[Path]]:
        """For each fact the order whose first neurons, few and many, lower the objective more on average."""
        if not others:
            return chosen
        sizes = [k for k in PREFIXES if k < self.size] + [self.size]
        jobs = [
            (fact, NeuronSet(order.neurons[:k]))
            for fact, (paths, other) in enumerate(zip(chosen, others, strict=True))
            for order in (paths[0], other)
            for k in sizes
        ]
        values = values_of_sets(model, queries, jobs, self.objective)
        means = values.view(len(chosen), 2, len(sizes)).mean(-1).tolist()
        return [
            paths if own <= against else [other]
            for paths, other, (own, against) in zip(chosen, others, means, strict=True)
        ]

    def _grown(self, model: NeuronModel, queries: list[list[Prompt]], chosen: list[list[Path]]) -> list[list[Path]]:
        """The best sets of every fact with one neuron more."""
        owners = [(fact, path) for fact, paths in enumerate(chosen) for path in paths]
        slopes = slopes_of_sets(
            model,
            [queries[fact] for fact, _ in owners],
            [NeuronSet(path.neurons) for _, path in owners],
            self.objective,
        )
        jobs: dict[tuple[int, frozenset[Neuron]], tuple[Neuron, ...]] = {}
        for (fact, path), slope in zip(owners, slopes, strict=True):
            for neuron in self._promising(slope, path):
                grown = (*path.neurons, neuron)
                # The same set may be reached in several orders; the first one found stands for all.
                jobs.setdefault((fact, frozenset(grown)), grown)
        sets = [(fact, NeuronSet(grown)) for (fact, _), grown in jobs.items()]
        values = values_of_sets(model, queries, sets, self.objective)
        found: list[list[Path]] = [[] for _ in queries]
        for ((fact, _), grown), value in zip(jobs.items(), values.tolist(), strict=True):
            found[fact].append(Path(grown, value))
        return [sorted(paths, key=lambda path: path.value)[: self.beam] for paths in found]

    def _promising(self, slope: Tensor, path: Path) -> list[Neuron]:
        """Neurons outside the set with the largest estimated loss."""
        flat = slope.flatten().clone()
        width = slope.shape[1]
        flat[[neuron.layer * width + neuron.index for neuron in path.neurons]] = -torch.inf
        best = flat.topk(min(self.candidates, len(flat) - len(path.neurons))).indices.tolist()
        return [Neuron(*divmod(index, width)) for index in best]

    def _in_order(self, neurons: tuple[Neuron, ...], slope: Tensor) -> Tensor:
        """The set's neurons by their order of entry, the others below 1 by their slope: ``[layer, neuron]``."""
        ranks = slope.flatten().argsort().argsort().reshape(slope.shape).to(slope)
        scores = ranks / (slope.numel() + 1)
        for place, neuron in enumerate(neurons):
            scores[neuron.layer, neuron.index] = self.size - place
        return scores


@dataclass(frozen=True)
class Path:
    """Neurons in the order in which they entered, and the mean objective with all of them silent."""

    neurons: tuple[Neuron, ...] = ()
    value: float = 1.0
