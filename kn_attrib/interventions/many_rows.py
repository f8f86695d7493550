"""Answers of many rows, each with neurons of its own scaled at the answer position: how interventions are measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.guards import wave_or_none
from kn_attrib.forward.memory import bytes_per_row
from kn_attrib.forward.plain import PlainForward
from kn_attrib.interventions.activations import Positions, scale_rows
from kn_attrib.models.answers import Answer
from kn_attrib.models.neuron_model import NeuronModel, check_neurons
from kn_attrib.neurons import NeuronSet


def answers_of_rows(
    model: NeuronModel,
    batch: Batch,
    sets: Sequence[NeuronSet],
    prompts: Sequence[int],
    factors: Sequence[float],
    max_rows: int = 1024,
    shifts: Sequence[Sequence[float]] | None = None,
    positions: Positions = "answer",
) -> Iterator[tuple[list[int], Answer]]:
    """What the model answers, row by row, without gradients.

    Row ``r`` is prompt ``prompts[r]`` of the batch with the activations of ``sets[r]`` times ``factors[r]`` at the
    answer position (plus ``shifts[r]``), each where it then stands: what earlier neurons of the set change is seen by
    later ones. The fast path runs every prompt once and each row from the first layer that it changes; changes at all
    positions take the plain path.

    Parameters
    ----------
    model, batch : the prompts.
    sets, prompts, factors : one entry per row: neurons, index of the prompt within the batch, and what the neurons are
        multiplied by (0 suppresses, 2 doubles).
    shifts : for each row nothing, or one number per neuron of its set.
    positions : ``"answer"`` or ``"all"`` tokens.
    max_rows : most rows at a time; memory is kept by the model's budget too.

    Raises
    ------
    ModelError : prompts of several lengths that do not take the fast path.

    Yields
    ------
    Indices of some rows, and their answers; every row comes once.
    """
    wave = wave_or_none(model, batch, "logit") if positions == "answer" else None
    forward = wave or PlainForward(model, batch, "logit")
    first = [_first_layer(check_neurons(model, neurons)) for neurons in sets]
    cost = bytes_per_row(forward, gradient=False).tolist()
    budget = model.execution.row_budget(model.device)
    size = max(1, min(max_rows, int(budget // max(cost))))
    order = sorted(range(len(sets)), key=lambda row: first[row])
    with torch.no_grad():
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            some = [sets[row] for row in rows]
            by = [factors[row] for row in rows]
            plus = [shifts[row] for row in rows] if shifts else None
            where = torch.tensor([prompts[row] for row in rows], device=model.device)
            if wave is not None:
                final = wave.scaled(some, where, by, plus)
            else:
                with scale_rows(model, some, by, plus, positions):
                    final = model.final(batch.positions[where], **batch.inputs(where))
            yield rows, model.head.answer(final, batch.answers[where])


def _first_layer(neurons: NeuronSet) -> int:
    return min((neuron.layer for neuron in neurons), default=0)
