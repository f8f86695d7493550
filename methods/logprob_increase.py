"""Log-probability increase: what each neuron adds when the model answers right after it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.techniques.frozen_norms import norm_slope, norms_replaced
from kn_attrib.techniques.residual_stream import ResidualStream, check_exit, exit_early, follow


@register("logprob_increase")
@dataclass(frozen=True)
class LogprobIncrease(Scorer):
    """How much the neuron raises the answer's log-probability when the model answers right behind it.

    ``score_i = log p(y | h_l + a_i v_i) − log p(y | h_l)`` through final norm and unembedding, ``h_l`` the residual
    stream after the attention of layer ``l`` (what the layer's block gives without its feed-forward part). Where a norm
    stands between the feed-forward block and the stream, or behind the addition (BERT), it keeps the statistics of
    the clean pass, so that ``a_i v_i`` is what the neuron adds behind it. Misses what later blocks make of the
    neuron, and early layers do not speak the unembedding's language yet. One forward pass per prompt, and the head once
    per neuron: with large vocabularies the head is nearly all of the cost.

    Parameters
    ----------
    frozen : keep the statistics of the final norm (and of the head's own) as they are at ``h_l``.
    max_rows : most neurons that go through the head at a time; memory is kept by the model's budget.

    Raises
    ------
    MethodError : the model's residual stream cannot be followed (no list of blocks, or a norm of an unknown kind).

    Reference
    ---------
    Yu and Ananiadou 2024, arXiv 2312.12141.
    """

    frozen: bool = False
    max_rows: int = 4096
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Yu and Ananiadou 2024, arXiv 2312.12141"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        stream = follow(model, batch)
        check_exit(model, stream)
        fitting = model.execution.row_budget(model.device) // model.head.row_bytes(model.dtype)
        size = max(1, min(self.max_rows, fitting - 1))
        with norms_replaced(model.model, _as_in_first_row) if self.frozen else nullcontext():
            layers = [self._layer(model, stream, layer, batch.answers, size) for layer in range(model.n_layers)]
        return torch.stack(layers, dim=1)

    def _layer(self, model: NeuronModel, stream: ResidualStream, layer: int, answers: Tensor, size: int) -> Tensor:
        """``[prompt, neuron]``"""
        before, slopes = stream.before(layer), stream.slope(layer)
        vectors = model.value_vectors(layer)
        scores = torch.empty_like(stream.activations[layer], dtype=torch.promote_types(model.dtype, torch.float32))
        for prompt, activations in enumerate(stream.activations[layer].detach()):
            for part in torch.arange(model.n_neurons, device=before.device).split(size):
                added = activations[part, None] * vectors[part] * slopes[prompt]
                # Its state without any of them goes first: both terms come from one and the same pass.
                states = before[prompt] + torch.cat([torch.zeros_like(added[:1]), added])
                final = exit_early(model, stream, states)
                logprobs = model.head.gold(final, answers[prompt].expand(len(final))).logprob
                scores[prompt, part] = logprobs[1:] - logprobs[0]
        return scores


def _as_in_first_row(norm: nn.Module, states: Tensor, output: Tensor) -> Tensor:
    """A norm's output with the statistics that it has in the first row."""
    first = norm_slope(norm, states[:1], output[:1])
    return output[:1] + first * (states - states[:1])
