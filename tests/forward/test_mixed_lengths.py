"""Waves over causal prompts of several lengths are the waves over each length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from architecture_cases import CASES, ON_PLAIN, loaded, prompts_of
from kn_attrib import Neuron, NeuronModel, NeuronSet, load_facts, load_model, suppress
from kn_attrib.errors import ModelError, PromptError
from kn_attrib.facts.prompts import Batch, MixedBatch, Prompt
from kn_attrib.forward.batching import batches_of
from kn_attrib.forward.fading import fading_scales
from kn_attrib.forward.guards import wave_or_none
from kn_attrib.forward.plain import PlainForward
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.wave import WaveForward
from kn_attrib.interventions.many_rows import answers_of_rows
from kn_attrib.methods import IntegratedGradients
from kn_attrib.scoring.score import score_prompts
from natural import natural_folder

ALONE = {"bloom": "ALiBi", "mpt": "ALiBi", "falcon": "ALiBi"}
"""Causal types whose prompts run length by length."""
CAUSAL = [name for name in CASES if name not in ON_PLAIN and loaded(name).kind == "causal"]


def mixed(model: NeuronModel) -> MixedBatch:
    prompts = prompts_of(model)
    long = replace(prompts[1], input_ids=prompts[1].input_ids[:4] * 4, position=15)
    return MixedBatch((*prompts, long))


def value_and_slope(
    forward: PlainForward | WaveForward, rows: Tensor, layers: Tensor, prompts: Tensor
) -> tuple[Tensor, Tensor]:
    leaf = rows.detach().requires_grad_()
    value = forward(leaf, layers, prompts)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope


@pytest.mark.parametrize("name", [name for name in CAUSAL if name not in ALONE])
def test_rows_of_all_lengths_are_as_on_the_plain_path(name: str) -> None:
    model = loaded(name)
    batch = mixed(model)
    wave = WaveForward(model, batch, "logprob")
    generator = torch.Generator().manual_seed(0)
    layers = torch.randint(model.n_layers, (40,), generator=generator)
    prompts = torch.randint(len(batch), (40,), generator=generator)
    rows = wave.activations[prompts, layers] * torch.rand(40, 1, generator=generator, dtype=torch.float64)
    value, slope = value_and_slope(wave, rows, layers, prompts)
    for indices, part in batch.parts:
        torch.testing.assert_close(wave.activations[indices], model.record(part))
        plain = PlainForward(model, part, "logprob")
        torch.testing.assert_close(wave.clean()[indices], plain.clean())
        own = torch.isin(prompts, torch.tensor(indices))
        at = torch.tensor([indices.index(int(prompt)) for prompt in prompts[own]])
        expected = value_and_slope(plain, rows[own], layers[own], at)
        torch.testing.assert_close(value[own], expected[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(slope[own], expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALONE)
def test_types_that_cannot_mix_lengths_run_length_by_length(name: str) -> None:
    model = load_model((CASES[name].build().double(), loaded(name).tokenizer), dtype="float64")
    prompts = mixed(model).prompts
    assert wave_or_none(model, MixedBatch(prompts), "prob") is None
    found = list(batches_of(model, prompts, 64, any_length=True))
    assert [len(indices) for indices, _ in found] == [2, 2, 1]
    assert all(batch.prompts == tuple(prompts[i] for i in indices) for indices, batch in found)
    with pytest.raises(ModelError, match="one length at a time"):
        objective_function(model, MixedBatch(prompts))


@pytest.fixture(scope="module")
def model() -> NeuronModel:
    return load_model("zoo:gpt2-facts", dtype="float64")


@pytest.fixture(scope="module")
def prompts(model: NeuronModel) -> tuple[Prompt, ...]:
    found = model.encode(list(load_facts("world").spread(8))).prompts
    assert len({len(prompt.input_ids) for prompt in found}) > 2
    return found


def test_scores_are_those_of_each_length(model: NeuronModel, prompts: Sequence[Prompt]) -> None:
    method = IntegratedGradients(tolerance=1e-4)
    for indices, batch in batches_of(model, prompts, 64, any_length=True):
        assert isinstance(batch, MixedBatch)
        found = method.score(model, batch).values
        for own, part in batch.parts:
            torch.testing.assert_close(found[own], method.score(model, part).values, rtol=1e-9, atol=1e-12)
        assert sorted(indices) == list(range(len(prompts)))


def test_clean_slopes_and_what_blocks_write_are_those_of_each_length(
    model: NeuronModel, prompts: Sequence[Prompt]
) -> None:
    whole = objective_function(model, MixedBatch(tuple(prompts)))
    forward = whole.forward
    assert isinstance(forward, WaveForward)
    for own, part in MixedBatch(tuple(prompts)).parts:
        alone = objective_function(model, part)
        assert isinstance(alone.forward, WaveForward)
        torch.testing.assert_close(whole.clean_slopes()[own], alone.clean_slopes())
        ours, theirs = (f.clean_pass.written_at(f.positions) for f in (forward, alone.forward))
        torch.testing.assert_close(ours[own], theirs)
    assert fading_scales(whole) is None  # GPT-2 has no norm behind its blocks


def test_only_what_does_not_ask_for_ids_gets_prompts_of_several_lengths(
    model: NeuronModel, prompts: Sequence[Prompt]
) -> None:
    plain = list(batches_of(model, prompts, 64, any_length=False))
    assert all(type(batch) is Batch for _, batch in plain)
    masked = load_model("zoo:bert-facts")
    texts = masked.encode(list(load_facts("world").spread(8))).prompts
    assert all(type(batch) is Batch for _, batch in batches_of(masked, texts, 64, any_length=True))
    with pytest.raises(PromptError, match="any_length"):
        _ = MixedBatch(tuple(prompts)).input_ids
    with pytest.raises(PromptError, match="no prompts"):
        MixedBatch(())


def test_a_wave_that_does_not_give_the_clean_answer_is_not_used(
    model: NeuronModel, prompts: Sequence[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = load_model("zoo:gpt2-facts", dtype="float64")
    monkeypatch.setattr("kn_attrib.forward.mixed_lengths.pad", lambda each, by: _shifted(each, by))
    assert wave_or_none(fresh, MixedBatch(tuple(prompts)), "prob") is None
    assert "clean answer" in fresh.execution.mixed_verdict.reason
    found = score_prompts(fresh, prompts, IntegratedGradients()).values
    monkeypatch.undo()
    torch.testing.assert_close(found, score_prompts(model, prompts, IntegratedGradients()).values)


def _shifted(each: Tensor, by: Sequence[int]) -> Tensor:
    """Padding on the wrong side."""
    return torch.nn.functional.pad(each, (by[0], by[1], by[3], by[2]))


def test_answers_of_rows_are_those_of_each_length(model: NeuronModel, prompts: Sequence[Prompt]) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = MixedBatch(tuple(prompts))
    owners = torch.randint(len(batch), (30,), generator=generator).tolist()
    places = torch.randint(model.n_neurons, (30, 4), generator=generator)
    sets = [NeuronSet(Neuron(i % model.n_layers, int(j)) for i, j in enumerate(own)) for own in places]
    found = dict[int, float]()
    for some, answer in answers_of_rows(model, batch, sets, owners, [0.0] * 30):
        found |= zip(some, answer.logprob.tolist(), strict=True)
    for row, (owner, own) in enumerate(zip(owners, sets, strict=True)):
        alone = Batch((prompts[owner],))
        with suppress(model, own):
            expected = float(model.answers(alone).logprob)
        assert found[row] == pytest.approx(expected, rel=1e-9)


def test_the_plain_path_refuses_prompts_of_several_lengths(prompts: Sequence[Prompt]) -> None:
    plain = load_model("zoo:gpt2-facts", engine="plain")
    batch = MixedBatch(tuple(prompts))
    with pytest.raises(ModelError, match="one length at a time"):
        list(answers_of_rows(plain, batch, [NeuronSet()], [0], [0.0]))


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_natural_models_give_the_same_scores(name: str) -> None:
    natural = load_model(natural_folder(name))
    first: dict[int, Prompt] = {}
    for prompt in natural.encode(load_facts("world")["capital:France"]).prompts:
        first.setdefault(len(prompt.input_ids), prompt)
    method = IntegratedGradients(steps=4)
    found = score_prompts(natural, list(first.values())[:2], method).values
    assert natural.execution.mixed_verdict.extents
    for row, prompt in enumerate(list(first.values())[:2]):
        alone = method.score(natural, Batch((prompt,))).values[0]
        torch.testing.assert_close(found[row], alone, rtol=1e-3, atol=1e-5 * float(alone.abs().max()))
