"""What surrounds a plant: other facts, what enters each layer on them, how much neurons write for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kn_attrib.errors import FactError
from kn_attrib.evaluation.planted.layer_weights import seen_inputs
from kn_attrib.evaluation.planted.recipe import Recipe
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator

JUDGED = 300
"""Most other facts whose answers are looked at without and with a plant."""
MOST_FACTS = 1200
"""Most other facts that controls are taken from."""
ROWS = 256


@dataclass
class Surroundings:
    """Other facts of a model that shall stay as they are; what all plants need to know of them is computed once.

    Parameters
    ----------
    model : the base model.
    others : the facts.
    recipe : how facts are written; its seed draws.

    Raises
    ------
    FactError : there are no other facts.
    """

    model: NeuronModel
    others: Sequence[Fact]
    recipe: Recipe

    def __post_init__(self) -> None:
        if not self.others:
            raise FactError("there are no other facts to hold; give some as others=, e.g. load_facts('world').")

    @cached_property
    def controls(self) -> list[Prompt]:
        """Three attribution queries of each of some other facts."""
        order = torch.randperm(len(self.others), generator=torch_generator(self.recipe.seed, "others")).tolist()
        chosen = [self.others[i] for i in order[:MOST_FACTS]]
        found: list[Prompt] = []
        for fact in chosen:
            queries = self.model.encoder.encode_all([fact], "prompts").prompts
            picks = torch.randperm(len(queries), generator=torch_generator(self.recipe.seed, fact.id)).tolist()
            found += [queries[i] for i in picks[:3]]
        return found

    @cached_property
    def _pooled(self) -> tuple[dict[int, Tensor], Tensor]:
        """Of all controls: what enters each feed-forward block ``[layer][query, hidden]``, and neurons' use."""
        layers = range(self.model.n_layers)
        inputs: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(self.controls) for layer in layers}
        norms = self.model.value_norms()
        use = torch.zeros_like(norms)
        for indices, batch in self.model.batches(self.controls, ROWS):
            with ExitStack() as stack:
                seen = {layer: stack.enter_context(seen_inputs(self.model, layer)) for layer in layers}
                use += self.model.record(batch).abs().sum(0) * norms / len(self.controls)
            for layer, (vectors,) in seen.items():
                whole = vectors.reshape(len(batch), -1, vectors.shape[-1])
                for row, i in enumerate(indices):
                    inputs[layer][i] = whole[row, batch.prompts[row].position]
        return {layer: torch.stack(found) for layer, found in inputs.items()}, use

    def inputs(self, layer: int) -> Tensor:
        """What enters a layer's feed-forward block at the answers of all controls: ``[query, hidden]``."""
        return self._pooled[0][layer]

    @property
    def use(self) -> Tensor:
        """How much each neuron writes for other facts: mean ``|a|·‖v‖`` over the controls, ``[layer, neuron]``."""
        return self._pooled[1]

    @cached_property
    def judged(self) -> list[Prompt]:
        """Queries of one held-out text of each of some other facts."""
        order = torch.randperm(len(self.others), generator=torch_generator(self.recipe.seed, "judged")).tolist()
        found: list[Prompt] = []
        for i in order[:JUDGED]:
            texts = self.model.encoder.encode_all([self.others[i]], "held_out").texts
            if texts:
                found += texts[0].queries
        return found

    @cached_property
    def judged_before(self) -> Tensor:
        """Whether the base model answers each judged query rightly."""
        return self.right(self.judged)

    def right(self, queries: Sequence[Prompt]) -> Tensor:
        """1 for each query that the model, as it now is, answers rightly, else 0: ``[query]``."""
        right = torch.zeros(len(queries))
        for indices, batch in self.model.batches(queries, ROWS):
            right[indices] = (self.model.answers(batch).rank == 1).float().cpu()
        return right
