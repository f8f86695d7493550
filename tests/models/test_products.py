"""Which library multiplies: found once for a class of products, fixed where it was asked for, and said with results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kn_attrib import FactSet, NeuronModel, compare, load_facts, load_model, score
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.records.provenance import identity_of
from kn_attrib.models import compute, products
from kn_attrib.models.compute import Compute
from kn_attrib.models.onednn_linears import fast_linears
from kn_attrib.models.products import TRIES, ProductClass, Products, class_of, summary_of

Load = Callable[..., NeuronModel]
Calls = list[tuple[str, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Nothing is known yet; calls are noted with their rows, and each library is as slow as `PACE` says."""
    noted: Calls = []

    def noting(library: str) -> Callable[..., Tensor]:
        def multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            noted.append((library, len(inputs)))
            time.sleep(PACE[library])
            return nn.functional.linear(inputs, weight, bias)

        return multiply

    monkeypatch.setattr(products, "FOUND", {})
    monkeypatch.setattr(products, "LIBRARIES", {name: noting(name) for name in ("pytorch", "onednn")})
    PACE.update(pytorch=0.0, onednn=0.0)
    return noted


@pytest.fixture(autouse=True)
def _nothing_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compute.PRODUCTS_VARIABLE)


PACE: dict[str, float] = {}
WEIGHT = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
ROWS = 50


def inputs_of(rows: int = ROWS) -> Tensor:
    return torch.randn(rows, 128, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("slow", "fast"), [("pytorch", "onednn"), ("onednn", "pytorch")])
def test_the_faster_one_is_found_once_and_taken(calls: Calls, slow: str, fast: str) -> None:
    PACE[slow] = 0.005
    chooser = Products("auto", set())
    for _ in range(TRIES):
        assert chooser.library(class_of(inputs_of(), WEIGHT)) is None
        chooser.multiply(inputs_of(), WEIGHT, None)
    # Both for equally many rows, in turns.
    assert calls == [("pytorch", 32), ("onednn", 32), ("onednn", 32), ("pytorch", 32), ("pytorch", 32), ("onednn", 32)]
    calls.clear()
    for rows in (ROWS, 33, 64):
        chooser.multiply(inputs_of(rows), WEIGHT, None)
    # Of all models of the process.
    Products("auto", set()).multiply(inputs_of(), WEIGHT, None)
    assert calls == [(fast, ROWS), (fast, 33), (fast, 64), (fast, ROWS)]


@pytest.mark.parametrize("rows", [33, 50, 63, 64])
@pytest.mark.parametrize("outer", [(), (2,)])
def test_a_product_that_both_share_is_the_product(calls: Calls, rows: int, outer: tuple[int, ...]) -> None:
    chooser, bias = Products("auto", set()), torch.arange(96.0)
    for _ in range(TRIES):
        inputs = torch.randn(*outer, rows, 128)
        found = chooser.multiply(inputs, WEIGHT, bias)
        assert found.shape == (*outer, rows, 96)
        assert torch.allclose(found, inputs @ WEIGHT.t() + bias, atol=1e-4)


@pytest.mark.usefixtures("calls")
def test_other_rows_shapes_layouts_threads_and_precisions_are_found_anew() -> None:
    chooser = Products("auto", set())
    for _ in range(TRIES):
        chooser.multiply(inputs_of(), WEIGHT, None)
    assert chooser.library(class_of(inputs_of(), WEIGHT)) is not None
    assert chooser.library(class_of(inputs_of(32), WEIGHT)) is None
    assert chooser.library(class_of(inputs_of(65), WEIGHT)) is None
    assert chooser.library(class_of(inputs_of(), WEIGHT[:90])) is None
    assert chooser.library(class_of(inputs_of(), WEIGHT.t().contiguous().t())) is None
    torch.set_num_threads(2)
    try:
        assert chooser.library(class_of(inputs_of(), WEIGHT)) is None
    finally:
        torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    try:
        assert chooser.library(class_of(inputs_of(), WEIGHT)) is None
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("rows", "width"), [(products.FEW_ROWS, 512), (20, 96), (0, 96)])
def test_small_products_and_few_rows_are_pytorchs_untimed(calls: Calls, rows: int, width: int) -> None:
    module, met = nn.Linear(width, width).requires_grad_(False), set[ProductClass]()
    for asked in ("auto", "onednn"):
        with fast_linears([module], Products(asked, met)):
            module(torch.zeros(rows, width))
    assert not met
    assert not calls


