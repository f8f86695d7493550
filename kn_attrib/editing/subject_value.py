"""The subject's last token: where it stands, what is read there, and what would have to be written there instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kn_attrib.editing.edit import Edit, wanted_queries
from kn_attrib.errors import EditError, PromptError
from kn_attrib.facts.facts import SLOT
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.neuron_model import NeuronModel

ESSENCE = f"{{}} is a {SLOT}"
"""What keeps the subject what it is: the model's next word at the subject shall stay."""


@dataclass(frozen=True)
class Reading:
    """One text that names the subject: its queries for the target's tokens, and the subject's last token."""

    queries: tuple[Prompt, ...]
    place: int


@dataclass(frozen=True)
class ValueSettings:
    """How a value is learnt: see `kn_attrib.editing.rome.Rome`."""

    steps: int
    rate: float
    drift: float
    decay: float
    clamp: float
    stop: float


def subject_readings(model: NeuronModel, edit: Edit, prefixes: Sequence[str]) -> tuple[list[Reading], Reading]:
    """The edit's first text that names the subject, alone and behind each prefix; and the subject's essence.

    Prefixes that name the subject themselves, hold a slot or make the text too long are left out.

    Raises
    ------
    EditError : the subject does not stand in a text, word for word.
    """
    subject = edit.fact.subject
    texts = list(dict.fromkeys(query.text for query in wanted_queries(model, edit)))
    named = (reading for text in texts if (reading := _reading(model, edit, text)) is not None)
    bare, essence = next(named, None), _reading(model, edit, ESSENCE.format(subject))
    if bare is None or essence is None:
        raise EditError(
            f"edit of fact {edit.fact.id!r}: the subject {subject!r} does not stand in {texts[0]!r} as the model reads "
            "it, and the edit is made at the subject's last token; give a prompt that holds it, word for word, before "
            "the slot."
        )
    found = [bare]
    for prefix in prefixes:
        if subject not in prefix and SLOT not in prefix:
            with suppress(PromptError):
                longer = _reading(model, edit, prefix + bare.queries[0].text)
                found += [] if longer is None else [longer]
    return found, essence


def _reading(model: NeuronModel, edit: Edit, text: str) -> Reading | None:
    queries = model.encoder.encode(edit.after, text)
    span = model.encoder.subject_span(queries[0])
    # What a decoder reads is not where an encoder has found the subject.
    return None if span is None or queries[0].source else Reading(queries, span[1] - 1)


def read_keys(model: NeuronModel, layer: int, readings: Sequence[Reading]) -> Tensor:
    """Neuron vectors at the subject's last token: ``[reading, neuron]``."""
    places = [reading.place for reading in readings]
    found: list[Tensor | None] = [None] * len(readings)
    for indices, batch in model.batches([reading.queries[0] for reading in readings]):

        def keep(vectors: Tensor, indices: list[int] = indices) -> Tensor:
            for row, index in enumerate(indices):
                found[index] = vectors[row, places[index]].detach().clone()
            return vectors

        with torch.no_grad(), model.edited({layer: keep}):
            model.final(batch.positions, **batch.inputs())
    return torch.stack([key for key in found if key is not None])


def learnt_value(
    model: NeuronModel,
    layer: int,
    readings: Sequence[Reading],
    essence: Reading,
    value: Tensor,
    settings: ValueSettings,
) -> Tensor:
    """What is to be added to a layer's output at the subject for the target to be answered: ``δ [hidden]``.

    Minimises ``mean over texts of mean over tokens of −log p(target) + drift · KL(after ‖ before) + decay · ‖δ‖ /
    ‖v‖²``, the KL at the subject of its essence, by Adam from 0, ``‖δ‖`` held below ``clamp · ‖v‖``.

    Parameters
    ----------
    value : ``v [hidden]``, what is written there now.
    """
    delta = torch.zeros_like(value).requires_grad_()
    optimizer = torch.optim.Adam([delta], settings.rate)
    before = _essence_logprobs(model, layer, essence, None)
    longest = settings.clamp * float(value.norm())
    for step in range(settings.steps):
        optimizer.zero_grad()
        loss = _target_loss(model, layer, readings, delta)
        loss += _backward(_drift(_essence_logprobs(model, layer, essence, delta), before), settings.drift)
        loss += _backward(delta.norm() / value.norm() ** 2, settings.decay)
        if loss < settings.stop or step == settings.steps - 1:
            break
        optimizer.step()
        with torch.no_grad():
            size = float(delta.norm())
            delta *= min(1.0, longest / size) if size else 1.0
    return delta.detach()


def _backward(part: Tensor, factor: float) -> float:
    """Differentiate a part of the loss, and say how large it is."""
    if factor:
        (factor * part).backward()
    return factor * float(part.detach())


def _drift(after: Tensor, before: Tensor) -> Tensor:
    """``KL(after ‖ before)`` of log-probabilities."""
    return (after.exp() * (after - before)).sum()


def _target_loss(model: NeuronModel, layer: int, readings: Sequence[Reading], delta: Tensor) -> float:
    """Mean −log p of the target, differentiated batch by batch."""
    queries = [(query, reading.place) for reading in readings for query in reading.queries]
    total = 0.0
    for indices, batch in model.batches([query for query, _ in queries]):
        with _adding(model.ffn_outputs[layer], delta, [queries[index][1] for index in indices]):
            gold = model.gold(batch.positions, batch.answers, **batch.inputs())
            weights = [1 / (len(readings) * query.tokens) for query in batch.prompts]
            total += _backward(-(torch.tensor(weights, dtype=torch.float64).to(gold.logprob) * gold.logprob).sum(), 1.0)
    return total


def _essence_logprobs(model: NeuronModel, layer: int, essence: Reading, delta: Tensor | None) -> Tensor:
    """Log-probabilities of all words behind the subject: ``[vocabulary]``."""
    query = replace(essence.queries[0], position=essence.place)
    _, batch = next(iter(model.batches([query])))
    if delta is None:
        with torch.no_grad():
            return model.logits(batch.positions, **batch.inputs())[0].log_softmax(-1)
    with _adding(model.ffn_outputs[layer], delta, [essence.place]):
        return model.logits(batch.positions, **batch.inputs())[0].log_softmax(-1)


@contextmanager
def _adding(site: nn.Module, delta: Tensor, places: Sequence[int]) -> Iterator[None]:
    """While active, a linear's output has ``delta`` added at one token of each row."""

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        # Some families give their linear rows and tokens as one dimension.
        by_row = output.reshape(len(places), -1, output.shape[-1])
        where = torch.zeros(by_row.shape[:2], dtype=output.dtype, device=output.device)
        where[range(len(places)), places] = 1
        return (by_row + where[..., None] * delta.to(output.dtype)).reshape(output.shape)

    handle = site.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
