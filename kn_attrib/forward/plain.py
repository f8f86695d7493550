"""The objective as a function of activation rows, by whole passes through the model.

A *row* is one (prompt, layer): the layer's activation at the answer position is replaced by the row and nothing
else is touched, ``f_l(w)``. Methods see only this function and never know how it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Batch, MixedBatch
from kn_attrib.models.answers import Objective, objective_of
from kn_attrib.models.neuron_model import Edit, NeuronModel


@dataclass(frozen=True)
class PlainForward:
    """``f_l(w)`` by running the whole model: slow, right for every architecture, the reference for faster ones.

    Parameters
    ----------
    model, batch : the prompts that rows refer to.
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.

    Raises
    ------
    ModelError : the prompts are of several lengths.
    """

    model: NeuronModel
    batch: Batch
    objective: Objective = "prob"

    def __post_init__(self) -> None:
        if isinstance(self.batch, MixedBatch):
            raise ModelError(
                f"{self.model.name} runs prompts of one length at a time; take them from kn_attrib.forward.batching."
            )

    def __call__(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """Objective of each row.

        Parameters
        ----------
        rows : ``[row, neuron]``, the activations to put in at the answer; or ``[row, token, neuron]``, at all tokens.
        layers, prompts : ``[row]``, where each goes: layer index, and index of the prompt within the batch.

        Returns
        -------
        ``[row]``
        """
        positions, answers = self.batch.positions[prompts], self.batch.answers[prompts]
        present = sorted(set(layers.tolist()))
        with self.model.edited({layer: self._put(rows, layers == layer) for layer in present}):
            gold = self.model.gold(positions, answers, **self.batch.inputs(prompts))
        return objective_of(gold, self.objective)

    def _put(self, rows: Tensor, here: Tensor) -> Edit:
        index = here.nonzero()[:, 0]

        def edit(vectors: Tensor) -> Tensor:
            vectors = vectors.clone()
            if rows.ndim == vectors.ndim:
                vectors[index] = rows[index].to(vectors.dtype)
            else:
                vectors[index, self.model.positions[index]] = rows[index].to(vectors.dtype)
            return vectors

        return edit

    def clean(self) -> Tensor:
        """Objective of each prompt with nothing replaced: ``[prompt]``."""
        with torch.no_grad():
            gold = self.model.gold(self.batch.positions, self.batch.answers, **self.batch.inputs())
        return objective_of(gold, self.objective)
