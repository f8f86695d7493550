"""The planted benchmark's axes of difficulty: which facts are written into which neurons, and how."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from kn_attrib.errors import FactError
from kn_attrib.evaluation.planted.plant import union
from kn_attrib.evaluation.planted.planter import Planter
from kn_attrib.evaluation.planted.recipe import Writing
from kn_attrib.facts.facts import Fact
from kn_attrib.neurons import NeuronSet
from kn_attrib.randomness import torch_generator

SINGLE, GROUPS, TRIPLES = 7, 4, 3
"""Plants wanted of an axis that plants facts one by one, of one that plants pairs, and of one that plants triples."""
TRIES = 2
"""Most plants tried for one that is wanted."""
USED_LEAST = 0.25
"""Plants replace neurons of this share of their layer that write least for other facts."""
SHARES = (8.0, 4.0, 2.0, 1.0)
"""How much of an ``unequal`` plant its neurons write, in random order."""
MIXED_SHARES = (2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0)
"""The same of a ``mixed`` plant."""

AXES = {
    "k=1": "one neuron of the last layer",
    "k=2": "two neurons of the last layer, equal shares",
    "k=4": "four neurons of the last layer, equal shares",
    "k=8": "eight neurons of the last layer, equal shares",
    "middle": "four neurons of a middle layer",
    "unequal": "four neurons that write 8 : 4 : 2 : 1",
    "saturated": "six neurons any one of which suffices",
    "backup": "two neurons of the last layer and two of the one before, either pair of which suffices",
    "joint": "three facts planted together, four neurons each",
    "silent_decoys": "four neurons, and four more that fire on the fact but write what they always did",
    "misleading_decoys": "four neurons, and four more that fire on the fact and write towards another fact's answer",
    "k=16": "sixteen neurons of the last layer, equal shares",
    "spread": "eight neurons, of all layers from the second on",
    "busy": "four of the neurons that write most for other facts, which go on doing so",
    "additive": "two neurons that fire on the relation and two that fire on the fact, either pair of which is needed",
    "mixed": "eight busy neurons of all layers from the second on, unequal shares, and four silent decoys",
    "shared_subject": "two facts of one subject, four neurons each",
    "shared_object": "two facts of one answer, four neurons each",
}


@dataclass
class PlantDraws:
    """Counterfactual facts and hardly used neurons, drawn by a seed; no subject comes twice.

    Parameters
    ----------
    planter : of the model.
    facts : what counterfacts are made of: a subject gets the answer of another subject of its relation.
    seed : of all draws.
    """

    planter: Planter
    facts: Sequence[Fact]
    seed: int
    _taken: set[str] = field(default_factory=set)
    _turn: int = 0

    def __post_init__(self) -> None:
        self._dice = torch_generator(self.seed, "plants", self.planter.model.name)
        self._of: dict[str, list[Fact]] = defaultdict(list)
        for i in torch.randperm(len(self.facts), generator=self._dice).tolist():
            self._of[self.facts[i].relation].append(self.facts[i])

    def fact(self, relation: str | None = None) -> Fact:
        """A fact of the relation whose turn it is, of a subject not drawn before."""
        names = list(self._of) if relation is None else [relation]
        for _ in names:
            self._turn += 1
            for fact in self._of[names[self._turn % len(names)]]:
                if fact.subject not in self._taken:
                    self._taken.add(fact.subject)
                    return fact
        raise FactError("there are too few facts for the benchmark's plants; give more subjects.")

    def answers(self, fact: Fact) -> list[str]:
        """Other answers of the fact's relation, in random order."""
        found = sorted({f.answer for f in self._of[fact.relation]} - {fact.answer})
        return [found[i] for i in torch.randperm(len(found), generator=self._dice).tolist()]

    def neurons(self, layer: int, *sizes: int, busy: bool = False) -> list[NeuronSet]:
        """Disjoint sets of hardly used neurons of a layer, or of busy ones."""
        use = self.planter.surroundings.use[layer] * (-1 if busy else 1)
        pool = use.argsort()[: max(sum(sizes), int(USED_LEAST * len(use)))]
        picks = pool[torch.randperm(len(pool), generator=self._dice)].tolist()
        sets = []
        for size in sizes:
            sets.append(NeuronSet((layer, i) for i in picks[:size]))
            picks = picks[size:]
        return sets

    def shared_subject(self) -> tuple[Fact, Fact]:
        """Two facts of one subject."""
        by_subject: dict[str, list[Fact]] = defaultdict(list)
        for facts in self._of.values():
            for fact in facts:
                by_subject[fact.subject].append(fact)
        free = [own for subject, own in by_subject.items() if len(own) > 1 and subject not in self._taken]
        if not free:
            raise FactError("no subject has two facts; the axis 'shared_subject' needs some.")
        own = free[int(torch.randint(len(free), (1,), generator=self._dice))]
        self._taken.add(own[0].subject)
        return own[0], own[1]


