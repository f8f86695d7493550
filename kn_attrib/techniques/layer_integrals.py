"""Integrals of the objective's gradient over activation rows, adaptively: what several path methods share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.forward.fading import fading_scales
from kn_attrib.forward.row_objective import RowObjective
from kn_attrib.forward.rows import Rows
from kn_attrib.models.head import at_least_float32
from kn_attrib.techniques.adaptive_quadrature import Integral, integrate_adaptively

TOLERANCE = 0.01
"""Default error of a layer's integral, as a share of the prompt's longest."""
FEW_ROWS = 16
"""Layers × prompts up to which five nodes of each cost less than one more pass over the weights, if a row is thin."""
KEPT_NODES = 8
"""Values that a row keeps at a time, on the average, at most."""


@dataclass(frozen=True)
class LayerIntegrals:
    """Integrated gradients of each layer alone.

    Attributes
    ----------
    scores : ``[prompt, layer, neuron]``.
    error : ``[prompt, layer]``, estimated Euclidean length of a layer's error.
    capped : ``[prompt, layer]``, whether it ran out of nodes.
    difference : ``[prompt, layer]``, what a layer's scores should add up to.
    """

    scores: Tensor
    error: Tensor
    capped: Tensor
    difference: Tensor

    @property
    def gap(self) -> Tensor:
        """``[prompt, layer]``, what a layer's scores add up to beyond the difference."""
        return self.scores.sum(-1) - self.difference


def integrate_layers(
    function: RowObjective,
    tolerance: float = TOLERANCE,
    baselines: Tensor | None = None,
    max_rows: int | None = None,
) -> LayerIntegrals:
    """Integrated gradients of each layer for itself, from a baseline to its clean activations.

    ``(a − b) ⊙ ∫₀¹ ∂f_l(b + α(a − b))/∂w dα``, errors judged by the longest layer of the prompt, since scores of all
    layers are compared with one another.

    Parameters
    ----------
    tolerance : largest error that is accepted, as a share of it.
    baselines : ``[prompt, layer, neuron]``; zero if not given.
    max_rows : most integrals at a time, if all of a prompt's are fewer; default: what fits into the memory budget.
    """
    activations = function.activations
    n_layers, width = activations.shape[1:]
    # Paths from zero alone pass where a norm hides that activations fade.
    scales = fading_scales(function) if baselines is None and function.is_of_neurons else None
    # Whatever else is in the batch: scores of a prompt never depend on its neighbours.
    # On a GPU it is calls that cost: rows at the ends of their paths go along with the others.
    few = activations.is_cuda
    ahead = not few and function.is_thin and len(activations) * n_layers <= FEW_ROWS
    slopes = None if few or ahead else function.clean_slopes()
    row_bytes = KEPT_NODES * n_layers * width * activations.element_size()
    size = max(1, function.budget // 4 // row_bytes)
    if max_rows is not None:
        size = max(1, min(size, max_rows // n_layers))
    parts = [
        _integrals(function, prompts, tolerance, baselines, slopes, scales, few, ahead)
        for prompts in torch.arange(len(activations), device=activations.device).split(size)
    ]
    joined = [torch.cat([getattr(part, name) for part in parts]) for name in ("sums", "error", "capped", "difference")]
    scores, error, capped, difference = (each.unflatten(0, (len(activations), n_layers)) for each in joined)
    return LayerIntegrals(scores, error, capped, difference)


def _integrals(
    function: RowObjective,
    prompts: Tensor,
    tolerance: float,
    baselines: Tensor | None,
    slopes: Tensor | None,
    scales: Tensor | None,
    few: bool,
    ahead: bool,
) -> Integral:
    """Integrals of all layers of some prompts, one row for each prompt and layer."""
    clean = Rows.of(function.activations[prompts])
    layers, own = clean.layers, prompts[clean.prompts]
    start = torch.zeros_like(clean.activations) if baselines is None else baselines[prompts].flatten(0, 1)
    way = clean.activations - start

    def integrand(rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        at = start[rows] + alphas.to(way)[:, None] * way[rows]
        values, gradients = function.evaluate(at, layers[rows], own[rows], gradient=True)
        assert gradients is not None
        # Sums and lengths are of single precision at least, whatever the model's.
        return values, at_least_float32(gradients) * at_least_float32(way)[rows]

    end = None if slopes is None else slopes[prompts].flatten(0, 1) * at_least_float32(way)
    crowding = None if scales is None else scales[prompts].flatten()
    value = function.clean()[own]
    return integrate_adaptively(integrand, value, clean.prompts, tolerance, end, crowding, few, ahead)
