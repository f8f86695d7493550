"""The objective as a function of activation rows.

A *row* is one (prompt, layer): the layer's activation at the answer position is replaced by the row and nothing
else is touched, ``f_l(w)``. Methods see only this function and never know how it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.model import Edit, NeuronModel, Objective, objective_value
from kn_attrib.prompts import Batch


@dataclass(frozen=True)
class PlainForward:
    """``f_l(w)`` by running the whole model: slow, right for every architecture, the reference for faster ones.

    Parameters
    ----------
    model, batch : the prompts that rows refer to.
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.
    """

    model: NeuronModel
    batch: Batch
    objective: Objective = "prob"

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
            logits = self.model.logits(positions, **self.batch.inputs(prompts))
        return objective_value(logits, answers, self.objective)

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
            logits = self.model.logits(self.batch.positions, **self.batch.inputs())
        return objective_value(logits, self.batch.answers, self.objective)


@dataclass(frozen=True)
class AnswerObjective:
    """The objective as a function of the input embeddings: the ``forward_func`` of Captum's layer methods."""

    model: NeuronModel
    objective: Objective = "prob"

    def __call__(
        self, embeddings: Tensor, positions: Tensor, answers: Tensor, source_ids: Tensor | None = None
    ) -> Tensor:
        """Objective of each row of ``embeddings [row, token, hidden]``: ``[row]``."""
        source = {} if source_ids is None else {"source_ids": source_ids}
        return objective_value(
            self.model.logits(positions, inputs_embeds=embeddings, **source), answers, self.objective
        )


def at_answer(vectors: Tensor, batch: Batch) -> Tensor:
    """``[prompt, token, neuron]`` -> ``[prompt, neuron]`` at each prompt's answer position."""
    return vectors[torch.arange(len(batch), device=vectors.device), batch.positions]


def record_all(model: NeuronModel, positions: Tensor, **inputs: Tensor) -> Tensor:
    """Neuron activations at all tokens, ``[prompt, layer, token, neuron]``; parameters as of `NeuronModel.logits`."""
    recorded: dict[int, Tensor] = {}

    def keep(layer: int) -> Edit:
        return lambda vectors: recorded.setdefault(layer, vectors)

    with torch.no_grad(), model.edited({layer: keep(layer) for layer in range(model.n_layers)}):
        model.logits(positions, **inputs)
    return torch.stack([recorded[layer] for layer in range(model.n_layers)], dim=1)


@dataclass(frozen=True)
class Rows:
    """All (prompt, layer) rows of a batch, prompt-major.

    Attributes
    ----------
    activations : ``[row, neuron]`` (or ``[row, token, neuron]``), the clean activations.
    layers, prompts : ``[row]``.
    """

    activations: Tensor
    layers: Tensor
    prompts: Tensor

    @classmethod
    def of(cls, activations: Tensor) -> Rows:
        """Rows of recorded activations ``[prompt, layer, neuron]`` or ``[prompt, layer, token, neuron]``."""
        n_prompts, n_layers = activations.shape[:2]
        layers = torch.arange(n_layers, device=activations.device).repeat(n_prompts)
        prompts = torch.arange(n_prompts, device=activations.device).repeat_interleave(n_layers)
        return cls(activations.flatten(0, 1), layers, prompts)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, part: slice | Tensor) -> Rows:
        return Rows(self.activations[part], self.layers[part], self.prompts[part])

    def chunks(self, size: int) -> list[Rows]:
        """Consecutive pieces of at most ``size`` rows (at least one row each)."""
        size = max(1, size)
        return [self[start : start + size] for start in range(0, len(self), size)]
