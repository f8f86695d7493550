"""Query neurons: those that work by activating neurons of later layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import make_scorer, register
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.techniques.residual_stream import ResidualStream, follow


@register("query_neurons")
@dataclass(frozen=True)
class QueryNeurons(Scorer):
    """How much the neuron takes part in activating the value neurons of later layers.

    ``score_j = Σ_n ⟨a_j v_j, key_n⟩ / ⟨h, key_n⟩ · increase_n`` over the prompt's value neurons ``n`` of later layers,
    those with the highest positive score of ``logprob_increase``. ``h`` is what the feed-forward block of ``n`` reads,
    and ``a_j v_j`` what ``j`` contributes to it along the residual stream, through the norm before the block with
    its statistics held fixed. ``key_n`` is the row of the block's first linear that makes ``n``; in gated blocks the
    gradient of ``a_n`` (which in others is the row, but for a factor that cancels). Neurons of the last layer score 0.
    Misses what goes through attention, and a value neuron with ``⟨h, key_n⟩`` near 0 can outweigh all others. One
    forward pass per prompt, three backward passes per layer through single blocks, one through all, and what
    ``logprob_increase`` costs.

    Parameters
    ----------
    values : number of value neurons per prompt, over all layers.

    Raises
    ------
    MethodError : fewer than one value neuron, or a model whose residual stream or keys cannot be seen.

    Reference
    ---------
    Yu and Ananiadou 2024, arXiv 2312.12141.
    """

    values: int = 100
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Yu and Ananiadou 2024, arXiv 2312.12141"

    def __post_init__(self) -> None:
        if self.values < 1:
            raise MethodError(f"query_neurons: values is {self.values}; expected at least 1 value neuron.")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        increase = make_scorer("logprob_increase").score(model, batch)
        assert isinstance(increase, Tensor)
        flat = increase.flatten(1)
        best = flat.topk(min(self.values, flat.shape[1]))
        chosen = torch.zeros_like(flat).scatter(1, best.indices, best.values).clamp_min(0).view(increase.shape)
        stream = follow(model, batch)
        total = torch.zeros((), dtype=model.dtype, device=model.device)
        for layer in range(1, model.n_layers):
            made = stream.activations[layer]
            along = _along_what_is_read(model, stream, layer)
            weights = torch.where(along == 0, 0, chosen[:, layer].to(along) / along)
            total = total + (weights * made).sum()
        effects = stream.effects(total)
        # Counted at the logits elsewhere, but this gradient does not pass them.
        model.execution.cost.backwards += len(batch)
        scores = [
            stream.activations[layer].detach() * (effect @ model.value_vectors(layer).T)
            for layer, effect in enumerate(effects)
        ]
        return torch.stack(scores, dim=1)


def _along_what_is_read(model: NeuronModel, stream: ResidualStream, layer: int) -> Tensor:
    """``⟨h, ∂a_n/∂h⟩`` of each neuron of a layer, ``[prompt, neuron]``: a Jacobian times a vector, backward twice."""
    reads, made = stream.reads[layer], stream.activations[layer]
    if reads is None:
        raise MethodError(
            f"query_neurons: in layer {layer} of {model.name} no linear is seen that makes its {model.n_neurons} "
            "neurons; use logprob_increase."
        )
    with torch.enable_grad():
        outer = torch.ones_like(made, requires_grad=True)
        (gradient,) = torch.autograd.grad((made * outer).sum(), reads, create_graph=True)
        (along,) = torch.autograd.grad((gradient * reads.detach()).sum(), outer, retain_graph=True)
    return along
