"""Methods from outside the package that fail, or do more than score: named, put back, told."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kn_attrib import Attribution, Batch, FactSet, NeuronModel, Scorer, register, score
from kn_attrib.errors import ConfigError, MethodError
from kn_attrib.models.neuron_model import digest_of
from kn_attrib.scoring.guarded import MethodWarning
from kn_attrib.scoring.model_state import ModelState

Deed = Callable[[NeuronModel], object]


@dataclass(frozen=True)
class Doing(Scorer):
    """A method that does something to the model, and returns activations."""

    deed: Deed

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        activations = model.record(batch)
        self.deed(model)
        return activations


@dataclass(frozen=True)
class Returning(Scorer):
    """A method that makes something of the activations and returns it."""

    make: Callable[[Tensor], Any]

    def score(self, model: NeuronModel, batch: Batch) -> Any:
        return self.make(model.record(batch))


@pytest.fixture
def model(load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return load_tiny("masked", "float32")


def head(model: NeuronModel) -> Any:
    return model.model.get_output_embeddings()


def first(model: NeuronModel) -> nn.Parameter:
    return next(iter(model.model.parameters()))


def replace_a_layer(model: NeuronModel) -> None:
    encoder: Any = model.model.base_model
    encoder.encoder.layer[1] = encoder.encoder.layer[0]


def set_gradient(model: NeuronModel) -> None:
    first(model).grad = torch.zeros_like(first(model))


def replace_forward(model: NeuronModel) -> None:
    head(model).forward = lambda x: x


PUT_BACK: dict[str, tuple[Deed, str]] = {
    "a forward hook": (lambda m: head(m).register_forward_hook(lambda *_: None), "1 hooks"),
    "a pre-hook": (lambda m: head(m).register_forward_pre_hook(lambda *_: None), "1 hooks"),
    "a backward hook": (lambda m: head(m).register_full_backward_hook(lambda *_: None), "1 hooks"),
    "a hook on neurons": (lambda m: m.hook_points[0].register_forward_pre_hook(lambda *_: None), "1 hooks"),
    "another forward": (replace_forward, "1 hooks or replaced forwards"),
    "train mode": (lambda m: m.model.train(), "train mode of"),
    "train mode of one": (lambda m: head(m).train(), "train mode of 1 modules"),
    "weights that record": (lambda m: first(m).requires_grad_(not first(m).requires_grad), "gradients of 1 weights"),
    "a gradient": (set_gradient, "gradients of 1 weights"),
    "half precision": (lambda m: m.model.half(), "type, device or memory of"),
    "double precision of one": (lambda m: head(m).double(), "type, device or memory of"),
    "other memory": (lambda m: setattr(first(m), "data", first(m).data.clone() + 1), "memory of 1 weights"),
    "another weight": (lambda m: setattr(head(m), "weight", nn.Parameter(torch.zeros(1))), "parts of 1 modules"),
    "a new weight": (lambda m: head(m).register_parameter("more", nn.Parameter(torch.zeros(1))), "parts of 1 modules"),
    "a layer in another's place": (replace_a_layer, "parts of 1 modules replaced"),
    "a layer taken out": (lambda m: delattr(head(m), "bias"), "parts of 1 modules"),
    "gradients off": (lambda _: torch.set_grad_enabled(False), "whether gradients are recorded"),
    "default dtype": (lambda _: torch.set_default_dtype(torch.float64), "default dtype"),
    "torch's random numbers": (lambda _: torch.rand(1), "global random numbers"),
    "torch's seed": (lambda _: torch.manual_seed(7), "global random numbers"),
    "numpy's random numbers": (lambda _: np.random.rand(), "global random numbers"),  # noqa: NPY002
    "Python's random numbers": (lambda _: random.random(), "global random numbers"),
}


def world() -> tuple[object, ...]:
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        (numpy["state"]["pos"], numpy["state"]["key"].tolist()),
        random.getstate(),
    )


@pytest.mark.parametrize("what", PUT_BACK)
def test_what_a_method_changes_is_put_back_and_told(model: NeuronModel, facts: FactSet, what: str) -> None:
    deed, told = PUT_BACK[what]
    expected = score(model, facts[0], "integrated_gradients(steps=4)").values
    state, before, digest = ModelState(model, thorough=True), world(), digest_of(model.model)
    with pytest.warns(MethodWarning, match=r"method 'Doing' \(.*test_guarded.py:\d+\) changed .*put back") as caught:
        found = score(model, facts[0], Doing(deed))
    assert told in str(caught[0].message)
    assert any(told in each for each in found.provenance["put_back"])
    assert state.put_back() == ([], "")
    assert world() == before
    assert digest_of(model.model) == digest
    assert torch.equal(score(model, facts[0], "integrated_gradients(steps=4)").values, expected)


def scale(model: NeuronModel) -> None:
    with torch.no_grad():
        first(model).mul_(1.01)


def change_one_value_beside_autograd(model: NeuronModel) -> None:
    first(model).data.view(-1)[3] += 1e-3


SPOILT: dict[str, Deed] = {
    "a weight scaled": scale,
    "one value, unseen by PyTorch": change_one_value_beside_autograd,
    "a neuron's value vector": lambda m: (
        m.model.get_parameter("bert.encoder.layer.1.output.dense.weight").data[:, 5].zero_()
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_weights_with_other_values_are_an_error(model: NeuronModel, facts: FactSet, what: str) -> None:
    with pytest.raises(MethodError, match=r"'Doing'.*1 of \d+ weights have other values; load the model again"):
        score(model, facts[0], Doing(SPOILT[what]))


def test_a_method_that_undoes_what_it_does_is_left_alone(model: NeuronModel, facts: FactSet) -> None:
    def there_and_back(model: NeuronModel) -> None:
        kept = first(model).detach().clone()
        with torch.no_grad():
            first(model).zero_()
            first(model).copy_(kept)
        head(model).register_forward_hook(lambda *_: None).remove()
        torch.rand(3, generator=torch.Generator().manual_seed(0))

    found = score(model, facts[0], Doing(there_and_back))
    assert "put_back" not in found.provenance


def fail(_: object) -> None:
    raise ValueError("no such thing.")


FAILING: dict[str, tuple[Deed, str]] = {
    "an exception": (fail, r"ValueError: no such thing \(.*test_guarded.py:\d+\)\."),
    "an assertion": (lambda _: (_ for _ in ()).throw(AssertionError("odd")), "AssertionError: odd"),
    "sys.exit": (lambda _: sys.exit(3), r"asked the program to exit \(3\)"),
    "os._exit": (lambda _: os._exit(0), r"asked the program to exit \(0\)"),
    "an attribute that is not there": (lambda m: m.no_such_attribute, "AttributeError"),  # type: ignore[attr-defined]
    "recursion": (lambda m: FAILING["recursion"][0](m), "RecursionError"),
}


@pytest.mark.parametrize("what", FAILING)
def test_failures_name_the_method_and_leave_the_model_as_it_was(model: NeuronModel, facts: FactSet, what: str) -> None:
    deed, message = FAILING[what]

    def spoil_and_fail(model: NeuronModel) -> None:
        head(model).register_forward_hook(lambda *_: None)
        deed(model)

    state, leave = ModelState(model, thorough=True), os._exit
    with pytest.warns(MethodWarning), pytest.raises(MethodError, match=f"'Doing' .*failed: {message}") as caught:
        score(model, facts[0], Doing(spoil_and_fail))
    assert caught.value.__cause__ is not None
    assert state.put_back() == ([], "")
    assert os._exit is leave


def test_an_interrupt_is_no_failure_of_the_method(model: NeuronModel, facts: FactSet) -> None:
    def interrupt(model: NeuronModel) -> None:
        model.model.train()
        raise KeyboardInterrupt

    with pytest.warns(MethodWarning), pytest.raises(KeyboardInterrupt):
        score(model, facts[0], Doing(interrupt))
    assert not model.model.training


def test_the_package_s_own_errors_pass_as_they_are(model: NeuronModel, facts: FactSet) -> None:
    def refuse(_: NeuronModel) -> None:
        raise ConfigError("k is 7; expected 8.")

    with pytest.raises(ConfigError, match=r"^k is 7; expected 8\.$"):
        score(model, facts[0], Doing(refuse))


def test_what_progress_raises_is_not_the_method_s(model: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(ZeroDivisionError):
        score(model, facts[0], Doing(lambda _: None), progress=lambda _: 1 / 0)


def test_weights_that_were_spoilt_before_an_error_of_its_own_are_told(model: NeuronModel, facts: FactSet) -> None:
    def spoil_and_refuse(model: NeuronModel) -> None:
        scale(model)
        raise ConfigError("k is 7; expected 8.")

    with pytest.warns(MethodWarning, match="weights have other values"), pytest.raises(ConfigError):
        score(model, facts[0], Doing(spoil_and_refuse))


def test_fitting_is_watched_too(model: NeuronModel, facts: FactSet) -> None:
    @dataclass(frozen=True)
    class Fitting(Returning):
        def fit(self, *_: Any) -> Any:
            raise LookupError("nothing to fit")

    with pytest.raises(MethodError, match=r"'Fitting' .*failed: LookupError: nothing to fit"):
        score(model, facts[0], Fitting(lambda a: a))


def test_a_method_of_the_package_that_runs_another_is_watched(
    model: NeuronModel, facts: FactSet, registry: dict[str, type[Scorer]]
) -> None:
    @register("leaving")
    @dataclass(frozen=True)
    class Leaving(Scorer):
        """Leaves a hook."""

        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            head(model).register_forward_hook(lambda *_: None)
            return model.record(batch)

    with pytest.warns(MethodWarning, match="'shuffled' .* changed 1 hooks"):
        score(model, facts[0], "shuffled(base='leaving')")


def all_nan(a: Tensor) -> Tensor:
    return torch.full_like(a, torch.nan)


WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "nothing": (lambda _: None, "returned NoneType for scores"),
    "a list": (lambda a: a.tolist(), "returned list for scores"),
    "an array": (lambda a: a.numpy(), "returned ndarray for scores"),
    "one neuron": (lambda a: a[..., :1], r"returned scores of shape \(\d, 3, 1\)"),
    "no prompt": (lambda a: a[:0], r"returned scores of shape \(0, 3, 48\); expected .*\(\d, 3, 48\)"),
    "no layers": (lambda a: a[:, 0], r"returned scores of shape \(\d, 48\)"),
    "whole numbers": (lambda a: a.int(), "returned scores as int32, strided, cpu; .*of floating-point numbers, dense"),
    "flags": (lambda a: a > 0, "returned scores as bool"),
    "complex numbers": (lambda a: a + 1j, "returned scores as complex64"),
    "a sparse tensor": (lambda a: a.to_sparse(), "returned scores as float32, sparse_coo"),
    "a tensor without values": (lambda a: a.to("meta"), "returned scores as float32, strided, meta"),
    "nan": (all_nan, r"returned \d+ scores that are not finite"),
    "infinity": (lambda a: a / 0, r"returned \d+ scores that are not finite"),
    "a gap of another shape": (lambda a: Attribution(a, gap=a), r"returned a gap of shape \(\d, 3, 48\)"),
    "a gap that is a number": (lambda a: Attribution(a, gap=0.0), "returned float for a gap"),  # type: ignore[arg-type]
    "nan in the gap": (lambda a: Attribution(a, gap=all_nan(a[..., 0])), r"returned \d+ values of gap that are not"),
    "a difference of whole numbers": (lambda a: Attribution(a, difference=a[..., 0].int()), "a difference as int32"),
    "an error for prompts": (lambda a: Attribution(a, error=a[:, 0, 0]), r"returned an error of shape \(\d,\)"),
    "caps that are numbers": (lambda a: Attribution(a, capped=a[..., 0]), "returned a mask capped as float32.*of bool"),
    "scores of scores": (lambda a: Attribution(Attribution(a)), "returned Attribution for scores"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_score_is_refused(model: NeuronModel, facts: FactSet, what: str) -> None:
    make, message = WRONG[what]
    with pytest.raises(MethodError, match=f"method 'Returning' .*{message}"):
        score(model, facts[0], Returning(make))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_of_any_floating_type_are_taken(model: NeuronModel, facts: FactSet, dtype: torch.dtype) -> None:
    found = score(model, facts[0], Returning(lambda a: a.to(dtype).requires_grad_()))
    expected = score(model, facts[0], Returning(lambda a: a))
    assert found.values.dtype == torch.float32
    assert not found.values.requires_grad
    assert torch.allclose(found.values, expected.values, rtol=1e-2)
