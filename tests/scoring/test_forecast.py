"""A run that takes long is announced, with how long and what is cheaper."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from kn_attrib import NeuronModel, load_facts, load_model, score
from kn_attrib.methods import Ablation, Gradient, Restoration
from kn_attrib.scoring import forecast
from kn_attrib.scoring.forecast import LongRunWarning, duration, seconds_needed
from kn_attrib.scoring.registry import make_scorer


@pytest.fixture(scope="module")
def model() -> NeuronModel:
    return load_model("zoo:gpt2-facts")


def test_rows_are_those_that_a_method_runs() -> None:
    model = load_model("zoo:llama-facts")  # no neuron is at zero already
    fact = load_facts("world")["capital:France"]
    fact = replace(fact, prompts=("The capital of France is [Y]", "France's capital is [Y]"))
    prompts = model.encode(fact).prompts
    for scorer in (Ablation(), Ablation(screen=0.25)):
        before = model.execution.cost.forwards
        score(model, fact, scorer)
        rows = model.execution.cost.forwards - before
        # And a clean pass, a first-order estimate and guards.
        assert rows == pytest.approx(scorer.rows_per_prompt(model) * len(prompts), rel=0.1)
    assert Restoration().rows_per_prompt(model) == round(0.5 * model.n_layers * model.n_neurons)
    assert Gradient().rows_per_prompt(model) == 0


def test_what_is_forecast_is_what_it_takes(model: NeuronModel) -> None:
    facts = list(load_facts("world").spread(30))
    prompts = [prompt for fact in facts for prompt in model.encoder.encode_all([fact]).prompts]
    expected = seconds_needed(model, Ablation(), prompts)
    assert expected > 0
    start = time.perf_counter()
    forecast_of = prompts[:40]
    for _, batch in model.batches(forecast_of):
        Ablation().score(model, batch)
    took = (time.perf_counter() - start) * len(prompts) / len(forecast_of)
    assert expected / 5 < took < expected * 5  # timings are noisy


def test_little_is_not_timed(model: NeuronModel) -> None:
    prompts = model.encode(next(iter(load_facts("world").spread(1)))).prompts
    assert seconds_needed(model, Ablation(), prompts) == 0
    assert seconds_needed(model, make_scorer("gradient"), prompts * 1000) == 0


def test_a_long_run_says_so_before_it_starts(model: NeuronModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "WORTH_TIMING", 1)
    monkeypatch.setattr(forecast, "seconds_needed", lambda *_: 7200.0)
    monkeypatch.setattr(Ablation, "score", lambda *_: pytest.fail("it has started"))
    fact = replace(load_facts("world")["capital:France"], prompts=("The capital of France is [Y]",))
    message = re.escape("ablation is going to take about 2.0 hours: ")
    with pytest.raises(LongRunWarning, match=message + ".*" + re.escape("ablation(screen=0.05)")):
        score(model, fact, "ablation")


def test_durations_in_words() -> None:
    found = [duration(seconds) for seconds in (12, 600, 5000, 9000, 200_000)]
    assert found == ["12 seconds", "10 minutes", "83 minutes", "2.5 hours", "2.3 days"]
