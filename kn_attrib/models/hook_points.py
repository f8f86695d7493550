"""Hook points: one place per layer where its neuron vectors can be read and changed, whatever the family.

Some families call one module for several layers (ALBERT), flatten tokens before their linear (OPT) or split the
sequence (``chunk_size_feed_forward``). A *hook point* hides all that: it sees ``[row, token, neuron]`` once per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Kind
from kn_attrib.models.architectures import Architecture
from kn_attrib.models.passes import arguments, dummy_inputs, quiet, unchunked


class HookPoints:
    """The feed-forward output linears of a model and a hook point in front of each layer's.

    Hooks are on the model only inside `attached`.

    Parameters
    ----------
    model, kind : the model.
    architecture : where its feed-forward output linears are.

    Attributes
    ----------
    architecture : the architecture with the flags that hold for this model.
    ffn_outputs : the feed-forward output linear of each layer (the same module again where layers share it).
    modules : one module per layer; hooks on it see and may replace ``[row, token, neuron]``.

    Raises
    ------
    ModelError : the architecture's path does not lead to feed-forward output linears of the answering stack.
    """

    def __init__(self, model: PreTrainedModel, kind: Kind, architecture: Architecture) -> None:
        self._model = model
        named = architecture.modules(model)
        self.ffn_outputs: list[nn.Module] = list(named.values())
        if architecture.shared_module or architecture.origin != "table":
            calls = _calls(model, kind, self.ffn_outputs)
            called = {module for module, _ in calls}
            missing = [name for name, module in named.items() if module not in called]
            if missing:
                raise ModelError(f"{type(model).__name__}: {missing[0]!r} takes no part when the model answers.")
            self.ffn_outputs = [module for module, _ in calls]
            architecture = replace(
                architecture, shared_module=len(calls) > len(named), flattened=any(dims == 2 for _, dims in calls)
            )
        self.architecture = architecture
        self.modules: list[nn.Module] = [nn.Identity() for _ in self.ffn_outputs]
        self._layers_of: dict[nn.Module, list[int]] = {}
        for layer, site in enumerate(self.ffn_outputs):
            self._layers_of.setdefault(site, []).append(layer)
        self._called: dict[nn.Module, int] = {}
        self._tokens = 0
        self._attached = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While active, what enters each output linear passes through its layer's hook point; may be nested."""
        if self._attached:
            yield
            return
        self._attached = True
        handles = [site.register_forward_pre_hook(self._route) for site in self._layers_of]
        handles.append(self._model.register_forward_pre_hook(self._start, with_kwargs=True))
        try:
            with unchunked(self._model):
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
                    handles.append(self.modules[layer].register_forward_pre_hook(_hook(edit)))
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
        layers = self._layers_of[site]
        call = self._called.get(site, 0)
        self._called[site] = call + 1
        point = self.modules[layers[call % len(layers)]]
        if not (point._forward_pre_hooks or point._forward_hooks):
            return None
        vectors, *rest = inputs
        if not self.architecture.flattened:
            return (point(vectors), *rest)
        by_row = vectors.view(-1, self._tokens, vectors.shape[-1])
        return (point(by_row).reshape(vectors.shape), *rest)


def _hook(edit: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        vectors, *rest = inputs
        return (edit(vectors), *rest)

    return hook


def _calls(model: PreTrainedModel, kind: Kind, modules: Sequence[nn.Module]) -> list[tuple[nn.Module, int]]:
    """The modules in the order in which one pass calls them, with the number of dimensions of what they read."""
    calls: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append((module, inputs[0].dim()))

    handles = [module.register_forward_pre_hook(note) for module in modules]
    try:
        with quiet(model), unchunked(model), torch.no_grad():
            model(**arguments(kind, dummy_inputs(model, kind)))
    finally:
        for handle in handles:
            handle.remove()
    return calls
