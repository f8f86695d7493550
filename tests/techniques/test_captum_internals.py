"""The private functions of Captum that the package calls: they are there, and do what is relied on."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import torch
from captum import attr
from captum._utils import gradient
from torch import Tensor, nn

from kn_attrib.techniques.captum_internals import integrated_gradients_at, layer_gradients_and_inputs

HOLDS_FOR = ("0.9",)
"""Minor versions of Captum that this file has passed with; another is to be tried here before setup.cfg admits it."""


def test_this_version_of_captum_has_been_tried() -> None:
    assert ".".join(version("captum").split(".")[:2]) in HOLDS_FOR


def test_the_private_functions_take_what_they_are_given() -> None:
    given = {"inputs", "baselines", "target", "additional_forward_args", "n_steps", "step_sizes_and_alphas"}
    assert given <= set(inspect.signature(attr.IntegratedGradients._attribute).parameters)
    given = {"additional_forward_args", "attribute_to_layer_input"}
    assert given <= set(inspect.signature(gradient.compute_layer_gradients_and_eval).parameters)


def test_integrated_gradients_at_nodes_of_ones_own() -> None:
    inputs = torch.tensor([[1.0, -2.0, 0.5], [0.3, 2.0, 1.0]], dtype=torch.float64)
    baselines = torch.tensor([[0.5, 0.0, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    factor = torch.tensor([2.0, 3.0], dtype=torch.float64)

    def function(rows: Tensor, by: Tensor) -> Tensor:
        return by * (rows**3).sum(-1)

    found = integrated_gradients_at(function, inputs, baselines, (factor,), [0.25, 1.0])
    slopes = [3 * (baselines + alpha * (inputs - baselines)) ** 2 for alpha in (0.25, 1.0)]
    torch.testing.assert_close(found, factor[:, None] * (inputs - baselines) * (slopes[0] + slopes[1]))
    from_zero = integrated_gradients_at(function, inputs, 0.0, (factor,), [1.0])
    torch.testing.assert_close(from_zero, factor[:, None] * inputs * 3 * inputs**2)


def test_gradients_and_what_layers_read_in_one_pass() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4, dtype=torch.float64), nn.Linear(4, 2, dtype=torch.float64)
    inputs = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    passes: list[int] = []

    def function(rows: Tensor, by: Tensor) -> Tensor:
        passes.append(len(rows))
        values: Tensor = by * second(first(rows).tanh()).square().sum(-1)
        return values

    by = torch.arange(1.0, 6.0, dtype=torch.float64)
    gradients, read = layer_gradients_and_inputs(function, [first, second], inputs, (by,))
    assert passes == [5]
    hidden = first(inputs).tanh()
    (slope,) = torch.autograd.grad((by * second(hidden).square().sum(-1)).sum(), hidden)
    torch.testing.assert_close(read[0][0], inputs)
    torch.testing.assert_close(read[1][0], hidden)
    torch.testing.assert_close(gradients[1][0], slope)
