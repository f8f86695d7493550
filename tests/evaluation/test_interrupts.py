"""Interrupted in the middle of any public call, model and process are as they were: calls × stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from interrupting import interrupt, operations_of, state_of
from kn_attrib import FactSet, NeuronModel, NeuronScores, NeuronSet, list_methods, load_model, score, suppress
from kn_attrib.evaluation import compare, parameter_randomisation, perplexity, run_deletion, run_injection

STAGES = (0.1, 0.4, 0.7, 1.0)
"""Shares of a call's operations after which it is interrupted."""
COLD = (20, 400)
"""Operations after which it is interrupted when it runs for the first time, if it has so many."""
Call = Callable[[NeuronModel, FactSet], object]
SMALL: dict[str, Any] = {"known_share": 0, "progress": False}
CALLS: dict[str, Call] = {
    "record": lambda model, facts: [model.record(batch) for _, batch in model.batches(model.encode(facts).prompts)],
    "answer_probability": lambda model, facts: model.answer_probability(facts[0]),
    "perplexity": lambda model, facts: perplexity(model, ["the capital of France is Paris ."]),
    "compare": lambda model, facts: compare(
        model, facts, ["gradient_x_activation", "random"], budgets=[2], keep=["unknown"], progress=False
    ),
    "compare_other_units": lambda model, facts: compare(
        model, facts, ["activation@heads"], budgets=[2], keep=["unknown"], progress=False
    ),
    "run_injection": lambda model, facts: run_injection(
        model, facts, ["activation"], ratios=[0.1], information="unknown", known_share=1.01, steps=3, progress=False
    ),
    "run_deletion": lambda model, facts: run_deletion(model, facts, ["activation"], ratios=[0.05], **SMALL),
    "parameter_randomisation": lambda model, facts: parameter_randomisation(model, facts, "activation"),
    "suppress": lambda model, facts: _suppressed(model, facts),
}


def _suppressed(model: NeuronModel, facts: FactSet) -> object:
    with suppress(model, NeuronSet([(0, 1), (2, 3)])):
        return model.answer_probability(facts[0])


def check(model: NeuronModel, call: Callable[[], object]) -> None:
    """Interrupt a call at every stage, the first times before it has ever ended; nothing of it must be left."""
    before = state_of(model)
    for number in COLD:
        interrupt(call, number)
        assert state_of(model) == before
    call()  # what is found out about a model once is known now
    total = operations_of(call)
    assert total > 1
    for number in sorted({max(1, round(share * total)) for share in STAGES}):
        assert interrupt(call, number)
        assert state_of(model) == before


@pytest.mark.parametrize("name", [name for name in list_methods() if name != "random"])
def test_methods(name: str, load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    tiny = load_tiny("causal")

    def call() -> NeuronScores:
        return score(tiny, facts[0], name, max_prompts=2, contrast=facts[1:])

    check(tiny, call)
    untouched = load_model((tiny.model, tiny.tokenizer), dtype="float64")
    expected = score(untouched, facts[0], name, max_prompts=2, contrast=facts[1:])
    assert torch.equal(call().values, expected.values)


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, tiny: NeuronModel, facts: FactSet) -> None:
    tiny.model.train()  # which is not how a model is loaded, and must be found again
    check(tiny, lambda: CALLS[name](tiny, facts))


def test_loading(make_tiny_bert: Any) -> None:
    """A model that is given, not loaded, stays as its owner has it."""
    model, tokenizer = make_tiny_bert()
    model.train()
    wrapped = load_model((model, tokenizer))
    check(wrapped, lambda: load_model((model, tokenizer)))
