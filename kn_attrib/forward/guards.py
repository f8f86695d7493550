"""Guards of the wave: before it answers for a model it must have given the plain path's answers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Batch, Kind, MixedBatch, Prompt
from kn_attrib.forward.all_tokens import record_all
from kn_attrib.forward.plain import PlainForward
from kn_attrib.forward.wave import WaveForward
from kn_attrib.models.answers import Objective
from kn_attrib.models.compute import full_precision
from kn_attrib.models.execution import Verdict
from kn_attrib.models.neuron_model import NeuronModel

LOG = logging.getLogger(__name__)
GUARD_TOKENS = 12
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
ROUGH_TOLERANCE = 5e-2  # half precision


class PlainPathWarning(UserWarning):
    """A model is run on the plain path: right, but slow."""


def wave_or_none(model: NeuronModel, batch: Batch, objective: Objective) -> WaveForward | None:
    """The wave over a batch if its guards pass for the model, else None with one warning per model."""
    if isinstance(batch, MixedBatch):
        return _mixed_wave_or_none(model, batch, objective)
    verdict = _verdict(model, batch)
    return None if verdict is None else _checked(verdict, model, batch, objective, whole=False)


def _verdict(model: NeuronModel, batch: Batch) -> Verdict | None:
    """What the guards say of the model; None where it is not to be asked for."""
    if model.execution.settings.engine == "plain" or is_hooked(model):
        return None
    if model.execution.verdict is None:
        with full_precision():
            model.execution.verdict = Verdict(check_rows(model, batch))
        _log(model, "rows at the answer", model.execution.verdict)
        warn_of_plain_path(model, model.execution.verdict)
    return model.execution.verdict


def whole_wave_or_none(model: NeuronModel, batch: Batch, objective: Objective) -> WaveForward | None:
    """The same for rows that replace activations at all tokens: ``[row, token, neuron]``.

    A model whose wave passes and this one does not takes the slow path without a further warning.
    """
    if wave_or_none(model, batch, objective) is None:
        return None
    if model.execution.whole_verdict is None:
        with full_precision():
            model.execution.whole_verdict = Verdict(check_rows(model, batch, whole=True))
        _log(model, "rows at all tokens", model.execution.whole_verdict)
    return _checked(model.execution.whole_verdict, model, batch, objective, whole=True)


def _mixed_wave_or_none(model: NeuronModel, batch: MixedBatch, objective: Objective) -> WaveForward | None:
    """A wave over prompts of several lengths if its guards pass.

    A model whose waves pass and this one does not runs length by length, without a further warning.
    """
    of_rows, verdict = _verdict(model, batch), model.execution.mixed_verdict
    if of_rows is None or of_rows.reason or verdict.reason:
        return None
    try:
        wave = WaveForward(model, batch, objective)
    except ModelError:
        return None  # this batch's prompts, not the model
    # What may go wrong is the padding between the shortest prompt and the longest.
    lengths = [len(prompt.input_ids) for prompt in batch.prompts]
    extent = min(lengths), max(lengths)
    if extent not in verdict.extents:
        with full_precision():
            verdict.reason = check_clean(wave, [lengths.index(length) for length in extent])
        verdict.extents.add(extent)
        _log(model, f"prompts of {extent[0]} to {extent[1]} tokens together", verdict)
    return None if verdict.reason else wave


def _checked(
    verdict: Verdict, model: NeuronModel, batch: Batch, objective: Objective, whole: bool
) -> WaveForward | None:
    """A wave over the batch, if nothing speaks against it."""
    if verdict.reason:
        return None
    try:
        wave = WaveForward(model, batch, objective, whole)
    except ModelError:
        return None  # this batch's prompts, not the model
    length = batch.longest
    if length not in verdict.lengths:
        with full_precision():
            verdict.reason = check_clean(wave)
        verdict.lengths.add(length)
        if verdict.reason:
            _log(model, f"rows of prompts of {length} tokens", verdict)
        if not whole:
            warn_of_plain_path(model, verdict)
    return None if verdict.reason else wave


def check_rows(model: NeuronModel, batch: Batch, whole: bool = False) -> str:
    """Compare one random row per layer, values and gradients, with the plain path on short prompts.

    Parameters
    ----------
    whole : rows are ``[row, token, neuron]``.

    Returns
    -------
    The reason why the wave is not to be used, empty if it may be.
    """
    short = _two_prompts(_shortened(batch.prompts[0], model.kind), batch.device)
    layers = torch.arange(model.n_layers, device=model.device)
    prompts = layers % len(short)
    recorded = record_all(model, short.positions, **short.inputs()) if whole else model.record(short)
    clean = recorded[prompts, layers]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(clean)
    rows = clean * 0.5 + noise * clean.abs().mean(-1, keepdim=True)
    # First and outside the try: what the plain path raises is the model's fault, not the wave's.
    plain = PlainForward(model, short, "logit")
    expected = _value_and_slope(plain, rows, layers, prompts)
    try:
        found = _value_and_slope(WaveForward(model, short, "logit", whole), rows, layers, prompts)
    except Exception as error:  # the wave calls a model's own code in ways it was not written for: any error may come
        return cannot_run(error)
    before = plain.clean()[prompts]
    for what, ours, theirs in (
        ("values", found[0] - before, expected[0] - before),
        ("gradients", found[1], expected[1]),
    ):
        distance = _relative(ours, theirs, expected[0].abs().mean() * torch.finfo(theirs.dtype).eps)
        if not distance <= tolerance(model):
            return f"{what} of random rows differ from the plain path by {distance:.1e}"
    return ""


def check_clean(wave: WaveForward, prompts: Sequence[int] = (-1,)) -> str:
    """Unmodified rows of some prompts must give back the clean answer in every layer.

    Returns
    -------
    The reason why the wave is not to be used, empty if it may be.
    """
    layers = torch.arange(wave.model.n_layers, device=wave.model.device).repeat(len(prompts))
    owners = torch.tensor(prompts, device=layers.device).repeat_interleave(wave.model.n_layers) % len(wave.batch)
    try:
        with torch.no_grad():
            recorded = record_all(wave.model, wave.positions, **wave.batch.inputs()) if wave.whole else wave.activations
            found = wave.final(recorded[owners, layers], layers, owners)
    except Exception as error:  # a model's own code, as in `check_rows`: the plain path is there for all it may raise
        return cannot_run(error)
    clean = wave.clean_pass.final[owners]
    errors = (found - clean).norm(dim=-1) / clean.norm(dim=-1)
    wrong = layers[~(errors <= tolerance(wave.model))].unique().tolist()
    if wrong:
        return f"unmodified rows of layers {wrong} do not give back the clean answer ({errors.max():.1e})"
    return ""


def cannot_run(error: Exception) -> str:
    """What went wrong in a wave, in words."""
    first = next(iter(str(error).splitlines()), "no message")  # a bare assert has none
    return f"a wave cannot run through it ({type(error).__name__}: {first[:200]})"


def _value_and_slope(
    forward: PlainForward | WaveForward, rows: Tensor, layers: Tensor, prompts: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = rows.detach().requires_grad_()
        values = forward(leaf, layers, prompts)
        (slope,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), slope


def _relative(ours: Tensor, theirs: Tensor, floor: Tensor) -> float:
    return float((ours - theirs).norm() / (theirs.norm() + floor))


def tolerance(model: NeuronModel) -> float:
    """Largest relative error of a wave in the model's precision."""
    return TOLERANCE.get(model.dtype, ROUGH_TOLERANCE)


