"""The wave against the plain path: every architecture, mixed lengths, values, gradients and ablations."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from kn_attrib import NeuronModel, NeuronSet, load_model, score, suppress
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.all_tokens import record_all
from kn_attrib.forward.guards import wave_or_none, whole_wave_or_none
from kn_attrib.forward.plain import PlainForward
from kn_attrib.forward.row_objective import RowObjective
from kn_attrib.forward.wave import WaveForward
from kn_attrib.interventions.activations import scale_rows
from kn_attrib.interventions.many_rows import answers_of_rows
from kn_attrib.methods import Ablation, IntegratedGradients
from kn_attrib.models.anatomy import find_attention
from kn_attrib.models.answers import answer_of
from kn_attrib.models.architectures import ARCHITECTURES, Architecture
from kn_attrib.models.compute import Compute
from kn_attrib.models.neuron_model import all_neurons
from wave_rows import batches_of, distance, random_rows

LLAMA_LIKE = "model.layers.{i}.mlp.down_proj"
GPT_LIKE = "transformer.h.{i}.mlp."
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None}
GPT = {"n_embd": 32, "n_inner": 48, "n_layer": 3, "n_head": 4, "n_positions": 32}

# model type -> (path of the feed-forward output linear, config)
MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert.encoder.layer.{i}.output.dense", SMALL),
    "roberta": ("roberta.encoder.layer.{i}.output.dense", SMALL | {"max_position_embeddings": 40}),
    "distilbert": (
        "distilbert.transformer.layer.{i}.ffn.lin2",
        {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4},
    ),
    "electra": ("electra.encoder.layer.{i}.output.dense", SMALL | {"embedding_size": 16}),
    "mpnet": ("mpnet.encoder.layer.{i}.output.dense", SMALL),
    "deberta": ("deberta.encoder.layer.{i}.output.dense", SMALL),
    "deberta-v2": (
        "deberta.encoder.layer.{i}.output.dense",
        SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "modernbert": ("model.layers.{i}.mlp.Wo", SMALL | {"local_attention": 6, "global_attn_every_n_layers": 2}),
}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (GPT_LIKE + "c_proj", GPT),
    "gpt_neo": (
        GPT_LIKE + "c_proj",
        {"hidden_size": 32, "intermediate_size": 48, "num_layers": 4, "num_heads": 4, "window_size": 4,
         "attention_types": [[["global", "local"], 2]]},
    ),
    "gptj": (GPT_LIKE + "fc_out", GPT | {"rotary_dim": 4}),
    "codegen": (GPT_LIKE + "fc_out", GPT | {"rotary_dim": 4}),
    "gpt_neox": ("gpt_neox.layers.{i}.mlp.dense_4h_to_h", SMALL),
    "bloom": (GPT_LIKE + "dense_4h_to_h", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "falcon": (GPT_LIKE + "dense_4h_to_h", SMALL | {"ffn_hidden_size": 48, "alibi": False}),
    "mpt": ("transformer.blocks.{i}.ffn.down_proj", {"d_model": 32, "n_heads": 4, "n_layers": 3}),
    "opt": (
        "model.decoder.layers.{i}.fc2",
        {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "word_embed_proj_dim": 32},
    ),
    "llama": (LLAMA_LIKE, GROUPED),
    "mistral": (LLAMA_LIKE, GROUPED | {"sliding_window": 5}),
    "qwen2": (LLAMA_LIKE, GROUPED),
    "qwen3": (LLAMA_LIKE, GROUPED),
    "gemma": (LLAMA_LIKE, GROUPED),
    "gemma2": (LLAMA_LIKE, GROUPED | {"sliding_window": 5}),
    "gemma3_text": (LLAMA_LIKE, GROUPED | {"sliding_window": 5}),
    "phi": ("model.layers.{i}.mlp.fc2", SMALL),
    "phi3": (LLAMA_LIKE, SMALL | {"num_key_value_heads": 2, "pad_token_id": None}),
    "stablelm": (LLAMA_LIKE, GROUPED),
    "olmo2": (LLAMA_LIKE, GROUPED),
    "cohere": (LLAMA_LIKE, GROUPED),
}  # fmt: skip


def tiny_model(model_type: str, vocabulary: int, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A random model of a type, with weights large enough for its activations to matter."""
    masked = model_type in MASKED
    config = (MASKED if masked else CAUSAL)[model_type][1]
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0} | config
    torch.manual_seed(seed)
    factory: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model: PreTrainedModel = factory.from_config(
        AutoConfig.for_model(model_type, **({"vocab_size": vocabulary} | special | settings))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval()  # type: ignore[no-any-return]


TYPES = [*MASKED, *CAUSAL]
LIMITS = {"float64": 1e-9, "float32": 1e-4}

Loader = Callable[..., NeuronModel]


@pytest.fixture
def load_type(monkeypatch: pytest.MonkeyPatch, tokenizers: dict[str, PreTrainedTokenizerFast]) -> Loader:
    """Loads a tiny random model of a type, which the table learns for the test if it does not know it."""

    def load(model_type: str, dtype: str = "float64", attention: str = "sdpa", **settings: Any) -> NeuronModel:
        path, _ = (MASKED | CAUSAL)[model_type]
        if model_type not in ARCHITECTURES:
            monkeypatch.setitem(ARCHITECTURES, model_type, Architecture(model_type, path))
        tokenizer = tokenizers["masked" if model_type in MASKED else "causal"]
        model = tiny_model(model_type, len(tokenizer))
        if attention == "eager":
            model.set_attn_implementation("eager")
        return load_model((model, tokenizer), dtype=dtype, **settings)

    return load


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("model_type", TYPES)
def test_wave_equals_plain(model_type: str, dtype: str, load_type: Loader, facts: FactSet) -> None:
    model = load_type(model_type, dtype)
    for batch in batches_of(model, facts):
        rows, layers, prompts = random_rows(model, batch)
        wave, plain = (RowObjective(f(model, batch, "logprob"), 10**9) for f in (WaveForward, PlainForward))
        assert distance(wave.activations, plain.activations) < LIMITS[dtype]
        assert distance(wave.clean(), plain.clean()) < LIMITS[dtype]
        ours, theirs = (f.evaluate(rows, layers, prompts, gradient=True) for f in (wave, plain))
        assert distance(ours[0], theirs[0]) < LIMITS[dtype]
        assert ours[1] is not None
        assert theirs[1] is not None
        assert distance(ours[1], theirs[1]) < LIMITS[dtype]


@pytest.mark.parametrize("model_type", TYPES)
def test_activations_at_all_tokens_are_replaced_as_on_the_plain_path(
    model_type: str, load_type: Loader, facts: FactSet
) -> None:
    model = load_type(model_type)
    for batch in batches_of(model, facts):
        _, layers, prompts = random_rows(model, batch)
        clean = record_all(model, batch.positions, **batch.inputs())[prompts, layers]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=clean.dtype)
        rows = clean * 0.7 + 0.3 * noise * clean.abs().mean()
        wave = RowObjective(WaveForward(model, batch, "logprob", whole=True), 10**9)
        plain = RowObjective(PlainForward(model, batch, "logprob"), 10**9)
        for ours, theirs in zip(*(f.evaluate(rows, layers, prompts, True) for f in (wave, plain)), strict=True):
            assert ours is not None
            assert theirs is not None
            assert ours.shape == theirs.shape
            assert distance(ours, theirs) < 1e-9
        assert whole_wave_or_none(model, batch, "logprob") is not None


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "gpt2", "llama", "opt", "phi"])
def test_rows_do_not_run_through_the_attention_where_they_enter(
    model_type: str, load_type: Loader, facts: FactSet
) -> None:
    model = load_type(model_type)
    wave = WaveForward(model, batches_of(model, facts)[0], "logit")
    attentions = [attention for attention in wave.attentions if attention is not None]
    assert len(attentions) == model.n_layers
    rows, layers, prompts = random_rows(model, wave.batch)
    seen: list[int] = []
    first = next(module for module in attentions[-1].modules() if isinstance(module, nn.Linear | Conv1D))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    wave(rows, layers, prompts)
    assert seen == [int((layers < model.n_layers - 1).sum())]


