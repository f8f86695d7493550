"""Conformance: every listed type, as a tiny random model of transformers' own, does what kn_attrib says it does.

``python tests/test_architectures.py`` prints the table of docs/architectures.md, which a test compares with this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from kn_attrib import Fact, NeuronModel, amplify, load_model, set_activation, suppress
from kn_attrib.architectures import ARCHITECTURES, gating
from kn_attrib.description import describe
from kn_attrib.forward import PlainForward, Rows
from kn_attrib.guards import check_rows
from kn_attrib.heads import Heads
from kn_attrib.methods import GradientXActivation, IntegratedGradients, LayerIntegratedGradients
from kn_attrib.prompts import Batch, Prompt
from kn_attrib.stream import exit_early, follow
from kn_attrib.wave import WaveForward

DOCS = Path(__file__).parents[1] / "docs" / "architectures.md"
WORDS, HIDDEN, WIDTH, LAYERS = 60, 32, 48, 3

COMMON: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.2,
}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 2, "head_dim": 8}
GPT2 = {"vocab_size": WORDS, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_inner": WIDTH, "n_positions": 32,
        "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}  # fmt: skip
T5 = {"vocab_size": WORDS, "d_model": HIDDEN, "d_kv": 8, "d_ff": WIDTH, "num_layers": LAYERS, "num_heads": 4,
      "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}  # fmt: skip
BERT_FFN = ("act", "output.dense", "intermediate.dense")
GATED = ("gated", "down_proj", "gate_proj", "up_proj")
FUSED = ("fused", "down_proj", "gate_up_proj")
VISION = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14, "vision_use_head": False}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One type: how to make it small, and how its neuron vectors come about.

    Parameters
    ----------
    ffn : ``(kind, end of the output linear's path, ends of the paths of the linears before the activation)``.
    act : name of the activation function.
    """

    name: str
    model: str
    ffn: tuple[str, ...]
    act: str
    settings: dict[str, Any] = field(default_factory=lambda: COMMON)
    model_type: str = ""

    @property
    def type(self) -> str:
        return self.model_type or self.name

    def build(self, **changes: Any) -> Any:
        torch.manual_seed(0)
        cls: Any = getattr(transformers, self.model)
        return cls(cls.config_class(**(self.settings | changes))).eval()


def fc(end: str, start: str) -> tuple[str, ...]:
    return ("act", end, start)


