"""Products by either library, and by both at once, against PyTorch's own linears; and when these are left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kn_attrib import NeuronModel
from kn_attrib.models import products
from kn_attrib.models.compute import Compute
from kn_attrib.models.onednn_linears import fast_linears, linears_of
from kn_attrib.models.products import FEW_ROWS, WORTH_TRYING, ProductClass, Products

KINDS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(128, 96),
    "no bias": lambda: nn.Linear(128, 96, bias=False),
    "conv1d": lambda: Conv1D(96, 128),
}
ROWS = WORTH_TRYING // (96 * 128) + 1
AUTO, ONEDNN = Products("auto", set()), Products("onednn", set())


@pytest.fixture(autouse=True)
def _nothing_found_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FOUND", {})


def frozen(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind]().requires_grad_(False)


def faster(monkeypatch: pytest.MonkeyPatch, forward: str | None, backward: str | None) -> None:
    """What timing has said of products and of gradients: None where it has said nothing."""

    def library(self: Products, kind: ProductClass) -> str | None:
        return forward if kind.inputs == 128 else backward

    monkeypatch.setattr(Products, "library", library)


LIBRARIES = ("pytorch", "onednn", None)


@pytest.mark.parametrize("forward", LIBRARIES)
@pytest.mark.parametrize("backward", LIBRARIES)
@pytest.mark.parametrize("shape", [(2, ROWS), (ROWS,)])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_pytorchs(
    kind: str, shape: tuple[int, ...], forward: str | None, backward: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster(monkeypatch, forward, backward)
    module = frozen(kind)
    inputs = torch.randn(*shape, 128).requires_grad_()

    def value_and_slopes() -> tuple[Tensor, ...]:
        product = module(inputs)
        (slope,) = torch.autograd.grad(product.square().sum(), inputs, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), inputs)
        return product, slope, second

    expected = value_and_slopes()
    with fast_linears([module], AUTO):
        found = value_and_slopes()
    assert ("Product" in type(found[0].grad_fn).__name__) == ((forward, backward) != ("pytorch", "pytorch"))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() < 1e-6 * theirs.norm()


def test_second_derivatives_by_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    faster(monkeypatch, None, "onednn")
    module, inputs = frozen("linear"), torch.randn(ROWS, 128).requires_grad_()
    with fast_linears([module], AUTO):
        (slope,) = torch.autograd.grad(module(inputs).pow(3).sum(), inputs, create_graph=True)
        (second,) = torch.autograd.grad((slope * torch.ones_like(slope)).sum(), inputs)
        double = frozen("linear").double()
        step = 1e-3 * torch.ones(ROWS, 128, dtype=torch.float64)
        ends = [(inputs.detach().double() + sign * step).requires_grad_() for sign in (1, -1)]
        plus, minus = (torch.autograd.grad(double(end).pow(3).sum(), end)[0] for end in ends)
    # The Hessian is symmetric: its product with ones, by central differences.
    assert torch.allclose(second.double(), (plus - minus) / 2e-3, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("asked", ["onednn", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_as_exact_as_pytorchs(kind: str, asked: str) -> None:
    module, inputs = frozen(kind), torch.randn(ROWS, 128)
    own = module(inputs)
    with fast_linears([module], Products(asked, set())):
        found = module(inputs)
    exact = module.double()(inputs.double())
    assert (found - exact).norm() < 1.5 * (own - exact).norm()


@pytest.mark.parametrize("asked", ["onednn", "auto"])
def test_strided_inputs_and_expanded_gradients(asked: str) -> None:
    module = frozen("linear")
    inputs = torch.randn(128, ROWS).t().requires_grad_()
    expected = torch.autograd.grad(module(inputs).sum(), inputs)[0]
    with fast_linears([module], Products(asked, set())):
        product = module(inputs)
    assert torch.allclose(torch.autograd.grad(product.sum(), inputs)[0], expected, atol=1e-5)


def left_alone(module: nn.Module, inputs: Tensor, asked: str = "onednn") -> bool:
    with fast_linears([module], Products(asked, set())):
        product = module(inputs)
    return bool(torch.equal(product, module(inputs))) and "Product" not in type(product.grad_fn).__name__


def test_left_alone() -> None:
    inputs = torch.randn(ROWS, 128).requires_grad_()
    assert not left_alone(frozen("linear"), inputs)
    assert left_alone(frozen("linear"), inputs, "pytorch")
    assert left_alone(frozen("linear"), inputs[:FEW_ROWS])
    assert left_alone(nn.Linear(128, 4).requires_grad_(False), inputs)  # small
    assert left_alone(frozen("linear").requires_grad_(True), inputs)  # trained
    assert left_alone(frozen("linear").double(), inputs.double())
    assert left_alone(frozen("linear").bfloat16(), inputs.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert left_alone(frozen("linear"), inputs)

    class Own(nn.Linear):
        pass

    assert linears_of(nn.Sequential(Own(2, 2), nn.ReLU())) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("asked", ["onednn", "auto"])
def test_left_alone_on_gpus(asked: str) -> None:
    assert left_alone(frozen("linear").cuda(), torch.randn(ROWS, 128, device="cuda").requires_grad_(), asked)
    assert products.FOUND == {}


def test_left_alone_elsewhere_than_on_cpus() -> None:
    module, met = nn.Linear(128, 96, device="meta").requires_grad_(False), set[ProductClass]()
    with fast_linears([module], Products("onednn", met)):
        assert module(torch.empty(ROWS, 128, device="meta")).is_meta
    assert met == set()


def test_undone_and_nested() -> None:
    module, other = frozen("linear"), frozen("linear")
    vars(other)["forward"] = somebodys = other.forward
    with fast_linears([module, other], ONEDNN):
        with fast_linears([module], ONEDNN):
            pass
        assert "forward" in vars(module)
        assert vars(other)["forward"] is somebodys
    assert "forward" not in vars(module)

    def fail() -> None:
        with fast_linears([module], ONEDNN):
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


def test_a_limit_holds_for_a_while_where_no_budget_was_set(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("masked")  # double, so no weight is laid out anew
    execution, device = model.execution, model.device
    free = execution.row_budget(device)
    with execution.within(1000):
        assert execution.row_budget(device) == 1000 < free
        with execution.within(500):
            assert execution.row_budget(device) == 500
        assert execution.row_budget(device) == 1000
        execution.settings = Compute(memory_budget=7000)
        assert execution.row_budget(device) == 7000
        execution.settings = Compute()
    assert execution.limit is None

    def fail() -> None:
        with execution.within(1000):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert execution.limit is None
