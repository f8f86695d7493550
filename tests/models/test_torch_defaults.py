"""What a caller has switched on in PyTorch or in the model changes no result, and is as he left it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from kn_attrib import (
    Batch,
    FactSet,
    NeuronModel,
    Scorer,
    amplify,
    compare,
    load_model,
    refine,
    score,
    set_activation,
    suppress,
)
from kn_attrib.errors import KnAttribError
from kn_attrib.evaluation import parameter_randomisation, perplexity
from kn_attrib.models.torch_defaults import matmul_precision, torch_defaults

KINDS = ("masked", "causal")
METHODS = ("integrated_gradients(steps=4)", "gradient_x_activation", "ablation", "activation")
COMPARED: dict[str, Any] = {"keep": ("unknown",), "budgets": (3,), "dropout": (), "curves": True, "progress": False}

# -- what a caller may have done ---------------------------------------------------------------------------------------


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def precision(name: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def backend_precision() -> Iterator[None]:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this PyTorch has no precision for each backend")
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]


@contextmanager
def in_training(model: NeuronModel) -> Iterator[None]:
    model.model.train()
    try:
        yield
    finally:
        model.model.eval()


@contextmanager
def checkpointing(model: NeuronModel) -> Iterator[None]:
    inner: Any = model.model
    what = "activation" if hasattr(inner, "activation_checkpointing_enable") else "gradient"
    getattr(inner, f"{what}_checkpointing_enable")()
    try:
        with in_training(model):
            yield
    finally:
        getattr(inner, f"{what}_checkpointing_disable")()
        inner.disable_input_require_grads()  # a hook that it leaves behind


CALLERS: dict[str, Callable[[NeuronModel], AbstractContextManager[Any]]] = {
    "inference mode": lambda _: torch.inference_mode(),
    "no_grad": lambda _: torch.no_grad(),
    "autocast": lambda _: torch.autocast("cpu", torch.bfloat16),
    "default float64": lambda _: default_dtype(torch.float64),
    "default bfloat16": lambda _: default_dtype(torch.bfloat16),
    "default device": lambda _: default_device(),
    "device context": lambda _: torch.device("meta"),
    "deterministic": lambda _: deterministic(),
    "medium precision": lambda _: precision("medium"),
    "precision of a backend": lambda _: backend_precision(),
    "train mode": in_training,
    "gradient checkpointing": checkpointing,
}

HOOKED = ("gradient checkpointing",)
"""Callers with hooks of their own on the model, which is then run on the plain path: equal but for rounding."""


def state() -> dict[str, object]:
    """What PyTorch is set to."""
    try:
        matmul: object = torch.get_float32_matmul_precision()
    except RuntimeError:
        matmul = "mixed"
    backends: Any = torch.backends
    return {
        "inference": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device.type,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": matmul,
        "mkldnn": getattr(getattr(backends.mkldnn, "matmul", None), "fp32_precision", None),
    }


def as_at_the_start() -> dict[str, object]:
    """`state`, where a backend's "none" (nothing set so far) and "ieee" (float32 throughout) are one."""
    found = state()
    return {**found, "mkldnn": "ieee" if found["mkldnn"] == "none" else found["mkldnn"]}


# -- what he may call --------------------------------------------------------------------------------------------------


def effect_of(change: Callable[..., AbstractContextManager[None]], *args: Any) -> Callable[..., Tensor]:
    def call(model: NeuronModel, facts: FactSet) -> Tensor:
        with change(model, [(0, 3), (2, 5)], *args):
            return model.answer_probability(facts[0], "held_out")

    return call


def scored_while_suppressed(model: NeuronModel, facts: FactSet) -> Tensor:
    with suppress(model, [(0, 3)]):
        return score(model, facts[0], "gradient_x_activation").values


def refined(model: NeuronModel, facts: FactSet) -> Tensor:
    return torch.tensor([tuple(n) for n in refine(score(model, facts[0], METHODS[0]))], device="cpu")


def compared(model: NeuronModel, facts: FactSet) -> Tensor:
    rows = compare(model, facts, ["gradient_x_activation", "ablation", "activation@pca(k=2)"], **COMPARED).rows
    return torch.tensor(rows.value.to_numpy(), dtype=torch.float64, device="cpu")


def first_batch(model: NeuronModel, facts: FactSet) -> Batch:
    return next(iter(model.batches(model.encode(facts[0]).prompts)))[1]


def loaded(model: NeuronModel, facts: FactSet) -> Tensor:
    again = load_model((model.model, model.tokenizer), dtype="float64")
    return score(again, facts[0], METHODS[0]).values


def score_by(method: str) -> Callable[..., Tensor]:
    return lambda model, facts: score(model, facts[0], method).values


