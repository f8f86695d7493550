"""What the wave's guards say of a model whose code fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kn_attrib import NeuronModel
from kn_attrib.facts import FactSet
from kn_attrib.guards import check_clean, check_rows
from kn_attrib.wave import WaveForward


def test_an_error_without_a_message_is_a_reason_too(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny("causal")
    _, batch = next(iter(model.batches(model.encode(facts).prompts)))
    wave = WaveForward(model, batch)

    def fail(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(WaveForward, "__call__", fail)
    monkeypatch.setattr(WaveForward, "logits", fail)
    for reason in (check_rows(model, batch), check_clean(wave)):
        assert reason == "a wave cannot run through it (AssertionError: no message)"
