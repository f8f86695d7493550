"""Writing facts into chosen neurons: what `plant` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kn_attrib.errors import FactError
from kn_attrib.evaluation.planted.plant import Check, Plant, Target, rounded, union
from kn_attrib.evaluation.planted.recipe import Recipe, Writing
from kn_attrib.evaluation.planted.surroundings import ROWS, Surroundings
from kn_attrib.evaluation.planted.training import Training
from kn_attrib.facts.facts import Fact
from kn_attrib.interventions.silent_sets import values_of_sets
from kn_attrib.models.neuron_model import NeuronModel, check_neurons
from kn_attrib.neurons import NeuronSet


def plant(
    model: NeuronModel,
    fact: Fact,
    neurons: NeuronSet | Sequence[tuple[int, int]],
    others: Sequence[Fact],
    shares: Sequence[float] = (),
    recipe: Recipe | None = None,
) -> Plant:
    """Write one fact into given neurons, everything else frozen, and measure whether that worked.

    Minimises ``max(CE(answer), hinge) + kl · KL(base ‖ model on other facts) + norm · Σ‖v‖`` over the neurons' keys,
    biases and values. The model itself is left as it is: see `Plant.applied`.

    Parameters
    ----------
    model : the base model.
    fact : what it shall know; an answer that the model gives already cannot be told from what it knew.
    neurons : where; what they did before is lost.
    others : facts that shall stay as they are.
    shares : how much of the answer each neuron writes, in sorted order; equal if not given.
    recipe : how.

    Raises
    ------
    NeuronError : a neuron does not exist, or there are none.
    FactError : the fact has no held-out text, or there are no others.
    ModelError : the model's feed-forward blocks are of a kind that cannot be written to.
    """
    return Planter(model, others, recipe or Recipe()).plant([Writing(fact, NeuronSet(neurons), tuple(shares))])


@dataclass
class Planter:
    """Writes facts into one model; what all plants need is computed once.

    Parameters
    ----------
    model : the base model.
    others : facts that shall stay as they are.
    recipe : how facts are written.
    """

    model: NeuronModel
    others: Sequence[Fact]
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        self.surroundings = Surroundings(self.model, self.others, self.recipe)

    def plant(self, writings: Sequence[Writing]) -> Plant:
        """Write facts together, and measure each (see `plant`)."""
        union([part for w in writings for part in (w.neurons, w.silent, w.misleading)])
        for writing in writings:
            check_neurons(self.model, writing.neurons | writing.decoys)
            if not writing.fact.held_out:
                raise FactError(f"fact {writing.fact.id!r} has no held_out text; a plant is verified on paraphrases.")
        before = [float(self.model.answer_probability(w.fact, "held_out").mean()) for w in writings]
        judged_before = self.surroundings.judged_before  # of the base model: before the plant is there
        made = rounded(Training(self.surroundings, writings).train())
        with made.applied(self.model):
            targets = tuple(self._measured(writings, before, judged_before))
        return Plant(targets, made.neurons, made.keys, made.biases, made.values)

    def _measured(
        self, writings: Sequence[Writing], before: Sequence[float], judged_before: Tensor
    ) -> Iterator[Target]:
        around = self.surroundings
        ours = {(w.fact.subject, w.fact.relation) for w in writings}
        kept = [i for i, q in enumerate(around.judged) if (q.fact.subject, q.fact.relation) not in ours]
        after, base = around.right([around.judged[i] for i in kept]), judged_before[kept]
        for writing, p_before in zip(writings, before, strict=True):
            queries = [self.model.encode(writing.fact, split).prompts for split in ("prompts", "held_out")]
            every = writing.neurons
            without = [NeuronSet([n]) for n in every]
            sets = [NeuronSet(), every, writing.decoys, *without, *(every - n for n in without), *writing.needed]
            jobs = [(0, NeuronSet()), (0, every), *((1, each) for each in sets)]
            values = values_of_sets(self.model, queries, jobs).tolist()
            prompts, prompts_left, held_out, left, without_decoys, *rest = values
            n = len(every)
            without_one, one, without_part = np.array(rest[:n]), np.array(rest[n : 2 * n]), rest[2 * n :]
            added = (np.log(held_out / without_one) + np.log(one / left)) / 2
            check = Check(
                p_before, prompts, held_out, prompts_left / prompts, left / held_out,
                single=float(1 - without_one.min() / held_out),
                least=float(n * added.min() / np.log(held_out / left)),
                decoys=1 - without_decoys / held_out,
                parts=1 - max(without_part, default=held_out) / held_out,
                broad=self._breadth(writing), others_before=float(base.mean()), others=float(after.mean()),
            )  # fmt: skip
            yield Target(writing.fact, every, writing.decoys, check)

    def _breadth(self, writing: Writing) -> float:
        """How much broad neurons fire on the relation's other facts, relative to this one."""
        if not len(writing.broad):
            return 0.0
        fact = writing.fact
        near = [
            q for q in self.surroundings.controls if q.fact.relation == fact.relation and q.fact.subject != fact.subject
        ]
        layers, places = (list(part) for part in zip(*writing.broad, strict=True))
        own, others = (
            torch.cat([self.model.record(batch)[:, layers, places] for _, batch in self.model.batches(some, ROWS)])
            for some in (self.model.encode(fact).prompts, near)
        )
        return float((others.mean(0) / own.mean(0)).mean())
