"""One pass through a Hugging Face model: its arguments, its mode, and the answers' part of its output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kn_attrib.errors import PromptError
from kn_attrib.facts.prompts import Kind

READ = (("input_ids", "inputs_embeds"), ("source_ids", "source_embeds"))
"""What the stack that answers reads, and what the encoder of an encoder-decoder does: one of each pair."""
DUMMY_TOKENS, DUMMY_SOURCE = 4, 5
"""Tokens of the dummy input, and of what an encoder reads: different, so that the two stacks cannot be confused."""


@contextmanager
def quiet(model: PreTrainedModel) -> Iterator[None]:
    """While active the model is in eval mode, its weights are frozen, and modules compiled in place run as written."""
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    # Compiled code does not see hooks that come later.
    compiled = [(module, call) for module in modules if (call := module._compiled_call_impl) is not None]
    # Not model.parameters(), which walks through all modules once more: this is done at every pass.
    owned = (parameter for module in modules for parameter in module._parameters.values())
    trainable = [parameter for parameter in owned if parameter is not None and parameter.requires_grad]
    for module in training:
        module.training = False
    for parameter in trainable:
        parameter.requires_grad_(False)
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextmanager
def unchunked(model: PreTrainedModel) -> Iterator[None]:
    """While active, feed-forward blocks read whole texts, not ``chunk_size_feed_forward`` tokens at a time."""
    modules: Iterator[Any] = model.modules()
    chunked = [(m, m.chunk_size_feed_forward) for m in modules if getattr(m, "chunk_size_feed_forward", 0)]
    for module, _ in chunked:
        module.chunk_size_feed_forward = 0
    try:
        yield
    finally:
        for module, size in chunked:
            module.chunk_size_feed_forward = size


def arguments(kind: Kind, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Arguments of the Hugging Face model.

    Parameters
    ----------
    inputs : ``input_ids [row, token]`` or ``inputs_embeds [row, token, hidden]`` of the stack that answers, and for an
        encoder-decoder ``source_ids [row, token]`` or ``source_embeds [row, token, hidden]``, what the encoder reads.
        Every token is attended to.

    Raises
    ------
    PromptError : there are others, which the model would not look at, or two for one stack.
    """
    stacks = READ if kind == "encoder-decoder" else READ[:1]
    if len(inputs) != len(stacks) or any(len(inputs.keys() & {*names}) != 1 for names in stacks):
        expected = " and ".join(f"one of {', '.join(names)}" for names in stacks)
        raise PromptError(f"inputs are {', '.join(inputs) or 'none'}; a {kind} model reads {expected}.")

    def ones(values: Tensor) -> Tensor:
        return torch.ones(values.shape[:2], dtype=torch.long, device=values.device)

    if kind != "encoder-decoder":
        return inputs | {"attention_mask": ones(next(iter(inputs.values())))}
    name = "input_ids" if "input_ids" in inputs else "inputs_embeds"
    source = "source_ids" if "source_ids" in inputs else "source_embeds"
    return {
        "input_ids" if source == "source_ids" else "inputs_embeds": inputs[source],
        "attention_mask": ones(inputs[source]),
        f"decoder_{name}": inputs[name],
        "decoder_attention_mask": ones(inputs[name]),
    }


def dummy_inputs(model: PreTrainedModel, kind: Kind, rows: int = 1) -> dict[str, Tensor]:
    """A short input of ordinary tokens, the same in every row."""
    embedding: Any = model.get_input_embeddings()
    size = embedding.weight.shape[0]
    special = _special_ids(model.config.to_dict())
    ids = [i for i in range(min(size, len(special) + 64)) if i not in special] or [0]

    def text(tokens: int) -> Tensor:
        chosen = [ids[(7 * k) % len(ids)] for k in range(tokens)]
        return torch.tensor([chosen] * rows, device=model.device)

    source = {"source_ids": text(DUMMY_SOURCE)} if kind == "encoder-decoder" else {}
    return {"input_ids": text(DUMMY_TOKENS)} | source


def positions_of(model: PreTrainedModel) -> int | None:
    """Most tokens that a model has learnt (or listed) positions for; None if it has no table of them.

    Tables may begin with rows that are no positions: up to the padding index (RoBERTa), or an offset (OPT, BART).
    """
    sizes = []
    for name, module in model.named_modules():
        table: Any = module
        if isinstance(module, nn.Embedding) and POSITIONS.search(name.rsplit(".", 1)[-1]):
            unused = getattr(table, "offset", None)
            if not isinstance(unused, int):
                unused = 0 if module.padding_idx is None else module.padding_idx + 1
            sizes.append(module.num_embeddings - unused)
    return min(sizes, default=None)


POSITIONS = re.compile(r"^(wpe|.*position_embeddings?|embed_positions)$")


def _special_ids(config: dict[Any, Any]) -> set[int]:
    """Ids that a configuration gives a meaning (padding, images, …), nested configurations included."""
    found: set[int] = set()
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _special_ids(value)
        elif str(name).endswith(("token_id", "token_index")):
            ids = value if isinstance(value, list) else [value]
            found |= {i for i in ids if isinstance(i, int)}
    return found


@contextmanager
def answer_only(model: PreTrainedModel, positions: Tensor, n_tokens: int) -> Iterator[None]:
    """While active the head is asked for the answer positions alone: with many words the others cost most.

    Parameters
    ----------
    positions : ``[row]``.
    n_tokens : of each row; a head that is given anything else than ``[row, token, hidden]`` is left alone.
    """

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        states = inputs[0]
        if states.ndim != 3 or states.shape[:2] != (len(positions), n_tokens):
            return None
        asked = states[torch.arange(len(positions), device=states.device), positions]
        return (asked[:, None], *inputs[1:])

    head = model.get_output_embeddings()
    handle = None if head is None else head.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def at_positions(logits: Tensor, positions: Tensor) -> Tensor:
    """``[row, token, vocabulary]``, or what `answer_only` has left of it, -> ``[row, vocabulary]`` at the answers."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(positions), device=logits.device), positions]
