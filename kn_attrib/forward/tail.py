"""The end of a model, by its own forward: final norm and head with the blocks left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.models.neuron_model import NeuronModel


@contextmanager
def replaced(blocks: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """While active, each block runs another forward."""
    try:
        for block, forward in zip(blocks, forwards, strict=True):
            block.forward = forward
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def pack(states: Tensor, size: int) -> Any:
    """A block's output as the block itself would return it: a bare tensor, or a tuple that begins with it."""
    return (states, *[None] * (size - 1)) if size else states


def run_tail(
    model: NeuronModel, blocks: Sequence[nn.Module], packs: Sequence[int], hidden: Tensor, token: Tensor
) -> Tensor:
    """Final norm and head by the model's own forward with its blocks left out; not counted as a forward.

    Parameters
    ----------
    blocks, packs : all blocks, each once, and the number of values that each returns (0: a bare tensor).
    hidden : ``[row, 1, hidden]``, what the last block would give.
    token : ``[1, 1]``, id of any token; what it becomes is thrown away.

    Returns
    -------
    ``[row, …]``, what `Head.gold` and `Head.answer` take.
    """

    def leave_out(size: int) -> Callable[..., Any]:
        return lambda *_, **__: pack(hidden, size)

    ids = token.expand(len(hidden), 1)
    ones = torch.ones_like(ids)
    if model.kind == "encoder-decoder":
        given: dict[str, Any] = {"decoder_input_ids": ids, "encoder_outputs": (torch.zeros_like(hidden),)}
    else:
        given = {"input_ids": ids, "attention_mask": ones}
    if model.kind != "masked":
        given["use_cache"] = False
    with replaced(blocks, [leave_out(size) for size in packs]):
        return model.head.final(lambda: model.model(**given), torch.zeros_like(ids[:, 0]), 1)
