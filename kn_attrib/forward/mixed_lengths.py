"""The clean pass over causal prompts of several lengths: each length runs by itself, waves run with all of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicCache

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import MixedBatch
from kn_attrib.forward.clean_pass import CleanPass, CleanPassRecorder, PrefixLayer, RunningRows
from kn_attrib.models.neuron_model import NeuronModel


def record_lengths(
    model: NeuronModel, blocks: Sequence[nn.Module], batch: MixedBatch, running: RunningRows
) -> CleanPass:
    """`CleanPassRecorder.record` of a mixed batch.

    Keys and values before the answer are padded on the left, and the model itself is asked for masks and rotations, as
    it is for generation from padded prompts: no prompt is ever run with padding but behind its clean pass.

    Raises
    ------
    ModelError : the model lays positions out by row and head together (ALiBi).
    """
    parts = batch.parts
    recorders = [CleanPassRecorder(model, blocks, prefix=True) for _ in parts]
    runs = [recorder.run(part.inputs(), part.positions) for recorder, (_, part) in zip(recorders, parts, strict=True)]
    order = torch.tensor([index for indices, _ in parts for index in indices], device=model.device).argsort()
    caches = [cache for _, cache in runs if cache is not None]
    prefix = _padded(caches, batch.longest - 1, order, running)
    calls = recorders[0].calls_of(_last_tokens(model, batch), prefix)
    if any("alibi" in kwargs for _, kwargs in calls):
        raise ModelError("its biases are laid out by row and head together")
    return replace(_joined([found for found, _ in runs], order), calls=calls, by_prompt=True)


def _last_tokens(model: NeuronModel, batch: MixedBatch) -> dict[str, Any]:
    """The model's arguments for the answer tokens of all prompts, behind padded keys and values."""
    tokens = [prompt.input_ids[-1:] for prompt in batch.prompts]
    lengths = torch.tensor([len(prompt.input_ids) for prompt in batch.prompts], device=model.device)
    places = torch.arange(batch.longest, device=model.device)
    given: dict[str, Any] = {
        "input_ids": torch.tensor(tokens, device=model.device),
        "attention_mask": (places >= batch.longest - lengths[:, None]).long(),
    }
    if "position_ids" in inspect.signature(type(model.model).forward).parameters:
        given["position_ids"] = lengths[:, None] - 1
    return given


def _padded(caches: Sequence[DynamicCache], n_before: int, order: Tensor, running: RunningRows) -> Cache:
    """One cache of all prompts' keys and values before the answer token."""

    def joined(name: str, layer: int) -> Tensor:
        own = [getattr(cache.layers[layer], name)[..., :-1, :] for cache in caches]
        return torch.cat([pad(each, (0, 0, n_before - each.shape[-2], 0)) for each in own])[order]

    layers: list[Any] = [
        PrefixLayer(joined("keys", layer), joined("values", layer), running) for layer in range(len(caches[0].layers))
    ]
    return Cache(layers)


def _joined(passes: Sequence[CleanPass], order: Tensor) -> CleanPass:
    """All prompts' states, in their order in the batch."""
    first = passes[0]
    layers = range(len(first.inputs))

    def together(found: Sequence[Tensor | None]) -> Tensor | None:
        known = [each for each in found if each is not None]
        return torch.cat(known)[order] if len(known) == len(found) else None

    def every(name: str) -> list[Any]:
        return [together([getattr(each, name)[layer] for each in passes]) for layer in layers]

    return replace(
        first,
        activations=torch.cat([each.activations for each in passes])[order],
        final=torch.cat([each.final for each in passes])[order],
        inputs=every("inputs"),
        written=every("written"),
        attended=every("attended"),
    )