def test_attention_is_found_by_name_or_not_at_all() -> None:
    def block(**parts: nn.Module) -> nn.Module:
        return nn.ModuleDict(parts)

    site, attention = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 2))
    assert find_attention(block(self_attn=attention, attn_norm=nn.LayerNorm(2), mlp=site), site) is attention
    assert find_attention(block(mixer=attention, mlp=site), site) is None
    assert find_attention(block(attn=attention, cross_attention=nn.Sequential(nn.ReLU()), mlp=site), site) is None
    assert find_attention(block(attention_and_ffn=nn.Sequential(attention, site)), site) is None


@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_passes_its_guards_and_scores_as_on_the_plain_path(
    model_type: str, load_type: Loader, facts: FactSet
) -> None:
    fast, plain = load_type(model_type), load_type(model_type, engine="plain")
    some = facts[:1]
    for scorer in (IntegratedGradients(steps=3), Ablation(objective="logprob", max_rows=50)):
        found, expected = score(fast, some, scorer).values, score(plain, some, scorer).values
        assert distance(found, expected) < 1e-9
    assert plain.execution.verdict is None
    verdict = fast.execution.verdict
    assert verdict is not None
    assert verdict.reason == ""


@pytest.mark.parametrize("model_type", TYPES)
def test_sets_of_neurons_are_scaled_as_on_the_plain_path(model_type: str, load_type: Loader, facts: FactSet) -> None:
    model = load_type(model_type, "float64")
    dice = random.Random(0)
    every = list(all_neurons(model))
    for batch in batches_of(model, facts):
        sets = [NeuronSet(dice.sample(every, size)) for size in (0, 1, 5, 20, 1, len(every))]
        sets.append(NeuronSet(neuron for neuron in every if neuron.layer == model.n_layers - 1))
        prompts = [row % len(batch) for row in range(len(sets))]
        factors = [dice.choice((0.0, 2.0, 1.0)) for _ in sets[1:]] + [0.0]
        assert wave_or_none(model, batch, "logit") is not None
        where = torch.tensor(prompts)
        with scale_rows(model, sets, factors):
            logits = model.logits(batch.positions[where], **batch.inputs(where))
        expected = answer_of(logits, batch.answers[where])
        found = torch.empty(len(sets), dtype=torch.float64)
        for rows, answers in answers_of_rows(model, batch, sets, prompts, factors, max_rows=3):
            found[rows] = answers.logprob
            assert answers.rank.tolist() == expected.rank[rows].tolist()
            assert answers.top.tolist() == expected.top[rows].tolist()
        assert distance(found, expected.logprob) < LIMITS["float64"]


