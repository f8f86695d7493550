"""oneDNN's products against PyTorch's own: values, gradients, and when they are left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kn_attrib import NeuronModel
from kn_attrib.models.compute import Compute
from kn_attrib.models.onednn_linears import WORTH_IT, fast_linears, linears_of

KINDS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(128, 96),
    "no bias": lambda: nn.Linear(128, 96, bias=False),
    "conv1d": lambda: Conv1D(96, 128),
}
ROWS = WORTH_IT // (96 * 128) + 1


def frozen(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind]().requires_grad_(False)


@pytest.mark.parametrize("shape", [(2, ROWS), (ROWS,)])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_pytorchs(kind: str, shape: tuple[int, ...]) -> None:
    module = frozen(kind)
    inputs = torch.randn(*shape, 128).requires_grad_()

    def value_and_slopes() -> tuple[Tensor, ...]:
        product = module(inputs)
        (slope,) = torch.autograd.grad(product.square().sum(), inputs, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), inputs)
        return product, slope, second

    expected = value_and_slopes()
    with fast_linears([module]):
        found = value_and_slopes()
    assert "Product" in type(found[0].grad_fn).__name__
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() < 1e-6 * theirs.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_as_exact_as_pytorchs(kind: str) -> None:
    module, inputs = frozen(kind), torch.randn(ROWS, 128)
    own = module(inputs)
    with fast_linears([module]):
        found = module(inputs)
    exact = module.double()(inputs.double())
    assert (found - exact).norm() < 1.5 * (own - exact).norm()


def test_strided_inputs_and_expanded_gradients() -> None:
    module = frozen("linear")
    inputs = torch.randn(128, ROWS).t().requires_grad_()
    expected = torch.autograd.grad(module(inputs).sum(), inputs)[0]
    with fast_linears([module]):
        product = module(inputs)
    assert torch.allclose(torch.autograd.grad(product.sum(), inputs)[0], expected, atol=1e-5)


def left_alone(module: nn.Module, inputs: Tensor) -> bool:
    with fast_linears([module]):
        product = module(inputs)
    return bool(torch.equal(product, module(inputs))) and "Product" not in type(product.grad_fn).__name__


def test_left_alone() -> None:
    inputs = torch.randn(ROWS, 128).requires_grad_()
    assert left_alone(frozen("linear"), inputs[:2])  # small
    assert left_alone(frozen("linear").requires_grad_(True), inputs)  # trained
    assert left_alone(frozen("linear").double(), inputs.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert left_alone(frozen("linear"), inputs)

    class Own(nn.Linear):
        pass

    assert linears_of(nn.Sequential(Own(2, 2), nn.ReLU())) == []


def test_undone_and_nested() -> None:
    module, other = frozen("linear"), frozen("linear")
    vars(other)["forward"] = somebodys = other.forward
    with fast_linears([module, other]):
        with fast_linears([module]):
            pass
        assert "forward" in vars(module)
        assert vars(other)["forward"] is somebodys
    assert "forward" not in vars(module)

    def fail() -> None:
        with fast_linears([module]):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # its own
        fail()
    assert "forward" not in vars(module)


def test_rows_leave_room_for_the_weights_that_are_laid_out_anew(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("masked", dtype="float32")
    largest = max(m.weight.numel() for m in model.model.modules() if isinstance(m, nn.Linear))
    model.execution.settings = Compute(memory_budget=100 * largest)
    assert model.execution.row_budget(model.device) == (100 - 2 * 4) * largest
    model.execution.settings = Compute(memory_budget=4 * largest)
    assert model.execution.row_budget(model.device) == largest
    double = load_tiny("masked")
    double.execution.settings = Compute(memory_budget=100)
    assert double.execution.row_budget(double.device) == 100
