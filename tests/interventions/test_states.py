"""Restored states: rows of few passes against a loop of hooks written by hand, one whole pass for each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from architecture_cases import CASES
from kn_attrib import NeuronModel, load_model
from kn_attrib.errors import ModelError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.forward.guards import PlainPathWarning
from kn_attrib.interventions import restoration
from kn_attrib.interventions.corrupted_run import Restoration
from kn_attrib.interventions.corrupted_subject import only_subject_span, with_noisy_subject
from kn_attrib.interventions.restoration import restore
from kn_attrib.interventions.restoration_wave import RestorationWave
from kn_attrib.interventions.states import STATES, State, StatePoints

PATHS = {
    "gpt2": ("transformer.h.{}", "mlp", "attn"),
    "llama": ("model.layers.{}", "mlp", "self_attn"),
    "gemma": ("model.layers.{}", "mlp", "self_attn"),
    "gemma2": ("model.layers.{}", "mlp", "self_attn"),
    "gemma3_text": ("model.layers.{}", "mlp", "self_attn"),
    "opt": ("model.decoder.layers.{}", "fc2", "self_attn"),
    "gpt_neox": ("gpt_neox.layers.{}", "mlp", "attention"),
    "bert": ("bert.encoder.layer.{}", "output.dense", "attention.output.dense"),
}
"""Type -> its blocks, and in them what gives the feed-forward output and the attention output."""
SAMPLES = 3


@pytest.fixture(params=PATHS)
def type_(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(type_: str, tokenizers: dict[str, PreTrainedTokenizerFast]) -> NeuronModel:
    """A random model of three layers in float64."""
    tokenizer = tokenizers["masked" if type_ == "bert" else "causal"]
    built = CASES[type_].build(vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=0, eos_token_id=0)
    return load_model((built, tokenizer), dtype="float64")


def query(model: NeuronModel, facts: FactSet) -> Prompt:
    """``the capital city of France is [Y].``"""
    return model.encode(facts[0]).prompts[1]


def corrupted(model: NeuronModel, prompt: Prompt) -> Tensor:
    return with_noisy_subject(model, prompt, "gaussian", 1.0, SAMPLES, seed=0)


def every_restoration(n_layers: int, n_tokens: int) -> list[Restoration]:
    cells = list(product(range(n_tokens), range(n_layers)))
    cuts: tuple[State | None, ...] = (None, "ffn", "attention")
    outputs: tuple[State, ...] = ("ffn", "attention")
    hidden = [Restoration("hidden", token, layer, layer + 1, cut) for cut in cuts for token, layer in cells]
    windows = [(max(0, layer - 1), min(n_layers, layer + 1)) for layer in range(n_layers)]
    return hidden + [Restoration(state, token, *windows[layer]) for state in outputs for token, layer in cells]


def by_hand(model: NeuronModel, type_: str, prompt: Prompt, embeddings: Tensor, each: Restoration) -> Tensor:
    """One restoration by hooks on modules found by their names, in a batch whose first row is clean."""
    block, *inner = PATHS[type_]
    names = {"hidden": block, "ffn": f"{block}.{inner[0]}", "attention": f"{block}.{inner[1]}"}
    clean = model.embed(Batch((prompt,)))
    rows = torch.cat([clean, embeddings])
    frozen: dict[int, Tensor] = {}

    def listen(state: str, layer: int, change: Callable[[Tensor], None]) -> Any:
        def hook(_: nn.Module, __: object, output: Any) -> Any:
            states = (output[0] if isinstance(output, tuple) else output).clone()
            change(states.view(len(rows), -1, states.shape[-1]))
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return model.model.get_submodule(names[state].format(layer)).register_forward_hook(hook)

    def run() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model.model(inputs_embeds=rows, attention_mask=torch.ones(rows.shape[:2])).logits
        return logits[1:, prompt.position].softmax(-1)[:, prompt.answer_id]

    def keep(layer: int) -> Callable[[Tensor], None]:
        return lambda states: frozen.update({layer: states[:, each.token].clone()})

    def freeze(layer: int) -> Callable[[Tensor], None]:
        def change(states: Tensor) -> None:
            states[1:, each.token] = frozen[layer][1:]

        return change

    def put_back(states: Tensor) -> None:
        states[1:, each.token] = states[0, each.token]

    later = range(each.high, model.n_layers) if each.severed else []
    handles = [listen(str(each.severed), layer, keep(layer)) for layer in later]
    run()
    for handle in handles:
        handle.remove()
    handles = [listen(str(each.severed), layer, freeze(layer)) for layer in later]
    handles += [listen(each.state, layer, put_back) for layer in range(each.low, each.high)]
    try:
        return run()
    finally:
        for handle in handles:
            handle.remove()


def test_every_cell_is_what_hooks_give(opened: NeuronModel, type_: str, facts: FactSet) -> None:
    prompt = query(opened, facts)
    embeddings = corrupted(opened, prompt)
    cells = every_restoration(opened.n_layers, len(prompt.input_ids))
    found = restore(StatePoints(opened), prompt, embeddings, cells)
    assert opened.execution.restoration_verdict.reason == ""
    assert found.restored.shape == (len(cells), SAMPLES)
    expected = torch.stack([by_hand(opened, type_, prompt, embeddings, each) for each in cells])
    torch.testing.assert_close(found.restored, expected, rtol=0, atol=1e-9)
    # What is tested is not nothing: each kind of restoration moves p(answer) by far more than the tolerance.
    moved = (expected - found.corrupted).abs().amax(1)
    kinds = {(each.state, each.severed) for each in cells}
    for kind in kinds:
        assert max(float(m) for m, e in zip(moved, cells, strict=True) if (e.state, e.severed) == kind) > 1e-4


def test_the_plain_path_gives_the_same(opened: NeuronModel, facts: FactSet) -> None:
    prompt = query(opened, facts)
    embeddings = corrupted(opened, prompt)
    cells = every_restoration(opened.n_layers, len(prompt.input_ids))[::3]
    points = StatePoints(opened)
    fast = restore(points, prompt, embeddings, cells)
    few = restore(points, prompt, embeddings, cells, max_tokens=7)
    opened.execution = opened.execution.on_plain_path()
    plain = restore(points, prompt, embeddings, cells)
    for found in (fast, few):
        torch.testing.assert_close(found.restored, plain.restored, rtol=0, atol=1e-9)
    assert fast.clean == plain.clean
    assert not any(module._forward_hooks for module in opened.model.modules())


def test_restoring_the_last_hidden_state_of_the_answer_gives_the_clean_answer(
    opened: NeuronModel, facts: FactSet
) -> None:
    prompt = query(opened, facts)
    last = opened.n_layers - 1
    cells = [Restoration("hidden", prompt.position, last, last + 1)]
    found = restore(StatePoints(opened), prompt, corrupted(opened, prompt), cells)
    assert found.restored.tolist()[0] == pytest.approx([found.clean] * SAMPLES, abs=1e-12)
    answer = opened.answers(Batch((prompt,)))
    assert found.clean == pytest.approx(float(answer.logprob[0].exp()))
    assert found.rank == int(answer.rank[0])


def test_rows_are_cheaper_than_passes(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load_tiny("causal")
    prompt = query(model, facts)
    start, _ = only_subject_span(model, prompt)
    cells = every_restoration(model.n_layers, start)
    embeddings = corrupted(model, prompt)
    restore(StatePoints(model), prompt, embeddings, cells)
    before = model.execution.cost.forwards
    found = restore(StatePoints(model), prompt, embeddings, cells)
    # Nothing is run for tokens left of the subject, which are as they were.
    assert model.execution.cost.forwards - before == 1 + 1 + SAMPLES
    assert (found.restored == found.corrupted).all()


def test_a_wave_that_is_wrong_is_not_used(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny("causal")
    prompt = query(model, facts)
    embeddings = corrupted(model, prompt)
    cells = every_restoration(model.n_layers, len(prompt.input_ids))
    right = restore(StatePoints(model), prompt, embeddings, cells)

    class Wrong(RestorationWave):
        def restored(self, restorations: Any) -> Tensor:
            return super().restored(restorations) * (1 + 1e-6)

    monkeypatch.setattr(restoration, "RestorationWave", Wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(StatePoints(model), prompt, embeddings, cells)  # this length has been checked
    model.execution.restoration_verdict.lengths.clear()
    with pytest.warns(PlainPathWarning, match="restored hidden states differ from whole passes by"):
        found = restore(StatePoints(model), prompt, embeddings, cells)
    torch.testing.assert_close(found.restored, right.restored, rtol=0, atol=1e-12)


def test_models_without_such_states_are_refused(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    albert = load_model((CASES["albert"].build(vocab_size=len(tokenizers["masked"])), tokenizers["masked"]))
    with pytest.raises(ModelError, match="has no state for each layer that could be restored"):
        StatePoints(albert)
    t5 = load_model((CASES["t5"].build(vocab_size=len(tokenizers["causal"])), tokenizers["causal"]))
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        StatePoints(t5)


def test_attention_that_is_not_known_is_refused_only_where_it_is_asked_for(
    load_tiny: Callable[..., NeuronModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny("causal")
    hugging_face: Any = model.model
    for block in hugging_face.transformer.h:
        block.other = block.attn.c_proj
        del block.attn.c_proj
    with pytest.raises(ModelError, match="for the output of self-attention"):
        StatePoints(model)
    assert StatePoints(model, ("hidden", "ffn")).states == ("hidden", "ffn")
    assert STATES == ("hidden", "ffn", "attention")


def test_a_model_that_needs_token_ids_is_refused(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load_tiny("causal")
    prompt = query(model, facts)
    embeddings = corrupted(model, prompt)
    own = model.embed

    def other(batch: Batch) -> Tensor:
        return own(Batch(tuple(replace(p, input_ids=p.input_ids[::-1]) for p in batch.prompts)))

    model.embed = other  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="needs token ids"):
        restore(StatePoints(model), prompt, embeddings, [])
