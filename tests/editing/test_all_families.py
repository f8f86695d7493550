"""Both forms of a change on every supported type: what is written, where, and that it is as it was afterwards."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from architecture_cases import CASES, NO_DOUBLE, bare, batch_of, double_precision, loaded
from kn_attrib import NeuronModel
from kn_attrib.editing import RankOne, ValueVectors, WeightDelta, apply_delta
from kn_attrib.errors import EditError
from kn_attrib.models.neuron_model import digest_of


def delta_for(model: NeuronModel) -> tuple[WeightDelta, dict[int, Tensor]]:
    """A delta of two layers, and what it adds to each as a whole matrix."""
    generator, dtype = torch.Generator().manual_seed(1), model.dtype
    width, hidden = model.value_vectors(0).shape
    left, right, vectors = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in (width, hidden, (2, hidden))
    )
    neurons = torch.tensor([40, 3])
    whole = torch.zeros(width, hidden, dtype=dtype)
    whole[40], whole[3] = vectors
    delta = WeightDelta((RankOne(1, left, right), ValueVectors(0, neurons, vectors)), digest_of(model.model))
    return delta, {0: whole, 1: torch.outer(left, right)}


@pytest.mark.parametrize("name", CASES)
def test_a_delta_on_every_family(name: str) -> None:
    model = loaded(name)
    batch = batch_of(model)
    delta, added = delta_for(model)
    if model.architecture.shared_module:
        with pytest.raises(EditError, match="layers share"):
            apply_delta(model, delta, permanently=True)
        return
    with torch.no_grad(), double_precision() if name in NO_DOUBLE else nullcontext():
        clean = bare(model, batch)
        values = [model.value_vectors(layer).clone() for layer in range(model.n_layers)]
        with apply_delta(model, delta):
            for layer, before in enumerate(values):
                expected = before + added[layer] if layer in added else before
                torch.testing.assert_close(model.value_vectors(layer), expected, rtol=1e-12, atol=0)
            # The bare Hugging Face model runs on the changed weights.
            assert not torch.allclose(bare(model, batch), clean)
        assert torch.equal(bare(model, batch), clean)
    assert digest_of(model.model) == delta.model_digest
