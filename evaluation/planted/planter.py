"""Writing facts into chosen neurons: what `plant` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from kn_attrib.errors import ConfigError, FactError
from kn_attrib.evaluation.planted.plant import Check, Plant, Target, rounded, union
from kn_attrib.evaluation.planted.recipe import Recipe, Writing
from kn_attrib.evaluation.planted.surroundings import ROWS, Surroundings
from kn_attrib.evaluation.planted.training import Training
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.silent_sets import values_of_sets
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel, check_neurons
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.neurons import NeuronSet


@torch_defaults()
def plant(
    model: NeuronModel,
    fact: Fact,
    neurons: NeuronSet | Sequence[tuple[int, int]],
    others: Sequence[Fact],
    shares: Sequence[float] = (),
    recipe: Recipe | None = None,
    seed: int | None = None,
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
    seed : of all that is drawn; default the recipe's.

    Raises
    ------
    ConfigError : the recipe says of decoys how they are written.
    NeuronError : a neuron does not exist, or there are none.
    FactError : the fact has no held-out text, or there are no others.
    ModelError : the model's feed-forward blocks are of a kind that cannot be written to.
    """
    check_model(model)
    how = recipe or Recipe()
    if how.mislead != Recipe.mislead:
        raise ConfigError(
            f"the recipe's mislead is {how.mislead}, of misleading decoys, and plant writes none; leave it out, or "
            "write with a Planter."
        )
    how = how if seed is None else replace(how, seed=seed)
    return Planter(model, others, how).plant([Writing(fact, NeuronSet(neurons), tuple(shares))])


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

    @torch_defaults()
    def __post_init__(self) -> None:
        self.surroundings = Surroundings(self.model, self.others, self.recipe)

    @torch_defaults()
    def plant(self, writings: Sequence[Writing]) -> Plant:
        """Write facts together, and measure each (see `plant`)."""
        # Raises on a neuron that is given twice.
        union([part for w in writings for part in (w.neurons, w.silent, w.misleading)])
        for writing in writings:
            check_neurons(self.model, writing.neurons | writing.decoys)
            if not writing.fact.held_out:
                raise FactError(f"fact {writing.fact.id!r} has no held_out text; a plant is verified on paraphrases.")
            if len(writing.broad) and not self._near(writing.fact):
                raise FactError(
                    f"fact {writing.fact.id!r} is given broad neurons, which fire on its whole relation, but others= "
                    f"holds no other fact of {writing.fact.relation!r}; give some."
                )
        before = [float(self.model.answer_probability(w.fact, "held_out").mean()) for w in writings]
        judged_before = self.surroundings.judged_before  # of the base model: before the plant is there
        made = rounded(Training(self.surroundings, writings).train())
        with made.applied(self.model):
            targets = tuple(self._measured(writings, before, judged_before))
        return Plant(targets, made.neurons, made.keys, made.biases, made.values, self.recipe.seed)

    def _measured(
        self, writings: Sequence[Writing], before: Sequence[float], judged_before: Tensor
    ) -> Iterator[Target]:
        """Each fact with what is measured on it; the plant is applied."""
        judged = self.surroundings.judged
        ours = {(w.fact.subject, w.fact.relation) for w in writings}
        kept = [i for i, query in enumerate(judged) if (query.fact.subject, query.fact.relation) not in ours]
        others_before = float(judged_before[kept].mean())
        others = float(self.surroundings.right([judged[i] for i in kept]).mean())
        for writing, p_before in zip(writings, before, strict=True):
            check = self._check(writing, p_before, others_before, others)
            yield Target(writing.fact, writing.neurons, writing.decoys, check)

    def _check(self, writing: Writing, before: float, others_before: float, others: float) -> Check:
        """The answer's probability with one set of neurons after the other silent, as shares."""
        every = writing.neurons
        singles = [NeuronSet([neuron]) for neuron in every]
        all_but_one = [every - single for single in singles]
        silent_on_prompts = [NeuronSet(), every]
        silent_on_held_out = [NeuronSet(), every, writing.decoys, *singles, *all_but_one, *writing.needed]

        queries = [self.model.encode(writing.fact, split).prompts for split in ("prompts", "held_out")]
        jobs = [(0, neurons) for neurons in silent_on_prompts] + [(1, neurons) for neurons in silent_on_held_out]
        p = iter(values_of_sets(self.model, queries, jobs).tolist())
        p_prompts, p_prompts_without_all = next(p), next(p)
        p_held_out, p_without_all, p_without_decoys = next(p), next(p), next(p)
        p_without_one = np.array([next(p) for _ in singles])
        p_with_one_alone = np.array([next(p) for _ in all_but_one])
        p_without_part = [next(p) for _ in writing.needed]

        # What each neuron adds to the log-probability: to all the others, and to none.
        added = (np.log(p_held_out / p_without_one) + np.log(p_with_one_alone / p_without_all)) / 2
        return Check(
            before=before,
            prompts=p_prompts,
            held_out=p_held_out,
            left_prompts=p_prompts_without_all / p_prompts,
            left=p_without_all / p_held_out,
            single=float(1 - p_without_one.min() / p_held_out),
            least=float(len(every) * added.min() / np.log(p_held_out / p_without_all)),
            decoys=1 - p_without_decoys / p_held_out,
            parts=1 - max(p_without_part, default=p_held_out) / p_held_out,
            broad=self._breadth(writing),
            others_before=others_before,
            others=others,
        )

    def _breadth(self, writing: Writing) -> float:
        """How much broad neurons fire on the relation's other facts, relative to this one."""
        if not len(writing.broad):
            return 0.0
        own = self._mean_activations(writing.broad, self.model.encode(writing.fact).prompts)
        others = self._mean_activations(writing.broad, self._near(writing.fact))
        return float((others / own).mean())

    def _near(self, fact: Fact) -> list[Prompt]:
        """Queries of the relation's other facts."""
        controls = self.surroundings.controls
        return [q for q in controls if q.fact.relation == fact.relation and q.fact.subject != fact.subject]

    def _mean_activations(self, neurons: NeuronSet, queries: Sequence[Prompt]) -> Tensor:
        """Over queries: ``[neuron]``."""
        layers = [neuron.layer for neuron in neurons]
        places = [neuron.index for neuron in neurons]
        found = [self.model.record(batch)[:, layers, places] for _, batch in self.model.batches(queries, ROWS)]
        return torch.cat(found).mean(0)