@pytest.mark.parametrize("layout", [lambda weight: weight, Tensor.t, lambda weight: weight[::2, :100]])
def test_gradients_are_of_the_class_that_they_are_looked_up_in(layout: Callable[[Tensor], Tensor]) -> None:
    weight = layout(WEIGHT)
    outer = torch.zeros(ROWS, len(weight))
    inputs = torch.zeros(ROWS, weight.shape[1])
    assert class_of(inputs, weight).of_gradient() == class_of(outer, weight.t())


@pytest.mark.parametrize("asked", ["pytorch", "onednn"])
def test_a_fixed_choice_is_not_timed(calls: Calls, asked: str) -> None:
    module = nn.Linear(128, 96).requires_grad_(False)
    with fast_linears([module], Products(asked, set())):
        for _ in range(TRIES + 1):
            module(inputs_of())
    assert calls == ([] if asked == "pytorch" else [("onednn", ROWS)] * (TRIES + 1))
    assert products.FOUND == {}


@pytest.mark.parametrize("asked", ["auto", "onednn"])
def test_deterministic_algorithms_are_not_chosen_by_timing(calls: Calls, asked: str) -> None:
    module, inputs = nn.Linear(128, 96).requires_grad_(False), inputs_of()
    torch.use_deterministic_algorithms(True)
    try:
        with fast_linears([module], Products(asked, set())):
            found = module(inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert calls == ([] if asked == "auto" else [("onednn", ROWS)])
    assert torch.equal(found, module(inputs))


@pytest.mark.usefixtures("calls")
def test_the_summary_counts_classes() -> None:
    chooser = Products("auto", set())
    PACE["pytorch"] = 0.005
    for _ in range(TRIES):
        chooser.multiply(inputs_of(), WEIGHT, None)
    chooser.multiply(inputs_of(100), WEIGHT, None)
    assert summary_of("auto", chooser.met) == {"asked": "auto", "pytorch": 0, "onednn": 1, "undecided": 1}
    assert summary_of("pytorch", chooser.met) == {"asked": "pytorch", "pytorch": 2, "onednn": 0, "undecided": 0}


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch, make_tiny_bert: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown products 'onedn'.*Did you mean 'onednn'.*auto"):
        Compute(products="onedn")
    assert load_model(make_tiny_bert(), products="pytorch").execution.settings.products == "pytorch"  # type: ignore[arg-type]
    monkeypatch.setattr(compute, "HAS_ONEDNN", False)
    with pytest.raises(ConfigError, match="built without"):
        Compute(products="onednn")


@pytest.fixture(scope="module")
def zoo() -> NeuronModel:
    return load_model("zoo:bert-facts")


@pytest.mark.parametrize("asked", ["auto", "pytorch", "onednn"])
def test_scores_say_what_they_were_multiplied_by_and_are_the_same(zoo: NeuronModel, asked: str) -> None:
    zoo.execution.settings = Compute(products="pytorch")
    fact = load_facts("world")[0]
    expected = score(zoo, fact, "integrated_gradients")
    zoo.execution.settings = Compute(products=asked)
    found = score(zoo, fact, "integrated_gradients")
    assert (found.values - expected.values).norm() < 1e-5 * expected.values.norm()
    said = json.loads(json.dumps(found.provenance["products"]))
    assert said["asked"] == asked
    if asked != "pytorch":
        assert sum(said[name] for name in ("pytorch", "onednn", "undecided")) > 0
    if asked == "onednn":
        assert said["pytorch"] == said["undecided"] == 0


def test_manifests_say_it_and_resuming_does_not_compare_it(load_tiny: Load, facts: FactSet, tmp_path: Path) -> None:
    settings = {"keep": ("unknown",), "budgets": (3,), "dropout": (), "progress": False}
    model, again = load_tiny("masked", "float32"), load_tiny("masked", "float32")
    found = compare(model, facts, ["activation"], folder=tmp_path / "run", **settings)  # type: ignore[arg-type]
    assert found.manifest["model"]["products"]["asked"] == "auto"
    again.execution.met.add(ProductClass(64, 128, 96, False, 1, "highest"))
    assert identity_of(again, facts, {}, {}) == identity_of(model, facts, {}, {})
    assert again.execution.products_so_far() != model.execution.products_so_far()


def test_the_environment_says_what_auto_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Compute().products == "auto"
    monkeypatch.setenv(compute.PRODUCTS_VARIABLE, "pytorch")
    assert Compute().products == "pytorch"
    assert Compute(products="onednn").products == "onednn"
    monkeypatch.setenv(compute.PRODUCTS_VARIABLE, "mkl")
    with pytest.raises(ConfigError, match="'mkl'"):
        Compute()
