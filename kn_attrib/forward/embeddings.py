"""The objective as a function of the input embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kn_attrib.models.answers import Objective, objective_of
from kn_attrib.models.neuron_model import NeuronModel


@dataclass(frozen=True)
class EmbeddingObjective:
    """The objective as a function of the input embeddings: the ``forward_func`` of Captum's layer methods."""

    model: NeuronModel
    objective: Objective = "prob"

    def __call__(
        self, embeddings: Tensor, positions: Tensor, answers: Tensor, source_ids: Tensor | None = None
    ) -> Tensor:
        """Objective of each row of ``embeddings [row, token, hidden]``: ``[row]``."""
        source = {} if source_ids is None else {"source_ids": source_ids}
        return objective_of(self.model.gold(positions, answers, inputs_embeds=embeddings, **source), self.objective)
