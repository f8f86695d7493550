"""What an intervention does to the chosen neurons: ``a ← factor · a + shift``, at the answer position or everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.evaluation.vocabulary import EVERYWHERE
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet
from kn_attrib.randomness import numpy_generator
from kn_attrib.units.view import UnitModel

REFERENCES = 16
"""Most other facts of a relation whose activations ``mean`` and ``resample`` take."""


class Change(NamedTuple):
    """``a ← factor · a + shift``.

    Parameters
    ----------
    factor : for all neurons of a set.
    shift : one number per neuron in the set's order; empty for none.
    everywhere : at all tokens instead of the answer position alone.
    """

    factor: float
    shift: tuple[float, ...] = ()
    everywhere: bool = False


NOTHING = Change(1.0)


@dataclass
class Interventions:
    """Interventions as changes of one model's neurons.

    Parameters
    ----------
    model : the model or view.
    pool : facts whose attribution prompts show what is usual in their relation.
    factor : of ``amplify``.
    seed : draws the facts of ``mean`` and ``resample``.
    """

    model: NeuronModel
    pool: Sequence[Candidate]
    factor: float = 2.0
    seed: int = 0
    _usual: dict[str, tuple[list[str], Tensor]] = field(default_factory=dict)

    def of(self, intervention: str, target: Candidate, neurons: NeuronSet) -> Change | None:
        """The change that an intervention is for some neurons of a fact; None without other facts to take from.

        Other units than neurons exist at the answer position only.
        """
        everywhere = intervention.endswith(EVERYWHERE)
        if everywhere and isinstance(self.model, UnitModel):
            return None
        name = intervention.removesuffix(EVERYWHERE)
        if name == "suppress":
            return Change(0.0, everywhere=everywhere)
        if name == "amplify":
            return Change(self.factor, everywhere=everywhere)
        facts, usual = self.usual(target.fact.relation)
        others = [i for i, fact in enumerate(facts) if fact != target.fact.id]
        if not others:
            return None
        if name == "resample":
            rng = numpy_generator(self.seed, "resample", target.fact.id)
            others = [others[int(rng.integers(len(others)))]]
        values = usual[others].mean(0)
        return Change(0.0, tuple(float(values[n.layer, n.index]) for n in neurons), everywhere)

    def usual(self, relation: str) -> tuple[list[str], Tensor]:
        """Ids of some facts of a relation, and their activations at the answer position ``[fact, layer, neuron]``.

        One attribution prompt of each, drawn with the seed; answers of several tokens: the mean over their queries.
        """
        if relation not in self._usual:
            members = [c for c in self.pool if c.fact.relation == relation]
            rng = numpy_generator(self.seed, "usual", relation)
            chosen = [members[i] for i in rng.permutation(len(members))[:REFERENCES]]
            texts = [c.prompts[int(rng.integers(len(c.prompts)))] for c in chosen]
            found = torch.zeros(len(texts), self.model.n_layers, self.model.n_neurons, dtype=torch.float64)
            owners = [i for i, text in enumerate(texts) for _ in text.queries]
            queries = [query for text in texts for query in text.queries]
            for indices, batch in self.model.batches(queries):
                values = self.model.record(batch).double().cpu()
                for index, value in zip(indices, values, strict=True):
                    owner = owners[index]
                    found[owner] += value / len(texts[owner])
            self._usual[relation] = [c.fact.id for c in chosen], found
        return self._usual[relation]