CASES = {
    case.name: case
    for case in (
        Case("bert", "BertForMaskedLM", BERT_FFN, "gelu"),
        Case("roberta", "RobertaForMaskedLM", BERT_FFN, "gelu"),
        Case("xlm-roberta", "XLMRobertaForMaskedLM", BERT_FFN, "gelu"),
        Case("camembert", "CamembertForMaskedLM", BERT_FFN, "gelu"),
        Case("distilbert", "DistilBertForMaskedLM", fc("lin2", "lin1"), "gelu",
             {"vocab_size": WORDS, "dim": HIDDEN, "hidden_dim": WIDTH, "n_layers": LAYERS, "n_heads": 4,
              "max_position_embeddings": 32, "initializer_range": 0.2}),
        Case("albert", "AlbertForMaskedLM", fc("ffn_output", "ffn"), "gelu_new",
             COMMON | {"embedding_size": 16, "num_hidden_groups": 2, "num_hidden_layers": 4}),
        Case("electra", "ElectraForMaskedLM", BERT_FFN, "gelu", COMMON | {"embedding_size": 16}),
        Case("deberta", "DebertaForMaskedLM", BERT_FFN, "gelu",
             COMMON | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
        Case("deberta-v2", "DebertaV2ForMaskedLM", BERT_FFN, "gelu",
             COMMON | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
        Case("mpnet", "MPNetForMaskedLM", BERT_FFN, "gelu"),
        Case("modernbert", "ModernBertForMaskedLM", ("fused", "Wo", "Wi"), "gelu",
             COMMON | {"global_attn_every_n_layers": 2, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2}),
        Case("gpt2", "GPT2LMHeadModel", fc("c_proj", "c_fc"), "gelu_new", GPT2),
        Case("gpt_neo", "GPTNeoForCausalLM", fc("c_proj", "c_fc"), "gelu_new",
             COMMON | {"num_layers": 4, "num_hidden_layers": 4, "num_heads": 4,
                       "attention_types": [[["global", "local"], 2]]}),
        Case("gpt_neox", "GPTNeoXForCausalLM", fc("dense_4h_to_h", "dense_h_to_4h"), "gelu"),
        Case("gptj", "GPTJForCausalLM", fc("fc_out", "fc_in"), "gelu_new", GPT2 | {"rotary_dim": 4}),
        Case("opt", "OPTForCausalLM", fc("fc2", "fc1"), "relu",
             COMMON | {"ffn_dim": WIDTH, "word_embed_proj_dim": HIDDEN}),
        Case("bloom", "BloomForCausalLM", fc("dense_4h_to_h", "dense_h_to_4h"), "gelu_new",
             COMMON | {"n_layer": LAYERS, "n_head": 4}),
        Case("codegen", "CodeGenForCausalLM", fc("fc_out", "fc_in"), "gelu_new", GPT2 | {"rotary_dim": 4}),
        Case("falcon", "FalconForCausalLM", fc("dense_4h_to_h", "dense_h_to_4h"), "gelu",
             COMMON | {"ffn_hidden_size": WIDTH}),
        Case("mpt", "MptForCausalLM", fc("down_proj", "up_proj"), "gelu",
             {"vocab_size": WORDS, "d_model": HIDDEN, "n_layers": LAYERS, "n_heads": 4, "expansion_ratio": 2,
              "max_seq_len": 32, "initializer_range": 0.2}),
        Case("xglm", "XGLMForCausalLM", fc("fc2", "fc1"), "gelu",
             {"vocab_size": WORDS, "d_model": HIDDEN, "ffn_dim": WIDTH, "num_layers": LAYERS, "attention_heads": 4,
              "max_position_embeddings": 32, "init_std": 0.2}),
        Case("llama", "LlamaForCausalLM", GATED, "silu", GROUPED),
        Case("mistral", "MistralForCausalLM", GATED, "silu", GROUPED),
        Case("qwen2", "Qwen2ForCausalLM", GATED, "silu", GROUPED),
        Case("qwen3", "Qwen3ForCausalLM", GATED, "silu", GROUPED),
        Case("gemma", "GemmaForCausalLM", GATED, "gelu_pytorch_tanh", GROUPED),
        Case("gemma2", "Gemma2ForCausalLM", GATED, "gelu_pytorch_tanh",
             GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 4, "final_logit_softcapping": 5.0}),
        Case("gemma3_text", "Gemma3ForCausalLM", GATED, "gelu_pytorch_tanh",
             GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 4}),
        Case("gemma3", "Gemma3ForConditionalGeneration", GATED, "gelu_pytorch_tanh",
             {"text_config": GROUPED | {"query_pre_attn_scalar": 8}, "vision_config": VISION,
              "mm_tokens_per_image": 4, "image_token_index": 59, "boi_token_index": 57, "eoi_token_index": 58}),
        Case("phi", "PhiForCausalLM", fc("fc2", "fc1"), "gelu_new"),
        Case("phi3", "Phi3ForCausalLM", FUSED, "silu", GROUPED),
        Case("olmo", "OlmoForCausalLM", GATED, "silu", GROUPED),
        Case("olmo2", "Olmo2ForCausalLM", GATED, "silu", GROUPED),
        Case("olmo3", "Olmo3ForCausalLM", GATED, "silu", GROUPED | {"sliding_window": 4}),
        Case("stablelm", "StableLmForCausalLM", GATED, "silu", GROUPED),
        Case("starcoder2", "Starcoder2ForCausalLM", fc("c_proj", "c_fc"), "gelu_pytorch_tanh", GROUPED),
        Case("cohere", "CohereForCausalLM", GATED, "silu", GROUPED),
        Case("granite", "GraniteForCausalLM", GATED, "silu", GROUPED | {"logits_scaling": 4.0}),
        Case("smollm3", "SmolLM3ForCausalLM", GATED, "silu", GROUPED),
        Case("glm4", "Glm4ForCausalLM", FUSED, "silu", GROUPED),
        Case("nemotron", "NemotronForCausalLM", fc("down_proj", "up_proj"), "relu2", GROUPED),
        Case("t5", "T5ForConditionalGeneration", fc("wo", "wi"), "relu", T5),
        Case("t5, gated", "T5ForConditionalGeneration", ("gated", "wo", "wi_0", "wi_1"), "gelu_new",
             T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "t5"),
        Case("mt5", "MT5ForConditionalGeneration", ("gated", "wo", "wi_0", "wi_1"), "gelu_new", T5),
        Case("bart", "BartForConditionalGeneration", fc("fc2", "fc1"), "gelu",
             {"vocab_size": WORDS, "d_model": HIDDEN, "encoder_ffn_dim": 40, "decoder_ffn_dim": WIDTH,
              "encoder_layers": 2, "decoder_layers": LAYERS, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
              "max_position_embeddings": 32, "decoder_start_token_id": 2, "init_std": 0.2}),
    )
}  # fmt: skip
SMOOTH: dict[str, Any] = {
    "opt": {"activation_function": "gelu"}, "t5": {"feed_forward_proj": "gelu"}, "nemotron": {"hidden_act": "gelu"},
    "gemma3": {"text_config": GROUPED | {"query_pre_attn_scalar": 8, "rms_norm_eps": 1.0}},
} | {name: {"rms_norm_eps": 1.0} for name in ("gemma2", "gemma3_text", "olmo2", "olmo3", "glm4")}  # fmt: skip
"""Integration converges fast where the function is smooth. The completeness check swaps ReLU for GELU, and gives the
norm after the feed-forward block a large ε: with a small one it makes α·a the same for nearly all α, a step at zero."""
NO_DOUBLE = ("xglm",)
"""Cannot run in float64 as transformers has it (it writes that type's minimum into a float32 scalar)."""
LOOSE = {"bloom": 1e-7}
"""BLOOM writes its GELU with a constant of eight digits."""