CALLS: dict[str, Callable[[NeuronModel, FactSet], Tensor]] = {
    **{method: score_by(method) for method in METHODS},
    "answer_probability": lambda model, facts: model.answer_probability(facts[0]),
    "record": lambda model, facts: model.record(first_batch(model, facts)),
    "logits": lambda model, facts: model.logits(
        first_batch(model, facts).positions, **first_batch(model, facts).inputs()
    ).detach(),
    "suppress": effect_of(suppress),
    "amplify": effect_of(amplify, 3.0),
    "set_activation": effect_of(set_activation, 0.5),
    "score inside suppress": scored_while_suppressed,
    "refine": refined,
    "load_model": loaded,
    "perplexity": lambda model, _: torch.tensor(
        [perplexity(model, ["the capital of France is Paris"])], dtype=torch.float64, device="cpu"
    ),
    "parameter_randomisation": lambda model, facts: torch.tensor(
        parameter_randomisation(model, facts[:1], "activation").to_numpy(float), dtype=torch.float64, device="cpu"
    ),
    "compare": compared,
}


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny(request.param, "float32")


@pytest.fixture(scope="module")
def expected(model: NeuronModel, module_facts: FactSet) -> dict[str, Tensor]:
    return {name: call(model, module_facts) for name, call in CALLS.items()}


@pytest.mark.parametrize("caller", CALLERS)
def test_results_are_those_of_a_plain_call(
    model: NeuronModel, module_facts: FactSet, expected: dict[str, Tensor], caller: str
) -> None:
    with CALLERS[caller](model):
        before = state()
        found = {}
        for name, call in CALLS.items():
            found[name] = call(model, module_facts)
            assert state() == before, name
    for name, values in found.items():
        if caller in HOOKED:
            assert torch.allclose(values.double(), expected[name].double(), rtol=1e-4, atol=1e-6), name
        else:
            assert torch.equal(values, expected[name]), name


@pytest.mark.parametrize("caller", CALLERS)
def test_what_the_caller_has_set_is_kept_after_an_error(model: NeuronModel, facts: FactSet, caller: str) -> None:
    with CALLERS[caller](model):
        before, training = state(), model.model.training
        with pytest.raises(KnAttribError):
            score(model, facts[0], Broken())
        assert state() == before
        assert model.model.training == training


@dataclass(frozen=True)
class Broken(Scorer):
    """A method that returns nonsense."""

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return model.record(batch)[..., :1]


SEEN: list[dict[str, object]] = []


@dataclass(frozen=True)
class Looking(Scorer):
    """A method that notes what PyTorch is set to while it runs."""

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        SEEN.append(as_at_the_start())
        return model.record(batch)


@pytest.mark.parametrize("caller", [c for c in CALLERS if c not in ("deterministic", "train mode")])
def test_methods_and_passes_run_at_the_defaults(model: NeuronModel, facts: FactSet, caller: str) -> None:
    normal = as_at_the_start()
    passes: list[dict[str, object]] = []
    head: Any = model.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda *_: passes.append(as_at_the_start()))
    with CALLERS[caller](model):
        score(model, facts[0], Looking())
        model.answer_probability(facts[0])
    handle.remove()
    assert SEEN.pop() == normal
    assert {**passes[-1], "gradients": True} == normal


def test_the_precision_that_a_model_is_loaded_with_holds_in_all_its_scoring(
    make_tiny_bert: Callable[[], Any], facts: FactSet
) -> None:
    model = load_model(make_tiny_bert(), precision="medium")
    passes: list[str] = []
    handle = model.model.register_forward_hook(lambda *_: passes.append(torch.get_float32_matmul_precision()))
    score(model, facts[0], "activation")
    assert set(passes) == {"medium"}
    model.answer_probability(facts[0])
    handle.remove()
    assert passes[-1] == "highest"


def test_gradients_of_a_pass_are_as_the_caller_says(model: NeuronModel, facts: FactSet) -> None:
    batch = first_batch(model, facts)
    embeddings = model.embed(batch).requires_grad_()
    inputs = batch.inputs() | {"inputs_embeds": embeddings}
    del inputs["input_ids"]
    assert model.logits(batch.positions, **inputs).requires_grad
    with torch.no_grad():
        assert not model.logits(batch.positions, **inputs).requires_grad
    with torch.inference_mode():
        assert not model.logits(batch.positions, **inputs).requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_weights_made_in_inference_mode_are_copied(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, kind: str
) -> None:
    plain = load_tiny(kind, "float32")
    with torch.inference_mode():
        inner = load_tiny(kind, "float32").model
        made: Any = type(inner)(inner.config).eval()
        made.load_state_dict(inner.state_dict())
        inside = load_model((made, plain.tokenizer))
    outside = load_model((made, plain.tokenizer))
    assert all(parameter.is_inference() for parameter in made.parameters())
    for model in (inside, outside):
        assert torch.equal(score(model, facts[0], METHODS[0]).values, score(plain, facts[0], METHODS[0]).values)


def test_nested_contexts_and_decorated_functions_undo_themselves() -> None:
    @torch_defaults()
    def inside() -> dict[str, object]:
        with torch_defaults(gradients=False), matmul_precision("medium"), torch_defaults():
            # A context inside keeps the precision that was set since.
            assert torch.get_float32_matmul_precision() == "medium"
        return state()

    normal = state()
    with torch.inference_mode(), default_dtype(torch.float64), torch.autocast("cpu", torch.bfloat16), precision("high"):
        before = state()
        assert inside() == normal
        assert state() == before
    assert state() == normal
