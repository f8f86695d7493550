"""Taps: one place per layer where its neuron vectors can be read and changed, whatever the family.

Some families call one module for several layers (ALBERT), flatten tokens before their linear (OPT) or split the
sequence (``chunk_size_feed_forward``). A *tap* hides all that: it sees ``[row, token, neuron]`` once per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kn_attrib.architectures import Architecture
from kn_attrib.errors import ModelError
from kn_attrib.prompts import Kind

DUMMY_TOKENS, DUMMY_SOURCE = 4, 5
"""Tokens of the dummy input, and of what an encoder reads: different, so that the two stacks cannot be confused."""


@contextmanager
def quiet(model: PreTrainedModel) -> Iterator[None]:
    """While active the model is in eval mode and its weights are frozen."""
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    # Not model.parameters(), which walks through all modules once more: this is done at every pass.
    owned = (parameter for module in modules for parameter in module._parameters.values())
    trainable = [parameter for parameter in owned if parameter is not None and parameter.requires_grad]
    for module in training:
        module.training = False
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextmanager
def _unchunked(model: PreTrainedModel) -> Iterator[None]:
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


class Taps:
    """The feed-forward output linears of a model and a tap in front of each layer's.

    Hooks are on the model only inside `attached`.

    Parameters
    ----------
    model, kind : the model.
    architecture : where its feed-forward output linears are.

    Attributes
    ----------
    architecture : the architecture with the flags that hold for this model.
    sites : the feed-forward output linear of each layer (the same module again where layers share it).
    layers : one module per layer; hooks on it see and may replace ``[row, token, neuron]``.

    Raises
    ------
    ModelError : the architecture's path does not lead to feed-forward output linears of the answering stack.
    """

    def __init__(self, model: PreTrainedModel, kind: Kind, architecture: Architecture) -> None:
        self._model = model
        named = architecture.modules(model)
        self.sites: list[nn.Module] = list(named.values())
        if architecture.shared_module or architecture.origin != "table":
            calls = _calls(model, kind, self.sites)
            missing = [name for name, module in named.items() if all(module is not each for each, _ in calls)]
            if missing:
                raise ModelError(f"{type(model).__name__}: {missing[0]!r} takes no part when the model answers.")
            self.sites = [module for module, _ in calls]
            architecture = replace(
                architecture, shared_module=len(calls) > len(named), flattened=any(dims == 2 for _, dims in calls)
            )
        self.architecture = architecture
        self.layers: list[nn.Module] = [nn.Identity() for _ in self.sites]
        self._layers_of: dict[nn.Module, list[int]] = {}
        for layer, site in enumerate(self.sites):
            self._layers_of.setdefault(site, []).append(layer)
        self._called: dict[nn.Module, int] = {}
        self._tokens = 0
        self._attached = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While active, what enters each output linear passes through its layer's tap; may be nested."""
        if self._attached:
            yield
            return
        self._attached = True
        handles = [site.register_forward_pre_hook(self._route) for site in self._layers_of]
        handles.append(self._model.register_forward_pre_hook(self._start, with_kwargs=True))
        try:
            with _unchunked(self._model):
                yield
        finally:
            self._attached = False
            for handle in handles:
                handle.remove()

    @contextmanager
    def edited(self, edits: dict[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
        """While active, the vectors ``[row, token, neuron]`` of each given layer pass through its edit."""
        handles = []
        with self.attached():
            try:
                for layer, edit in edits.items():
                    handles.append(self.layers[layer].register_forward_pre_hook(_hook(edit)))
                yield
            finally:
                for handle in handles:
                    handle.remove()

    def _start(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pass through the model begins: layers are counted from the first."""
        self._called.clear()
        names = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")
        given = next((kwargs[n] for n in names if kwargs.get(n) is not None), args[0] if args else None)
        self._tokens = 0 if given is None else given.shape[1]

    def _route(self, site: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        layers, call = self._layers_of[site], self._called.get(site, 0)
        self._called[site] = call + 1
        tap = self.layers[layers[call % len(layers)]]
        if not (tap._forward_pre_hooks or tap._forward_hooks):
            return None
        vectors, *rest = inputs
        if not self.architecture.flattened:
            return (tap(vectors), *rest)
        return (tap(vectors.view(-1, self._tokens, vectors.shape[-1])).reshape(vectors.shape), *rest)


def _hook(edit: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        vectors, *rest = inputs
        return (edit(vectors), *rest)

    return hook


def arguments(kind: Kind, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Arguments of the Hugging Face model.

    Parameters
    ----------
    inputs : ``input_ids [row, token]`` or ``inputs_embeds [row, token, hidden]`` of the stack that answers, and for an
        encoder-decoder ``source_ids [row, token]`` or ``source_embeds [row, token, hidden]``, what the encoder reads.
        Every token is attended to.
    """
    ones = {
        name: torch.ones(values.shape[:2], dtype=torch.long, device=values.device) for name, values in inputs.items()
    }
    if kind != "encoder-decoder":
        return inputs | {"attention_mask": next(iter(ones.values()))}
    name = "input_ids" if "input_ids" in inputs else "inputs_embeds"
    source = "source_ids" if "source_ids" in inputs else "source_embeds"
    return {
        "input_ids" if source == "source_ids" else "inputs_embeds": inputs[source],
        "attention_mask": ones[source],
        f"decoder_{name}": inputs[name],
        "decoder_attention_mask": ones[name],
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


def _special_ids(config: dict[Any, Any]) -> set[int]:
    """Ids that a configuration gives a meaning (padding, images, …), nested configurations included."""
    found: set[int] = set()
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _special_ids(value)
        elif str(name).endswith(("token_id", "token_index")):
            found |= {i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)}
    return found


def _calls(model: PreTrainedModel, kind: Kind, modules: Sequence[nn.Module]) -> list[tuple[nn.Module, int]]:
    """The modules in the order in which one pass calls them, with the number of dimensions of what they read."""
    calls: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append((module, inputs[0].dim()))

    handles = [module.register_forward_pre_hook(note) for module in modules]
    try:
        with quiet(model), _unchunked(model), torch.no_grad():
            model(**arguments(kind, dummy_inputs(model, kind)))
    finally:
        for handle in handles:
            handle.remove()
    return calls


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
        return (states[torch.arange(len(positions), device=states.device), positions][:, None], *inputs[1:])

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
