"""Conductance as an integral: Captum's own sum in the limit of many steps, where Captum's default is noise."""

from __future__ import annotations

import pytest
import torch
from captum import attr

from architecture_cases import CASES, batch_of, tokenizer
from kn_attrib import NeuronModel, get_method, load_model
from kn_attrib.errors import MethodError
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.methods import LayerConductance
from kn_attrib.scoring.scorer import Attribution

MANY = 1500
BEGIN = 0.01


def build(case: str, **changes: int) -> NeuronModel:
    return load_model((CASES[case].build(**changes), tokenizer()), dtype="float64")


def captums(model: NeuronModel, start: float, steps: int) -> torch.Tensor:
    """``[prompt, layer, neuron]``, by Captum alone, from a share of the embeddings."""
    batch = batch_of(model)
    inputs = model.embed(batch)
    found = []
    for site in model.ffn_outputs:
        whole = attr.LayerConductance(EmbeddingObjective(model), site).attribute(
            inputs,
            baselines=start * inputs,
            additional_forward_args=batch.where,
            n_steps=steps,
            internal_batch_size=256,
            method="riemann_trapezoid",
            attribute_to_layer_input=True,
        )
        found.append(torch.stack([whole[row, int(at)] for row, at in enumerate(batch.positions)]))
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_the_default_is_what_captums_sum_comes_to_with_many_steps(case: str) -> None:
    model = build(case)
    found = LayerConductance(start=BEGIN).score(model, batch_of(model))
    assert isinstance(found, Attribution)
    assert found.error is not None
    assert found.capped is not None
    # Captum adds up gradients at the left ends of steps, off by 1/n: twice as many steps extrapolate to the limit.
    right = 2 * captums(model, BEGIN, 2 * MANY) - captums(model, BEGIN, MANY)
    longest = right.norm(dim=-1).amax(-1, keepdim=True)
    assert ((found.values - right).norm(dim=-1) <= 0.01 * longest).all()
    assert (found.error <= 0.01 * found.values.norm(dim=-1).amax(-1, keepdim=True)).all()
    assert not found.capped.any()


def test_where_norms_have_no_shift_captums_default_is_noise() -> None:
    model = build("llama", num_hidden_layers=12)
    found = LayerConductance().score(model, batch_of(model))
    assert isinstance(found, Attribution)
    preset = get_method("layer_conductance").preset("captum").score(model, batch_of(model))
    assert isinstance(preset, torch.Tensor)
    for noise in (preset, captums(model, 0.0, 20)):
        assert noise.norm() > 1e6 * found.values.norm()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": -1}, r"steps is -1; expected 0 \(as many as needed\) or more"),
        ({"start": 1.0}, r"start is 1.0; expected a share from 0 to below 1"),
        ({"tolerance": 0.0}, r"tolerance is 0.0; expected a positive share"),
    ],
)
def test_parameters_that_make_no_sense_are_named(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        LayerConductance(**parameters)  # type: ignore[arg-type]
