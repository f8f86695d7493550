"""Queries of many facts: what methods that compare facts with one another are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.neuron_model import NeuronModel

Label = Literal["fact", "answer"]
LABELS = ("fact", "answer")


@dataclass(frozen=True)
class Pool:
    """Encoded queries of the facts that are scored, and of others that they are compared with.

    Parameters
    ----------
    model : the model they are put to.
    prompts : queries of the facts to be scored, a text's queries side by side.
    others : queries of further facts.
    """

    model: NeuronModel
    prompts: tuple[Prompt, ...]
    others: tuple[Prompt, ...] = ()

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def queries(self) -> tuple[Prompt, ...]:
        """All queries; indices and `activations` refer to this order."""
        return self.prompts + self.others

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """The facts to be scored, each once."""
        return tuple({prompt.fact.id: prompt.fact for prompt in self.prompts}.values())

    @cached_property
    def activations(self) -> Tensor:
        """Clean activations at the answer position: ``[query, layer, neuron]``."""
        recorded = torch.empty(
            len(self), self.model.n_layers, self.model.n_neurons, dtype=self.model.dtype, device=self.model.device
        )
        for indices, batch in self.model.batches(self.queries):
            recorded[indices] = self.model.record(batch)
        return recorded

    def of(self, fact: Fact) -> list[int]:
        """Indices of a fact's own queries."""
        return [i for i, query in enumerate(self.queries) if query.fact.id == fact.id]

    def contrast(self, fact: Fact, same_relation: bool | None = None) -> list[int]:
        """Indices of queries of facts with another answer and another subject.

        Parameters
        ----------
        same_relation : only of the fact's own relation (True), only of others (False), or of any (None).
        """
        return [
            i
            for i, query in enumerate(self.queries)
            if query.fact.answer != fact.answer
            and query.fact.subject != fact.subject
            and same_relation in (None, query.fact.relation == fact.relation)
        ]

    def classes(self, fact: Fact, label: Label) -> dict[str, list[int]]:
        """Indices of queries by what a probe of a fact tells apart; in an order that depends on their content alone.

        Parameters
        ----------
        label : ``"fact"``: the fact's own queries (under its id) against those of facts with another answer and another
            subject (under ``""``); ``"answer"``: the queries of the fact's relation, by answer.

        Raises
        ------
        MethodError : there is nothing to tell apart.
        """
        if label not in LABELS:
            raise MethodError(unknown("label", label, LABELS))
        if label == "fact":
            found = {fact.id: self.of(fact), "": self.contrast(fact)}
        else:
            related = [i for i, query in enumerate(self.queries) if query.fact.relation == fact.relation]
            answers = sorted({self.queries[i].fact.answer for i in related})
            found = {name: [i for i in related if self.queries[i].fact.answer == name] for name in answers}
        if len(found) < 2 or not all(found.values()):
            what = "another answer and another subject" if label == "fact" else f"another answer in {fact.relation!r}"
            raise MethodError(
                f"fact {fact.id!r} has nothing to be told apart from: no other fact has {what}. Score several facts at "
                "once, or give more as contrast=."
            )
        return {name: sorted(indices, key=self._content) for name, indices in found.items()}

    def _content(self, index: int) -> tuple[str, str, int]:
        query = self.queries[index]
        return query.fact.id, query.text, query.token


def pool_of(model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Pool:
    """A pool in which no query of a scored fact comes a second time among the others."""
    scored = {prompt.fact.id for prompt in prompts}
    return Pool(model, tuple(prompts), tuple(other for other in others if other.fact.id not in scored))
