"""The types of `tests/models/test_architectures.py`, made small, and what there is to know of each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from kn_attrib import Fact, NeuronModel, load_model
from kn_attrib.facts.prompts import Batch, Prompt

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
    return [names[site] for site in model.ffn_outputs]


def by_hand(
    model: NeuronModel, batch: Batch, layer: int, change: Callable[[Tensor], None], outputs: list[Tensor] | None = None
) -> Tensor:
    """Logits at the answer with ``change(vector [row, neuron])`` made in place at one layer's answer position, by a
    hook of our own on the bare model."""
    site, calls = model.ffn_outputs[layer], []
    turn = model.ffn_outputs[:layer].count(site)
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
