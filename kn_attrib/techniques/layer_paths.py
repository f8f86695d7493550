"""Integrals from a baseline to the activations: each layer alone, and all layers together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.interventions.masks import masked_logprob
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.techniques.path_integrals import integrate
from kn_attrib.techniques.quadrature import quadrature

ROWS, MOST_ROWS = 256, 16384
PathObjective = Literal["prob", "logprob"]


def integrate_layers_alone(
    model: NeuronModel, batch: Batch, objective: PathObjective, steps: int, baselines: Tensor | None = None
) -> Tensor:
    """Integrated gradients of each layer for itself, the others being what they are.

    Parameters
    ----------
    steps : Gauss-Legendre nodes, each one forward and backward per layer and prompt.
    baselines : ``[prompt, layer, neuron]``; zero if not given.

    Returns
    -------
    ``[prompt, layer, neuron]``
    """
    function = objective_function(model, batch, objective)
    activations = function.activations
    starts = torch.zeros_like(activations) if baselines is None else baselines
    size = max(1, MOST_ROWS // steps)
    scores = []
    for rows, start in zip(Rows.of(activations).chunks(size), starts.flatten(0, 1).split(size), strict=True):
        found, _ = integrate(function, rows, "gausslegendre", steps, baselines=start)
        scores.append(found)
    return torch.cat(scores).reshape(activations.shape)


def integrate_layers_together(
    model: NeuronModel, batch: Batch, objective: PathObjective, steps: int, baselines: Tensor | None = None
) -> Tensor:
    """Integrated gradients of a mask on the activations of all layers at once, at the answer position.

    ``∫₀¹ ∂F(α·1)/∂m_i dα``, ``F(m)`` the objective with every layer's activation ``a``, as it then stands, replaced
    by ``b + m ⊙ (a − b)``; complete over all layers together: ``F(1) − F(0)``.

    Parameters
    ----------
    steps : Gauss-Legendre nodes, each one forward and backward per prompt.
    baselines : ``b``, ``[prompt, layer, neuron]``; zero if not given.

    Returns
    -------
    ``[prompt, layer, neuron]``
    """
    weights, nodes = quadrature("gausslegendre", steps)
    scores = torch.zeros(len(batch), model.n_layers, model.n_neurons, dtype=model.dtype, device=model.device)
    at_once = max(1, ROWS // len(batch))
    for start in range(0, steps, at_once):
        some = nodes[start : start + at_once]
        alphas = torch.tensor(some).to(scores).repeat_interleave(len(batch))
        masks = alphas[:, None, None].expand(-1, *scores.shape[1:]).clone().requires_grad_()
        repeated = Batch(batch.prompts * len(some), batch.device)
        away = None if baselines is None else baselines.repeat(len(some), 1, 1)
        with torch.enable_grad():
            logprobs = masked_logprob(model, repeated, masks, away)
            values = logprobs.exp() if objective == "prob" else logprobs
            (slopes,) = torch.autograd.grad(values.sum(), masks)
        by = torch.tensor(weights[start : start + at_once]).to(scores)
        scores += torch.einsum("s,sbln->bln", by, slopes.view(-1, *scores.shape))
    return scores
