"""The line of input embeddings from zero: where gradients overflow, and where they do not."""

from __future__ import annotations

import torch

from architecture_cases import CASES, batch_of, tokenizer
from kn_attrib import NeuronModel, load_model
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.methods import LayerConductance
from kn_attrib.techniques.embedding_paths import along_embeddings

STEPS = 4


def stack(layers: int) -> NeuronModel:
    return load_model((CASES["llama"].build(num_hidden_layers=layers), tokenizer()))


def test_gradients_that_overflow_at_zero_are_the_next_points() -> None:
    deep = stack(24)
    batch = batch_of(deep)
    points = [i / STEPS for i in range(STEPS + 1)]
    inputs = torch.zeros_like(deep.embed(batch)).requires_grad_()
    with torch.enable_grad():
        value = EmbeddingObjective(deep)(inputs, *batch.where).sum()
    (slope,) = torch.autograd.grad(value, inputs)
    assert not slope.isfinite().all()  # 24 norms without a shift, each with a slope of 1/√ε
    line = along_embeddings(deep, batch, "prob", points)
    assert line.gradients.isfinite().all()
    captums = LayerConductance(steps=STEPS, start=0.0).score(deep, batch)
    assert isinstance(captums, torch.Tensor)
    assert captums.isfinite().all()
    # The first layers' overflow, and only theirs; the rest is what it was.
    assert (line.gradients[0, :, 0] == line.gradients[1, :, 0]).all()
    assert not (line.gradients[0, :, -1] == line.gradients[1, :, -1]).all()


def test_gradients_that_are_finite_stay() -> None:
    shallow = stack(2)
    line = along_embeddings(shallow, batch_of(shallow), "prob", [0.0, 0.5, 1.0])
    assert line.gradients.isfinite().all()
    assert not (line.gradients[0] == line.gradients[1]).all(-1).any()


def test_points_are_taken_in_parts_that_fit_into_the_budget() -> None:
    shallow = stack(2)
    batch = batch_of(shallow)
    points = [i / 6 for i in range(7)]
    at_once = along_embeddings(shallow, batch, "prob", points)
    narrow = load_model((shallow.model, tokenizer()), memory_budget=400_000)
    before = narrow.execution.cost.forwards
    with_rows: list[int] = []
    handle = narrow.model.register_forward_hook(lambda _, __, output: with_rows.append(len(output.logits)))
    try:
        in_parts = along_embeddings(narrow, batch, "prob", points)
    finally:
        handle.remove()
    assert len(with_rows) > 1
    assert sum(with_rows) == narrow.execution.cost.forwards - before == len(points) * len(batch)
    torch.testing.assert_close(in_parts.gradients, at_once.gradients)
    torch.testing.assert_close(in_parts.states, at_once.states)