def counterfact(fact: Fact, answer: str) -> Fact:
    """The fact with another answer, under another id."""
    return replace(fact, id=f"planted:{fact.id}", answer=answer)


def writings(draws: PlantDraws, axis: str, turn: int) -> list[Writing]:
    """One plant of an axis: one fact, or several to be planted together."""
    last = draws.planter.model.n_layers - 1
    if axis in ("joint", "shared_subject", "shared_object"):
        return _together(draws, axis, last)
    fact = draws.fact()
    answer, other = draws.answers(fact)[:2]
    made = counterfact(fact, answer)
    if axis.startswith("k="):
        return [Writing(made, draws.neurons(last, int(axis[2:]))[0])]
    if axis == "middle":
        return [Writing(made, draws.neurons((last - 1) // 2 + turn % 2, 4)[0])]
    if axis == "unequal":
        order = torch.randperm(4, generator=torch_generator(draws.seed, made.id)).tolist()
        return [Writing(made, draws.neurons(last, 4)[0], shares=tuple(SHARES[i] for i in order))]
    if axis == "saturated":
        own = draws.neurons(last, 6)[0]
        return [Writing(made, own, enough=tuple(NeuronSet([n]) for n in own))]
    if axis == "backup":
        parts = (draws.neurons(last - 1, 2)[0], draws.neurons(last, 2)[0])
        return [Writing(made, parts[0] | parts[1], enough=parts)]
    if axis in ("spread", "mixed"):
        return [_over_layers(draws, made, last, mixed=axis == "mixed")]
    if axis == "busy":
        return [Writing(made, draws.neurons(last, 4, busy=True)[0], keep=True)]
    if axis == "additive":
        broad, narrow = draws.neurons(last, 2, 2)
        return [Writing(made, broad | narrow, needed=(broad, narrow), broad=broad)]
    own, decoys = draws.neurons(last, 4, 4)
    if axis == "silent_decoys":
        return [Writing(made, own, silent=decoys)]
    return [Writing(made, own, misleading=decoys, mislead=replace(fact, answer=other))]


def _over_layers(draws: PlantDraws, fact: Fact, last: int, mixed: bool) -> Writing:
    """Eight neurons as evenly over the layers from the second on as it goes."""
    counts = (torch.arange(8) % last + 1).bincount(minlength=last + 1).tolist()
    # Of each layer its share of the eight, of the last layer four decoys too.
    sets = [draws.neurons(layer, n, 4 if layer == last else 0, busy=mixed) for layer, n in enumerate(counts) if n]
    own = union([planted for planted, _ in sets])
    if not mixed:
        return Writing(fact, own)
    _, decoys = sets[-1]
    order = torch.randperm(len(own), generator=torch_generator(draws.seed, fact.id)).tolist()
    return Writing(fact, own, tuple(MIXED_SHARES[i] for i in order), keep=True, silent=decoys)


def _together(draws: PlantDraws, axis: str, layer: int) -> list[Writing]:
    """Facts to be planted into disjoint sets of four neurons of a layer."""
    if axis == "shared_subject":
        facts = draws.shared_subject()
        made = [counterfact(f, draws.answers(f)[0]) for f in facts]
    elif axis == "shared_object":
        first = draws.fact()
        second = draws.fact(first.relation)
        answer = next(a for a in draws.answers(first) if a != second.answer)
        made = [counterfact(first, answer), counterfact(second, answer)]
    else:
        made = []
        for _ in range(3):
            fact = draws.fact()
            made.append(counterfact(fact, draws.answers(fact)[0]))
    sets = draws.neurons(layer, *[4] * len(made))
    return [Writing(fact, own) for fact, own in zip(made, sets, strict=True)]


def wanted(axis: str) -> int:
    """How many plants of an axis are kept."""
    if axis == "joint":
        return TRIPLES
    return GROUPS if axis.startswith("shared") else SINGLE
