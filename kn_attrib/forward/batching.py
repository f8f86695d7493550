"""Batches of prompts: of one length, or of all where nobody asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kn_attrib.facts.prompts import Batch, MixedBatch, Prompt, check_batch_size
from kn_attrib.forward.guards import wave_or_none
from kn_attrib.models.neuron_model import NeuronModel


def batches_of(
    model: NeuronModel, prompts: Sequence[Prompt], max_prompts: int, any_length: bool
) -> Iterator[tuple[list[int], Batch]]:
    """`NeuronModel.batches`; where it is the same to the asker and the model can, prompts of all lengths together.

    In causal models a row is one token, whatever its prompt's length, and few rows cost hardly less than many.
    """
    if not any_length or model.kind != "causal":
        yield from model.batches(prompts, max_prompts)
        return
    check_batch_size(max_prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].input_ids))
    for start in range(0, len(order), max_prompts):
        indices = order[start : start + max_prompts]
        mixed = MixedBatch(tuple(prompts[index] for index in indices), model.device)
        if len(mixed.parts) > 1 and wave_or_none(model, mixed, "logit") is not None:
            yield indices, mixed
        else:
            for own, batch in mixed.parts:
                yield [indices[index] for index in own], batch
