"""Prompts and modified rows to compare two ways of running a model on."""

from __future__ import annotations

import torch
from torch import Tensor

from kn_attrib import NeuronModel
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def batches_of(model: NeuronModel, facts: FactSet) -> list[Batch]:
    found = [batch for _, batch in model.batches(model.encode(facts).prompts)]
    assert len({batch.input_ids.shape[1] for batch in found}) > 1
    return found


def random_rows(model: NeuronModel, batch: Batch, n: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    layers = torch.randint(model.n_layers, (n,), generator=generator)
    prompts = torch.randint(len(batch), (n,), generator=generator)
    noise = torch.randn(n, model.n_neurons, generator=generator, dtype=torch.float64).to(model.dtype)
    rows = model.record(batch)[prompts, layers]
    return rows * 0.7 + 0.3 * noise * rows.abs().mean(), layers, prompts