ON_PLAIN = {"albert": "its layers share one module", "xglm": "Attention mask should be of size"} | dict.fromkeys(
    ("t5", "t5, gated", "mt5", "bart"), "an encoder-decoder"
)
"""Types that the wave cannot run through, and why."""


@contextmanager
def double_precision() -> Iterator[None]:
    """While active, code that asks for single precision gets double: most families compute norms, rotations or
    softmaxes in single precision even in a float64 model, which hides whether an identity of mathematics holds."""
    single = torch.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(single)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {f"w{i}": i for i in range(WORDS)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")))


def open_case(case: Case, **changes: Any) -> NeuronModel:
    # The plain path, which needs nothing of a family but what is checked here; the wave has a test of its own below.
    return load_model((case.build(**changes).double(), tokenizer()), dtype="float64", engine="plain")


@cache
def loaded(name: str) -> NeuronModel:
    with double_precision() if name in NO_DOUBLE else nullcontext():
        return open_case(CASES[name])


FACT = Fact("f", "r", "s", "a", ("[Y]",))


def prompts_of(model: NeuronModel) -> list[Prompt]:
    """Prompts of two lengths, two of each."""
    generator = torch.Generator().manual_seed(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, WORDS - 5, (count,), generator=generator).tolist())

    found = []
    for length in (5, 7, 5, 7):
        position = length - 1 if model.kind != "masked" else 2
        source = ids(6) if model.kind == "encoder-decoder" else ()
        found.append(Prompt(FACT, "[Y]", ids(length), position, ids(1)[0], source=source))
    return found


def batch_of(model: NeuronModel) -> Batch:
    return next(iter(model.batches(prompts_of(model))))[1]


def sites_of(model: NeuronModel) -> list[str]:
    """Name of the output linear of each layer (a shared one again)."""
    names = {module: name for name, module in model.model.named_modules()}
    return [names[site] for site in model.sites]


