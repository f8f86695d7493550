"""Integrals of gradients along paths of activation rows."""

from __future__ import annotations

import torch
from torch import Tensor

from kn_attrib.forward.row_objective import RowObjective
from kn_attrib.forward.rows import Rows
from kn_attrib.techniques.captum_internals import integrated_gradients_at
from kn_attrib.techniques.quadrature import quadrature


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

    start = 0.0 if baselines is None else baselines
    scores = integrated_gradients_at(weighted, rows.activations, start, (rows.layers, rows.prompts), nodes)
    return scores.detach(), first[0]