def _shortened(prompt: Prompt, kind: Kind) -> Prompt:
    """The tokens around a prompt's answer position: enough to compare two ways of running a model."""
    start = max(0, prompt.position - GUARD_TOKENS + 3)
    end = prompt.position + 1 if kind == "causal" else start + GUARD_TOKENS
    return replace(prompt, input_ids=prompt.input_ids[start:end], position=prompt.position - start)


def _two_prompts(prompt: Prompt, device: torch.device) -> Batch:
    """The prompt and one with its other tokens turned round: arguments of one prompt must not serve for another."""
    ids = list(prompt.input_ids)
    places = [i for i in range(len(ids)) if i != prompt.position]
    for place, other in zip(places, reversed(places), strict=True):
        ids[place] = prompt.input_ids[other]
    return Batch((prompt, replace(prompt, input_ids=tuple(ids))), device)


def is_hooked(model: NeuronModel) -> bool:
    """Whether hooks are at work that count on whole prompts, such as an intervention around the scoring."""
    head = model.model.get_output_embeddings()  # `computing` may have hooks there
    return any((m._forward_hooks or m._forward_pre_hooks) and m is not head for m in model.model.modules())


def _log(model: NeuronModel, what: str, verdict: Verdict) -> None:
    found = f"not by the wave: {verdict.reason}" if verdict.reason else "by the wave, which passed its guards"
    LOG.info("%s: %s are run %s", model.name, what, found)


def warn_of_plain_path(model: NeuronModel, verdict: Verdict) -> None:
    """Say that the guards have found something, if they have."""
    if verdict.reason:
        kind = model.model.config.model_type
        warnings.warn(
            f"{model.name} (type {kind!r}) is run on the plain path, right but slow: {verdict.reason}.",
            PlainPathWarning,
            stacklevel=4,
        )