@pytest.mark.parametrize("model_type", TYPES)
def test_slopes_at_the_clean_activations_are_those_of_unmodified_rows(
    model_type: str, load_type: Loader, facts: FactSet
) -> None:
    model = load_type(model_type)
    for batch in batches_of(model, facts):
        wave, plain = (RowObjective(f(model, batch, "logprob"), 10**9) for f in (WaveForward, PlainForward))
        assert distance(wave.clean_slopes(), plain.clean_slopes()) < LIMITS["float64"]


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "llama", "gemma2", "gpt_neox"])
def test_eager_attention_serves_as_well(model_type: str, load_type: Loader, facts: FactSet) -> None:
    model = load_type(model_type, attention="eager")
    for batch in batches_of(model, facts):
        rows = random_rows(model, batch)
        assert distance(WaveForward(model, batch)(*rows), PlainForward(model, batch)(*rows)) < 1e-9


@pytest.mark.parametrize("settings", [{"alibi": True}, {"new_decoder_architecture": True}])
def test_other_falcons(settings: dict[str, Any], load_type: Loader, facts: FactSet, monkeypatch: Any) -> None:
    monkeypatch.setitem(CAUSAL, "falcon", (CAUSAL["falcon"][0], CAUSAL["falcon"][1] | settings))
    model = load_type("falcon")
    for batch in batches_of(model, facts):
        rows = random_rows(model, batch)
        assert distance(WaveForward(model, batch)(*rows), PlainForward(model, batch)(*rows)) < 1e-9


def test_a_model_without_a_recognised_ffn_input_still_runs(
    tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kn_attrib.forward.wave.find_ffn_inputs", lambda *_: [])
    for batch in batches_of(tiny, facts):
        rows = random_rows(tiny, batch)
        assert distance(WaveForward(tiny, batch)(*rows), PlainForward(tiny, batch)(*rows)) < 1e-9


def test_a_prompt_of_one_token_has_no_prefix(load_tiny: Loader, facts: FactSet) -> None:
    model = load_tiny("causal")
    prompt = model.encode(facts).prompts[0]
    batch = Batch((replace(prompt, input_ids=prompt.input_ids[-1:], position=0),))
    rows = random_rows(model, batch)
    assert distance(WaveForward(model, batch)(*rows), PlainForward(model, batch)(*rows)) < 1e-9


# -- interventions and exceptions --------------------------------------------------------------------------------------


def test_under_an_intervention_scores_are_those_of_the_plain_path(tiny: NeuronModel, facts: FactSet) -> None:
    neurons = [(0, 3), (1, 7), (2, 40)]
    intact = score(tiny, facts[0], IntegratedGradients(steps=3)).values
    with suppress(tiny, neurons):
        found = score(tiny, facts[0], IntegratedGradients(steps=3)).values
        tiny.execution.settings = Compute(engine="plain")
        assert torch.equal(found, score(tiny, facts[0], IntegratedGradients(steps=3)).values)
    assert distance(found, intact) > 1e-3


def test_a_wave_leaves_no_trace_after_an_exception(
    tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batches_of(tiny, facts)[0]
    wave, rows = WaveForward(tiny, batch), random_rows(tiny, batch)
    wave(*rows)

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("site fails")

    monkeypatch.setitem(tiny.ffn_outputs[1].__dict__, "forward", fail)
    with pytest.raises(RuntimeError, match="site fails"):
        wave(*rows)
    monkeypatch.undo()
    assert not any("forward" in m.__dict__ for m in tiny.model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.model.modules())
    assert all(p.requires_grad for p in tiny.model.parameters())
