"""All layers along a line of input embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.forward.memory import bytes_per_row
from kn_attrib.forward.plain import PlainForward
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.techniques.captum_internals import Layers, layer_gradients_and_inputs


@dataclass(frozen=True)
class EmbeddingLine:
    """All layers along the straight line from zero input embeddings to the prompts' own.

    Attributes
    ----------
    gradients : of the objective, ``[point, prompt, layer, neuron]`` at the answer position.
    states : the activations there, of the same shape.
    """

    gradients: Tensor
    states: Tensor


def along_embeddings(model: NeuronModel, batch: Batch, objective: Objective, points: Sequence[float]) -> EmbeddingLine:
    """Gradients and activations at points ``α · embeddings``, from one forward and backward for all layers.

    As many points at a time as fit into the model's memory budget.

    Norms without a shift make gradients huge where embeddings vanish, deep stacks of them more than a number can hold:
    where a prompt's gradients in a layer overflow at the first point, those of the second stand in their place.
    """
    inputs, n = model.embed(batch), len(points)
    size = max(1, _rows_that_fit(model, batch) // len(batch))
    parts = [_at_points(model, batch, objective, inputs, points[i : i + size]) for i in range(0, n, size)]
    slopes, states = (torch.cat(each) for each in zip(*parts, strict=True))
    if n > 1:
        slopes[0] = torch.where(slopes[0].isfinite().all(-1, keepdim=True), slopes[0], slopes[1])
    return EmbeddingLine(slopes, states)


def _rows_that_fit(model: NeuronModel, batch: Batch) -> int:
    """Rows that may go through the model and back at a time."""
    each = float(bytes_per_row(PlainForward(model, batch), gradient=True)[0])
    return int(model.execution.row_budget(model.device) // each)


def _at_points(
    model: NeuronModel, batch: Batch, objective: Objective, inputs: Tensor, points: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Gradients and activations at some points, ``[point, prompt, layer, neuron]``."""
    n = len(points)
    line = torch.cat([inputs * alpha for alpha in points]).requires_grad_()
    where = tuple(part.repeat(n, *[1] * (part.ndim - 1)) for part in batch.where)
    gradients, states = layer_gradients_and_inputs(EmbeddingObjective(model, objective), model.hook_points, line, where)
    positions = where[0]
    rows = torch.arange(len(positions), device=positions.device)

    def at_answer(layers: Layers) -> Tensor:
        vectors = torch.stack([layer[0].detach()[rows, positions] for layer in layers], dim=1)
        return vectors.view(n, len(batch), *vectors.shape[1:])

    return at_answer(gradients), at_answer(states)


def batch_parts(batch: Batch, max_rows: int, points: int) -> list[Batch]:
    """The batch in pieces that make at most ``max_rows`` rows with so many points each."""
    size = max(1, max_rows // points)
    return [Batch(batch.prompts[start : start + size], batch.device) for start in range(0, len(batch), size)]
