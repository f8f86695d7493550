"""What the wave's guards catch, what they say of it, and that the plain path answers then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertForMaskedLM
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from kn_attrib import NeuronModel, load_model, score
from kn_attrib.facts.facts import FactSet
from kn_attrib.forward.guards import PlainPathWarning, check_clean, check_rows
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.wave import WaveForward
from kn_attrib.methods import IntegratedGradients
from kn_attrib.models.compute import Compute
from wave_rows import batches_of

Loader = Callable[..., NeuronModel]


def with_something_between_blocks(model: NeuronModel) -> NeuronModel:
    """A BERT that adds to the stream between its blocks, where a wave does not look."""
    encoder: Any = model.model.get_submodule("bert.encoder")

    def forward(
        hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        for block in encoder.layer:
            output = block(hidden_states, attention_mask)
            hidden_states = (output[0] if isinstance(output, tuple) else output) + 0.1 * hidden_states
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_states)

    encoder.forward = forward
    return model


def test_a_model_that_fails_a_guard_is_run_on_the_plain_path_with_one_warning(
    load_tiny: Loader, facts: FactSet
) -> None:
    model = with_something_between_blocks(load_tiny("masked"))
    with pytest.warns(PlainPathWarning, match="type 'bert'.*differ from the plain path by") as caught:
        found = score(model, facts, IntegratedGradients(steps=3))
    assert len(caught) == 1
    model.execution.settings = Compute(engine="plain")
    assert torch.equal(found.values, score(model, facts, IntegratedGradients(steps=3)).values)


def test_layers_that_share_a_module_are_run_on_the_plain_path(
    make_tiny_bert: Callable[[], tuple[Any, Any]], facts: FactSet
) -> None:
    _, tokenizer = make_tiny_bert()
    size = {"hidden_size": 16, "embedding_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    albert = AlbertForMaskedLM(AlbertConfig(vocab_size=len(tokenizer), intermediate_size=24, **size))  # type: ignore[arg-type]
    model = load_model((albert, tokenizer))
    with pytest.warns(PlainPathWarning, match=r"type 'albert'.*layers share one module") as caught:
        objective_function(model, batches_of(model, facts)[0])
    assert len(caught) == 1
    assert not objective_function(model, batches_of(model, facts)[1]).is_wave


def test_arguments_of_one_prompt_do_not_serve_for_another(load_tiny: Loader, facts: FactSet) -> None:
    """A block that is handed something of its prompt: the probe sees the first prompt's only."""
    model = load_tiny("causal")
    body: Any = model.model.get_submodule("transformer")
    inner = body.h[1].forward
    seen: list[Tensor] = []

    def remember(_: nn.Module, ids: tuple[Tensor, ...]) -> None:
        seen[:] = [ids[0]]

    def forward(states: Tensor, *args: Any, **kwargs: Any) -> Any:
        ids = seen[0][:, -1:, None].to(states)
        return inner(states + (ids if len(ids) == len(states) else ids[:1]), *args, **kwargs)

    body.wte.register_forward_pre_hook(remember)
    body.h[1].forward = forward
    # Hooks of someone else are a reason of their own for the plain path, and none for a warning.
    assert not objective_function(model, batches_of(model, facts)[0]).is_wave
    assert model.execution.verdict is None


def test_lengths_are_checked_one_by_one(load_tiny: Loader, facts: FactSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_tiny("causal")
    first, second = batches_of(model, facts)[:2]
    assert objective_function(model, first).is_wave
    monkeypatch.setattr("kn_attrib.forward.guards.check_clean", lambda _: "unmodified rows of layers [1] do not")
    assert objective_function(model, first).is_wave
    with pytest.warns(PlainPathWarning, match=r"unmodified rows of layers \[1\] do not"):
        assert not objective_function(model, second).is_wave
    assert not objective_function(model, first).is_wave


def test_an_error_without_a_message_is_a_reason_too(
    load_tiny: Loader, facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny("causal")
    _, batch = next(iter(model.batches(model.encode(facts).prompts)))
    wave = WaveForward(model, batch)

    def fail(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(WaveForward, "__call__", fail)
    monkeypatch.setattr(WaveForward, "final", fail)
    for reason in (check_rows(model, batch), check_clean(wave)):
        assert reason == "a wave cannot run through it (AssertionError: no message)"
