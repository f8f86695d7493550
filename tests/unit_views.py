"""What the tests of units other than neurons share; the fixtures are in conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib import Batch, FactSet, NeuronModel
from kn_attrib.methods import Ablation, Activation, GradientXActivation, IntegratedGradients, Random
from kn_attrib.scoring.method_specs import make_units
from kn_attrib.units.view import UnitModel

MODELS = ("masked", "causal", "grouped")
KINDS = ("nmf(k=5)", "pca(k=5)", "heads")
SCORERS = (IntegratedGradients(), Ablation(), Activation(), GradientXActivation(), Random())
ATTENTION = {
    "masked": "bert.encoder.layer.{i}.attention.output.dense",
    "causal": "transformer.h.{i}.attn.c_proj",
    "grouped": "model.layers.{i}.self_attn.o_proj",
}
HEADS = 4


def view_of(model: NeuronModel, facts: FactSet, kind: str) -> UnitModel:
    return make_units(kind).views(model, model.encode(facts).prompts)["capital"]


def batch_of(model: NeuronModel, facts: FactSet, split: Any = "held_out") -> Batch:
    """Prompts of one length; held-out ones, so that nothing was fitted on them."""
    return max((batch for _, batch in model.batches(model.encode(facts, split).prompts)), key=len)


def probability(model: NeuronModel, batch: Batch) -> Tensor:
    return model.answers(batch).logprob.exp()


@contextmanager
def hooked(model: NeuronModel, module: nn.Module, batch: Batch, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A hook of our own: ``change(vector [row, neuron])`` of what enters a module at the answer position."""

    def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        vectors, rows = inputs[0].clone(), torch.arange(len(batch))
        vectors[rows, batch.positions] = change(vectors[rows, batch.positions])
        return (vectors,)

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
