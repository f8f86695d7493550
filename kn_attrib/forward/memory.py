"""How many bytes a row takes on its way through a model: an upper estimate from the model's shape."""

from __future__ import annotations

import torch
from torch import Tensor

from kn_attrib.forward.plain import PlainForward
from kn_attrib.forward.wave import WaveForward
from kn_attrib.models.matrices import value_matrix
from kn_attrib.models.neuron_model import NeuronModel

# Tensors of hidden and of feed-forward width that one block keeps for the backward pass or holds at its peak
# (norms, queries, keys, values, residuals; pre-activation, activation, gate and their gradients).
HIDDEN_TENSORS, FFN_TENSORS, ATTENTION_TENSORS = 24, 8, 6


def bytes_per_row(forward: PlainForward | WaveForward, gradient: bool) -> Tensor:
    """Estimated bytes that a row of each layer takes, ``[layer]``.

    With gradients every block that the row runs through keeps its tensors; without, only one block's exist at a time.
    """
    model = forward.model
    is_wave = isinstance(forward, WaveForward)
    tokens = forward.batch.longest
    own = 1 if isinstance(forward, WaveForward) and forward.causal else tokens
    blocks = torch.ones(model.n_layers, dtype=torch.float64)
    if gradient:
        to_the_end = torch.arange(model.n_layers, 0, -1, dtype=torch.float64)
        blocks = to_the_end if is_wave else torch.full_like(blocks, model.n_layers)
    return blocks * bytes_per_block(model, own, tokens) + model.head.row_bytes(model.dtype)


def bytes_per_block(model: NeuronModel, own: int, tokens: int) -> int:
    """Estimated bytes that a row of ``own`` of its prompt's ``tokens`` takes in one block."""
    config = model.model.config.get_text_config()
    hidden = int(value_matrix(model.ffn_outputs[0]).shape[1])
    heads = int(getattr(config, "num_attention_heads", None) or max(1, hidden // 64))
    # Units other than neurons are fewer, but the feed-forward blocks are as wide as ever.
    neurons = max(model.n_neurons, int(getattr(config, "intermediate_size", None) or 4 * hidden))
    width = own * (HIDDEN_TENSORS * hidden + FFN_TENSORS * neurons + ATTENTION_TENSORS * heads * tokens)
    if own < tokens:
        width += 8 * tokens * hidden  # each row's copy of keys and values, and their gradients
    return width * model.dtype.itemsize
