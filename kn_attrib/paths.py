"""Integrals of gradients along paths: of activation rows, and of the input embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from captum import attr
from captum._utils.gradient import compute_layer_gradients_and_eval
from torch import Tensor

from kn_attrib.forward import AnswerObjective, Rows
from kn_attrib.model import NeuronModel, Objective
from kn_attrib.objective import RowObjective
from kn_attrib.prompts import Batch
from kn_attrib.quadrature import quadrature


def integrate(
    function: RowObjective, rows: Rows, rule: str, steps: int, zero: bool = False, baselines: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Integrated gradients of rows by one quadrature rule.

    Parameters
    ----------
    zero : add a node of no weight at the path's beginning.
    baselines : ``[row, neuron]``, where the paths begin; default zero.

    Returns
    -------
    ``[row, neuron]``, and the objective at the first node, ``[row]``.
    """
    weights, nodes = quadrature(rule, steps)
    if zero:
        weights, nodes, steps = [0.0, *weights], [0.0, *nodes], steps + 1
    first: list[Tensor] = []
    exact = torch.tensor(weights, dtype=torch.float64, device=rows.activations.device)

    # Captum keeps weights in single precision; inside the objective they are as exact as the model.
    def weighted(activations: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        values = function(activations, layers, prompts).view(steps, -1)
        first.append(values[0].detach())
        return (values * exact[:, None].to(values)).flatten()

    # One level below Captum's public entry, which takes a rule's name but no nodes of one's own.
    (scores,) = attr.IntegratedGradients(weighted)._attribute(
        (rows.activations,), (0.0 if baselines is None else baselines,), None, (rows.layers, rows.prompts), steps,
        step_sizes_and_alphas=([1.0] * steps, nodes),
    )  # fmt: skip
    return torch.as_tensor(scores).detach(), first[0]


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
    """Gradients and activations at points ``α · embeddings``, from one forward and backward for all layers."""
    inputs, n = model.embed(batch), len(points)
    line = torch.cat([inputs * alpha for alpha in points]).requires_grad_()
    where = tuple(part.repeat(n, *[1] * (part.ndim - 1)) for part in batch.where)
    gradients, states = compute_layer_gradients_and_eval(
        AnswerObjective(model, objective), model.taps, (line,), additional_forward_args=where,
        attribute_to_layer_input=True,
    )  # fmt: skip
    positions = where[0]
    rows = torch.arange(len(positions), device=positions.device)

    def at_answer(layers: Sequence[tuple[Tensor, ...]]) -> Tensor:
        vectors = torch.stack([layer[0].detach()[rows, positions] for layer in layers], dim=1)
        return vectors.view(n, len(batch), *vectors.shape[1:])

    return EmbeddingLine(at_answer(gradients), at_answer(states))


def parts(batch: Batch, max_rows: int, points: int) -> list[Batch]:
    """The batch in pieces that make at most ``max_rows`` rows with so many points each."""
    size = max(1, max_rows // points)
    return [Batch(batch.prompts[start : start + size], batch.device) for start in range(0, len(batch), size)]
