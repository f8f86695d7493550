"""Integrals from a baseline to the activations: each layer alone, and all layers together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.fading import fading_scales
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.interventions.masks import masked_logprob
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.techniques.adaptive_quadrature import integrate_adaptively
from kn_attrib.techniques.layer_integrals import integrate_layers
from kn_attrib.techniques.path_integrals import integrate
from kn_attrib.techniques.quadrature import quadrature

ROWS, MOST_ROWS = 256, 16384
PathObjective = Literal["prob", "logprob"]


def integrate_layers_alone(
    model: NeuronModel,
    batch: Batch,
    objective: PathObjective,
    steps: int,
    tolerance: float,
    baselines: Tensor | None = None,
) -> Tensor:
    """Integrated gradients of each layer for itself, the others being what they are.

    Parameters
    ----------
    steps : Gauss-Legendre nodes, each one forward and backward per layer and prompt; 0: as many as are needed.
    tolerance : of an adaptive rule, see `integrate_layers`.
    baselines : ``[prompt, layer, neuron]``; zero if not given.

    Returns
    -------
    ``[prompt, layer, neuron]``
    """
    function = objective_function(model, batch, objective)
    if not steps:
        return integrate_layers(function, tolerance, baselines).scores
    activations = function.activations
    starts = torch.zeros_like(activations) if baselines is None else baselines
    size = max(1, MOST_ROWS // steps)
    scores = []
    for rows, start in zip(Rows.of(activations).chunks(size), starts.flatten(0, 1).split(size), strict=True):
        found, _ = integrate(function, rows, "gausslegendre", steps, baselines=start)
        scores.append(found)
    return torch.cat(scores).reshape(activations.shape)


def integrate_layers_together(
    model: NeuronModel,
    batch: Batch,
    objective: PathObjective,
    steps: int,
    tolerance: float,
    baselines: Tensor | None = None,
) -> Tensor:
    """Integrated gradients of a mask on the activations of all layers at once, at the answer position.

    ``∫₀¹ ∂F(α·1)/∂m_i dα``, ``F(m)`` the objective with every layer's activation ``a``, as it then stands, replaced
    by ``b + m ⊙ (a − b)``; complete over all layers together: ``F(1) − F(0)``.

    Parameters
    ----------
    steps : Gauss-Legendre nodes, each one forward and backward per prompt; 0: as many as are needed.
    tolerance : of an adaptive rule: error as a share of the length of a prompt's scores.
    baselines : ``b``, ``[prompt, layer, neuron]``; zero if not given.

    Returns
    -------
    ``[prompt, layer, neuron]``
    """
    path = _Path(model, batch, objective, baselines)
    every = torch.arange(len(batch), device=batch.device)
    if not steps:
        return _adaptively(path, every, tolerance)
    weights, nodes = (torch.tensor(each, dtype=torch.float64, device=batch.device) for each in quadrature(RULE, steps))
    scores = torch.zeros(len(batch), *path.shape, dtype=model.dtype, device=model.device)
    at_once = max(1, ROWS // len(batch))
    for some, by in zip(nodes.split(at_once), weights.split(at_once), strict=True):
        _, slopes = path(every.repeat(len(some)), some.repeat_interleave(len(batch)))
        scores += torch.einsum("s,sbln->bln", by.to(scores), slopes.view(-1, *scores.shape))
    return scores


RULE = "gausslegendre"


class _Path:
    """Objective and its slope with respect to the mask, where all layers of a prompt are at a place on their way."""

    def __init__(self, model: NeuronModel, batch: Batch, objective: PathObjective, baselines: Tensor | None) -> None:
        self.model, self.batch, self.objective, self.baselines = model, batch, objective, baselines
        self.shape = (model.n_layers, model.n_neurons)

    def __call__(self, prompts: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``[row]`` and slopes ``[row, layer · neuron]``."""
        parts = zip(prompts.split(ROWS), alphas.split(ROWS), strict=True)
        values, slopes = zip(*(self._rows(*part) for part in parts), strict=True)
        return torch.cat(values), torch.cat(slopes)

    def _rows(self, prompts: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.model.dtype
        masks = alphas.to(dtype)[:, None, None].expand(-1, *self.shape).clone().requires_grad_()
        rows = Batch(tuple(self.batch.prompts[i] for i in prompts.tolist()), self.batch.device)
        away = None if self.baselines is None else self.baselines[prompts]
        with torch.enable_grad():
            logprobs = masked_logprob(self.model, rows, masks, away)
            values = logprobs.exp() if self.objective == "prob" else logprobs
            (slopes,) = torch.autograd.grad(values.sum(), masks)
        return values.detach(), slopes.flatten(1)


def _adaptively(path: _Path, prompts: Tensor, tolerance: float) -> Tensor:
    # The layer that a norm hides longest says where nodes must crowd.
    scales = None
    if path.baselines is None:
        function = objective_function(path.model, path.batch, path.objective)
        found = fading_scales(function) if function.is_of_neurons else None
        scales = None if found is None else found.amin(1)
    value, end = path(prompts, torch.ones_like(prompts, dtype=torch.float64))
    scores: Tensor = integrate_adaptively(path, value, prompts, tolerance, end, scales).sums.unflatten(1, path.shape)
    return scores
