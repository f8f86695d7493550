"""What every registered method must keep to."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from interrupting import state_of
from kn_attrib import NeuronModel, get_method, list_methods, score
from kn_attrib.facts.facts import FactSet
from kn_attrib.scoring.score import checked, fit

METHODS = list_methods()


def test_the_seven_methods_are_here() -> None:
    assert {
        "ablation", "activation", "gradient_x_activation", "integrated_gradients", "layer_conductance",
        "layer_integrated_gradients", "random",
    } <= set(METHODS)  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
class TestContract:
    def test_scores_are_finite_and_of_the_right_shape(self, name: str, tiny: NeuronModel, facts: FactSet) -> None:
        scores = score(tiny, facts, name)
        assert scores.values.shape == (20, tiny.n_layers, tiny.n_neurons)
        assert scores.values.isfinite().all()
        assert not scores.values.requires_grad

    def test_scores_are_deterministic(self, name: str, tiny: NeuronModel, facts: FactSet) -> None:
        first, second = (score(tiny, facts[0], name, contrast=facts[1:]).values for _ in range(2))
        assert torch.equal(first, second)

    def test_a_batch_of_one_equals_its_row_of_a_batch(self, name: str, tiny: NeuronModel, facts: FactSet) -> None:
        together = score(tiny, facts, name)
        others = tuple(fact for fact in facts if fact.id != facts[2].id)
        alone = score(tiny, facts[2], name, max_prompts=1, contrast=others)
        assert torch.allclose(together.for_fact(facts[2].id).values, alone.values, atol=1e-9)

    def test_model_is_left_as_it_was(self, name: str, tiny: NeuronModel, facts: FactSet) -> None:
        tiny.model.train()
        before = state_of(tiny)
        score(tiny, facts[0], name, contrast=facts[1:])
        assert state_of(tiny) == before

    def test_model_is_left_as_it_was_after_an_exception(
        self, name: str, tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = state_of(tiny)

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("the head fails")

        head = tiny.model.get_output_embeddings()
        assert head is not None
        with monkeypatch.context() as patch, _raises_unless_static(name):
            patch.setattr(head, "forward", fail)
            _, batch = next(iter(tiny.batches(tiny.encode(facts[0]).prompts)))
            fitted = fit(get_method(name)(), tiny, batch.prompts, tiny.encode(facts[1:]).prompts)
            checked(fitted, tiny, batch)
        assert state_of(tiny) == before

    def test_repr_makes_the_scorer_again(self, name: str) -> None:
        cls = get_method(name)
        scorer = cls()
        assert eval(repr(scorer), {cls.__name__: cls}) == scorer

    def test_scorers_are_frozen_and_documented(self, name: str) -> None:
        cls = get_method(name)
        assert cls.summary()
        assert cls.reference, f"{cls.__name__} has no class attribute `reference` that names its paper"
        for parameter in cls.defaults():
            assert f"{parameter} :" in (cls.__doc__ or "")
            with pytest.raises(FrozenInstanceError):
                setattr(cls(), parameter, None)

    def test_presets_construct(self, name: str) -> None:
        cls = get_method(name)
        for preset, params in cls.presets.items():
            made = cls.preset(preset)
            assert {k: getattr(made, k) for k in params} == params


def _raises_unless_static(name: str) -> Any:
    from contextlib import nullcontext

    # random never runs the model, so a broken head cannot reach it.
    return nullcontext() if name == "random" else pytest.raises(RuntimeError, match="the head fails")