def by_hand(
    model: NeuronModel, batch: Batch, layer: int, change: Callable[[Tensor], None], outputs: list[Tensor] | None = None
) -> Tensor:
    """Logits at the answer with ``change(vector [row, neuron])`` made in place at one layer's answer position, by a
    hook of our own on the bare model."""
    site, calls = model.sites[layer], []
    turn = model.sites[:layer].count(site)
    rows, tokens = batch.input_ids.shape

    def put(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        calls.append(1)
        if len(calls) != turn + 1:
            return None
        vectors = inputs[0].clone().reshape(rows, tokens, -1)
        picked = vectors[torch.arange(rows), batch.positions]
        change(picked)
        vectors[torch.arange(rows), batch.positions] = picked
        return (vectors.reshape(inputs[0].shape),)

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        if outputs is not None and len(calls) == turn + 1:
            # Cloned: Falcon adds the attention's output in place.
            outputs.append(output.clone().reshape(rows, tokens, -1)[torch.arange(rows), batch.positions])

    handles = [site.register_forward_pre_hook(put), site.register_forward_hook(keep)]
    try:
        with torch.no_grad():
            logits: Tensor = bare(model, batch)[torch.arange(rows), batch.positions]
    finally:
        for handle in handles:
            handle.remove()
    return logits


def bare(model: NeuronModel, batch: Batch) -> Tensor:
    """Logits of the Hugging Face model itself."""
    if model.kind == "encoder-decoder":
        source = torch.tensor([p.source for p in batch.prompts])
        result: Tensor = model.model(input_ids=source, decoder_input_ids=batch.input_ids).logits
    else:
        result = model.model(input_ids=batch.input_ids).logits
    return result


def gold(logits: Tensor, batch: Batch) -> Tensor:
    return logits.log_softmax(-1).gather(1, batch.answers[:, None])[:, 0]


# -- the checks: each returns its largest error -----------------------------------------------------------------------


def recorded_error(name: str) -> float:
    """Recorded activations against act(fc(x)), or act(gate(x)) · up(x), worked out from the linears before them."""
    case, model = CASES[name], loaded(name)
    kind, end, *starts = case.ffn
    batch = batch_of(model)
    made: dict[str, list[Tensor]] = {start: [] for start in starts}
    named = dict(model.model.named_modules())
    with ExitStack() as stack:
        for site in dict.fromkeys(sites_of(model)):
            for start in starts:
                keep = made[start].append
                module = named[site.removesuffix(end) + start]
                stack.callback(module.register_forward_hook(lambda _, __, out, keep=keep: keep(out)).remove)
        with torch.no_grad():
            bare(model, batch)
    parts = [[out.reshape(*batch.input_ids.shape, -1) for out in made[start]] for start in starts]
    if kind == "fused":
        parts = [[out.chunk(2, -1)[half] for out in parts[0]] for half in (0, 1)]
    act = ACT2FN[case.act]
    vectors = [act(out) for out in parts[0]]
    if len(parts) == 2:
        vectors = [a * up for a, up in zip(vectors, parts[1], strict=True)]
    expected = torch.stack([v[torch.arange(len(batch)), batch.positions] for v in vectors], 1)
    return float((model.record(batch) - expected).abs().max())


def intervention_error(name: str) -> float:
    """Suppress, amplify and set one neuron of each layer at the answer position, against hooks by hand."""
    model = loaded(name)
    batch = batch_of(model)
    clean = model.answers(batch).logprob
    worst = 0.0
    for layer in range(model.n_layers):
        neuron = [(layer, 3)]
        for context, factor, value in (
            (suppress(model, neuron), 0.0, 0.0), (amplify(model, neuron, 2.5), 2.5, 0.0),
            (set_activation(model, neuron, 1.7), 0.0, 1.7),
        ):  # fmt: skip

            def change(vector: Tensor, factor: float = factor, value: float = value) -> None:
                vector[:, 3] = vector[:, 3] * factor + value

            with context:
                found = model.answers(batch).logprob
            worst = max(worst, float((found - gold(by_hand(model, batch, layer, change), batch)).abs().max()))
        assert not torch.equal(found, clean)
    return worst


def completeness_error(name: str) -> float:
    """Largest relative gap of integrated gradients, Gauss-Legendre with 32 nodes."""
    model = open_case(CASES[name], **SMOOTH[name]) if name in SMOOTH else loaded(name)
    found = IntegratedGradients(steps=32, max_rows=4096).score(model, batch_of(model))
    assert found.gap is not None
    assert found.difference is not None
    assert (found.difference != 0).all()
    return float((found.gap / found.difference).abs().max())


def value_vector_error(name: str) -> float:
    """Zeroing neuron i removes exactly a_i · v_i from what the feed-forward block writes."""
    model = loaded(name)
    batch, worst = batch_of(model), 0.0
    activations = model.record(batch)
    for layer in range(model.n_layers):
        for neuron in (0, WIDTH // 2):
            outputs: list[Tensor] = []

            def zero(vector: Tensor, neuron: int = neuron) -> None:
                vector[:, neuron] = 0

            by_hand(model, batch, layer, lambda _: None, outputs)
            by_hand(model, batch, layer, zero, outputs)
            removed = activations[:, layer, neuron, None] * model.value_vectors(layer)[neuron]
            worst = max(worst, float((outputs[0] - outputs[1] - removed).abs().max()))
    return worst


def batch_error(name: str) -> float:
    """Prompts of several lengths in batches against each prompt alone: answers, activations and scores."""
    model = loaded(name)
    prompts, worst = prompts_of(model), 0.0
    scorer = GradientXActivation()
    for indices, batch in model.batches(prompts):
        together = (model.answers(batch).logprob, model.record(batch), scorer.score(model, batch))
        for row, index in enumerate(indices):
            one = Batch((prompts[index],))
            alone = (model.answers(one).logprob, model.record(one), scorer.score(model, one))
            worst = max(worst, *(float((t[row] - a[0]).abs().max()) for t, a in zip(together, alone, strict=True)))
    return worst


CHECKS: dict[str, tuple[Callable[[str], float], float]] = {
    "recorded": (recorded_error, 1e-10),
    "interventions": (intervention_error, 1e-10),
    "completeness": (completeness_error, 1e-6),
    "value vectors": (value_vector_error, 1e-10),
    "batches": (batch_error, 1e-9),
}


def measured(name: str, check: str) -> float:
    with double_precision() if name in NO_DOUBLE or check == "completeness" else nullcontext():
        return CHECKS[check][0](name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS)
def test_conformance(name: str, check: str) -> None:
    tolerance = LOOSE.get(name, 0) if check == "recorded" else 0
    assert measured(name, check) <= max(CHECKS[check][1], tolerance)


@pytest.mark.parametrize("name", CASES)
def test_wave_equals_plain_or_says_why_not(name: str) -> None:
    model = loaded(name)
    batch = batch_of(model)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        reason = check_rows(model, batch)
        assert bool(reason) == (name in ON_PLAIN)
        assert ON_PLAIN.get(name, "") in reason
        if reason:
            return
        activations = model.record(batch)
        for objective in ("prob", "logprob"):
            plain, wave = (forward(model, batch, objective) for forward in (PlainForward, WaveForward))
            rows = Rows.of(activations * torch.linspace(0.2, 1.3, model.n_neurons, dtype=activations.dtype))
            slow = plain(rows.activations, rows.layers, rows.prompts)
            assert torch.allclose(wave(rows.activations, rows.layers, rows.prompts), slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_attention_heads_are_found_and_can_be_suppressed(name: str) -> None:
    model = loaded(name)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        view = Heads().views(model, prompts_of(model))["r"]
        batch = batch_of(model)
        assert (view.n_layers, view.n_neurons) == (model.n_layers, 4)
        width = view.site.n_neurons // 4
        for layer in range(view.n_layers):

            def zero(vector: Tensor) -> None:
                vector[:, width : 2 * width] = 0

            with suppress(view, [(layer, 1)]):
                found = view.answers(batch).logprob
            assert torch.allclose(found, gold(by_hand(view, batch, layer, zero), batch), rtol=0, atol=1e-10)
            assert not torch.equal(found, model.answers(batch).logprob)


@pytest.mark.parametrize("name", CASES)
def test_embeddings_put_in_by_hand_give_the_same_answer(name: str) -> None:
    model = loaded(name)
    batch = batch_of(model)
    source = {"source_ids": batch.sources} if batch.sources is not None else {}
    with double_precision() if name in NO_DOUBLE else nullcontext():
        found = model.logits(batch.positions, inputs_embeds=model.embed(batch), **source)
        assert torch.allclose(found, model.logits(batch.positions, **batch.inputs()), atol=1e-10)
        assert LayerIntegratedGradients(steps=2).score(model, batch).values.isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_the_residual_stream_can_be_followed_and_left(name: str) -> None:
    """Norms are understood, each write reaches the answer, and leaving behind the last block answers as ever."""
    model = loaded(name)
    batch = batch_of(model)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        stream = follow(model, batch)
        clean = model.logits(batch.positions, **batch.inputs())
        assert torch.allclose(stream.logits.detach(), clean, atol=1e-9)
        assert torch.allclose(exit_early(model, stream, stream.after[-1].detach()), clean, atol=1e-9)
        assert torch.allclose(torch.stack(stream.activations, 1).detach(), model.record(batch), atol=1e-12)
        assert all(effect.abs().amin(0).any() for effect in stream.effects(stream.logits[:, 3].sum()))
        assert all(read is not None for read in stream.reads)


def test_every_listed_type_has_a_case() -> None:
    assert {case.type for case in CASES.values()} == set(ARCHITECTURES)
    assert all(loaded(name).architecture.ffn_output == ARCHITECTURES[case.type].ffn_output
               for name, case in CASES.items())  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_description_says_how_vectors_are_made(name: str) -> None:
    case, model = CASES[name], loaded(name)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        told = describe(model)
    made = {"act": "act", "gated": "act × up", "fused": "act × up, fused"}[case.ffn[0]]
    assert told["neuron vector"].split(", tokens")[0].split(", a norm")[0] == made
    assert told["family"] == f"{case.type} ({case.model}), {model.kind}"
    assert told["validation"].startswith("passed")


# -- the table of the documentation -----------------------------------------------------------------------------------


def row_of(name: str) -> list[str]:
    model = loaded(name)
    site, path = model.sites[0], sites_of(model)[0]
    row, head = model.architecture, model.model.get_output_embeddings()
    assert head is not None
    stored = "Conv1D" if isinstance(site, Conv1D) else type(site).__name__
    notes = ["one module, a layer is a call"] * row.shared_module + ["tokens flattened"] * row.flattened
    notes += ["a norm follows"] * row.post_norm
    names = {module: n for n, module in model.model.named_modules()}
    return [
        name, type(model.model).__name__, model.kind, f"`{row.ffn_output}`",
        stored + (", bias" if getattr(site, "bias", None) is not None else ""),
        gating(model.model, path, model.n_neurons), f"`{names[head]}`", "; ".join(notes) or "–",
        "plain" if name in ON_PLAIN else "wave", *("✓" for _ in CHECKS),
    ]  # fmt: skip


def table() -> str:
    head = [
        "type",
        "class",
        "kind",
        "feed-forward output linear",
        "stored as",
        "neuron vector",
        "head",
        "remarks",
        "path",
        *CHECKS,
    ]
    lines = [head, ["---"] * len(head), *(row_of(name) for name in CASES)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def test_the_table_in_the_documentation_is_this_one() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), "run: python tests/test_architectures.py"


if __name__ == "__main__":
    for each in CASES if "--measure" in sys.argv else ():
        print(each, *(f"{check} {measured(each, check):.1e}" for check in CHECKS), sep="\t")
    if "--measure" not in sys.argv:
        print(table())
