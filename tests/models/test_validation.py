"""What is checked when a model is loaded, what is refused, and the traps of single families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from kn_attrib import NeuronModel, load_model, suppress
from kn_attrib.errors import ModelError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.anatomy import gating
from kn_attrib.models.architectures import ARCHITECTURES
from kn_attrib.models.neuron_model import dtype_name
from kn_attrib.models.validation import validate

SMALL: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
           "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40}  # fmt: skip


@pytest.fixture
def words(tokenizers: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return tokenizers["masked"]


def make(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    cls: Any = getattr(transformers, name)
    return cls(cls.config_class(**(SMALL | settings))).eval().double()


@pytest.fixture
def load(words: PreTrainedTokenizerFast) -> Callable[..., NeuronModel]:
    """Makes a model of a class of transformers and loads it."""

    def load(name: str, ffn_pattern: str | None = None, **settings: Any) -> NeuronModel:
        return load_model((make(name, **settings), words), dtype="float64", ffn_pattern=ffn_pattern)

    return load


# -- validation -------------------------------------------------------------------------------------------------------


def test_validation_measures(tiny: NeuronModel) -> None:
    found = validate(tiny)
    assert found.output_error < 1e-12
    assert found.least_effect > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_validation_passes_in_every_precision(load_tiny: Callable[..., NeuronModel], kind: str, dtype: str) -> None:
    assert dtype_name(load_tiny(kind, dtype)) == dtype


def test_validation_leaves_the_model_as_it_was(tiny: NeuronModel) -> None:
    tiny.model.train()
    state = torch.random.get_rng_state()
    validate(tiny)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in tiny.model.modules())
    assert all(parameter.requires_grad for parameter in tiny.model.parameters())
    modules = [*tiny.model.modules(), *tiny.hook_points]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


class Adapted(nn.Linear):
    """A linear with something added, as adapters do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * x.mean()


def test_an_output_that_is_not_activations_times_value_vectors_is_refused(tiny: NeuronModel) -> None:
    if tiny.kind == "causal":
        pytest.skip("its output linear is a Conv1D")
    tiny.ffn_outputs[1].__class__ = Adapted
    with pytest.raises(ModelError, match=r"layer 1 .*differ from its output by .*an adapter, quantised weights\?"):
        validate(tiny)


def test_neurons_that_change_nothing_are_refused(tiny: NeuronModel, monkeypatch: pytest.MonkeyPatch) -> None:
    head = tiny.model.get_output_embeddings()
    assert head is not None
    monkeypatch.setattr(head, "forward", lambda x: torch.zeros(*x.shape[:2], 30, dtype=x.dtype))
    with pytest.raises(ModelError, match=r"layer 0 .*changing a neuron at the answer position does not change"):
        validate(tiny)


def test_weights_that_are_not_numbers_are_refused(tiny: NeuronModel) -> None:
    tiny.value_vectors(2)[:] = float("nan")
    with pytest.raises(ModelError, match="layer 2"):
        validate(tiny)


def test_a_failing_pass_is_one_clear_error(load: Callable[..., NeuronModel]) -> None:
    with pytest.raises(ModelError, match=r"XGLMForCausalLM cannot run a short text in float64: .*overflow"):
        load("XGLMForCausalLM", d_model=32, ffn_dim=48, num_layers=2, attention_heads=4)


# -- the traps of single families -------------------------------------------------------------------------------------


def first_batch(model: NeuronModel, facts: FactSet) -> Batch:
    return next(iter(model.batches(model.encode(facts).prompts)))[1]


def test_chunked_feed_forward_is_whole_inside_a_run_and_chunked_again_after(
    make_tiny_bert: Any, facts: FactSet
) -> None:
    bert, tokenizer = make_tiny_bert()
    whole = load_model((bert, tokenizer))
    batch = first_batch(whole, facts)
    expected = whole.record(batch)
    for layer in bert.bert.encoder.layer:
        layer.chunk_size_feed_forward = 3
    chunked = load_model((bert, tokenizer))
    assert torch.allclose(chunked.record(batch), expected, atol=1e-6)
    with suppress(chunked, [(1, 2)], positions="all"):
        assert bert.bert.encoder.layer[0].chunk_size_feed_forward == 0
    assert all(layer.chunk_size_feed_forward == 3 for layer in bert.bert.encoder.layer)


def test_a_layer_of_albert_is_a_call_of_the_shared_module(load: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load("AlbertForMaskedLM", num_hidden_layers=5, embedding_size=16)
    assert model.n_layers == 5
    assert len(set(model.ffn_outputs)) == 1
    batch = first_batch(model, facts)
    activations = model.record(batch)
    assert not torch.allclose(activations[:, 0], activations[:, 1])
    with suppress(model, [(3, 7)]):
        changed = model.record(batch)
    assert torch.equal(changed[:, :3], activations[:, :3])
    assert (changed[:, 3, 7] == 0).all()
    assert (changed[:, 4] != activations[:, 4]).any()
    with suppress(model, [(3, 7)], positions="all"):
        for _ in range(2):  # each pass counts its calls anew
            model.model(input_ids=batch.input_ids)
    with pytest.raises(ModelError, match="no modules"):
        load("AlbertForMaskedLM", ffn_pattern="albert.encoder.nothing.{i}")


def test_flattened_tokens_of_opt_are_given_back_their_shape(load: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load("OPTForCausalLM", ffn_dim=48, word_embed_proj_dim=32)
    assert model.architecture.flattened
    batch = first_batch(model, facts)
    seen: list[Tensor] = []

    def look(vectors: Tensor) -> Tensor:
        seen.append(vectors)
        return vectors

    with model.edited({1: look}):
        model.answers(batch)
    assert [each.shape for each in seen] == [(*batch.input_ids.shape, 48)]


def test_of_a_multimodal_model_only_the_text_backbone_is_read(load: Callable[..., NeuronModel]) -> None:
    vision = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14, "vision_use_head": False}  # fmt: skip
    model = load("Gemma3ForConditionalGeneration", text_config=SMALL, vision_config=vision, mm_tokens_per_image=4)
    names = {module: name for name, module in model.model.named_modules()}
    assert [names[site] for site in model.ffn_outputs] == [
        f"model.language_model.layers.{i}.mlp.down_proj" for i in (0, 1)
    ]


def test_value_vectors_are_rows_of_conv1d_and_columns_of_linear(load_tiny: Callable[..., NeuronModel]) -> None:
    gpt2, bert = load_tiny("causal"), load_tiny("masked")
    c_proj = gpt2.model.get_parameter("transformer.h.1.mlp.c_proj.weight")
    dense = bert.model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    assert torch.equal(gpt2.value_vectors(1)[5], c_proj[5])
    assert torch.equal(bert.value_vectors(1)[5], dense[:, 5])


@pytest.mark.parametrize(
    ("name", "settings", "after"),
    [
        ("Gemma2ForCausalLM", {"final_logit_softcapping": 5.0}, lambda x: 5 * torch.tanh(x / 5)),
        ("CohereForCausalLM", {"logit_scale": 0.25}, lambda x: x * 0.25),
        ("GraniteForCausalLM", {"logits_scaling": 4.0}, lambda x: x / 4),
    ],
)
def test_capped_and_scaled_logits_are_what_the_objective_reads(
    load: Callable[..., NeuronModel], facts: FactSet, name: str, settings: Any, after: Callable[[Tensor], Tensor]
) -> None:
    model = load(name, **settings)
    batch = first_batch(model, facts)
    hidden = model.model.model(input_ids=batch.input_ids).last_hidden_state
    expected = after(model.model.lm_head(hidden))[torch.arange(len(batch)), batch.positions]
    assert torch.allclose(model.logits(batch.positions, **batch.inputs()), expected, atol=1e-10)


def test_a_norm_after_the_block_stands_between_neurons_and_residual_stream(
    load: Callable[..., NeuronModel], facts: FactSet
) -> None:
    model = load("Olmo2ForCausalLM")
    assert model.architecture.post_norm
    batch = first_batch(model, facts)
    clean = model.answers(batch).logprob

    def scaled(factor: float) -> Tensor:
        with model.edited({1: lambda vectors: vectors * factor}):
            return model.answers(batch).logprob

    assert torch.allclose(scaled(0.5), clean, atol=1e-4)  # scaling the whole layer changes nothing …
    assert not torch.allclose(scaled(0.0), clean, atol=1e-2)  # … until it is gone


# -- types that the table does not list -------------------------------------------------------------------------------

FOUND = [
    ("NanoChatForCausalLM", {}, "act"),
    ("Exaone4ForCausalLM", {"sliding_window": 4, "sliding_window_pattern": 2}, "act × up"),
    ("EuroBertForMaskedLM", {}, "act × up"),
    ("ErnieForMaskedLM", {}, "act"),
    ("RoFormerForMaskedLM", {"embedding_size": 32}, "act"),
    ("MegatronBertForMaskedLM", {}, "act"),
    ("GPTBigCodeForCausalLM", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 32}, "act"),
    ("ModernBertDecoderForCausalLM", {"cls_token_id": 1, "sep_token_id": 2}, "act × up, fused"),
    ("MBartForConditionalGeneration",
     {"d_model": 32, "encoder_ffn_dim": 40, "decoder_ffn_dim": 48, "encoder_layers": 2, "decoder_layers": 2,
      "encoder_attention_heads": 4, "decoder_attention_heads": 4}, "act"),
    ("BertLMHeadModel", {"is_decoder": True}, "act"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "made"), FOUND)
def test_unlisted_dense_types_are_found_by_name(
    load: Callable[..., NeuronModel], name: str, settings: dict[str, Any], made: str
) -> None:
    model = load(name, **settings)
    listed = model.model.config.model_type in ARCHITECTURES
    assert model.architecture.origin == ("table" if listed else "found")
    assert (model.n_layers, model.n_neurons) == (2, 48)
    site = next(n for n, module in model.model.named_modules() if module is model.ffn_outputs[0])
    assert gating(model.model, site, 48) == made


def test_ffn_pattern_overrides_and_is_checked(load: Callable[..., NeuronModel]) -> None:
    model = load("LlamaForCausalLM", ffn_pattern="model.layers.{i}.mlp.down_proj")
    assert model.architecture.origin == "given"
    cases = {
        "model.layers.mlp.down_proj": r"expected \{i\} where the layer's index stands",
        "model.layers.{i}.mlp.down_porj": "has no modules 'model.layers.{i}.mlp.down_porj'",
        "model.layers.{i}.mlp": "feed-forward output is a LlamaMLP; expected torch.nn.Linear or Conv1D",
    }
    for pattern, message in cases.items():
        with pytest.raises(ModelError, match=message.replace(".{i}", r"\.\{i\}")):
            load("LlamaForCausalLM", ffn_pattern=pattern)


def test_neurons_of_an_encoder_are_not_those_of_the_stack_that_answers(load: Callable[..., NeuronModel]) -> None:
    with pytest.raises(ModelError, match=r"reads \[4, 5, 48\]; expected .* \[4, 4, 48\] of the stack that answers"):
        load("T5ForConditionalGeneration", ffn_pattern="encoder.block.{i}.layer.1.DenseReluDense.wo", d_model=32,
             d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)  # fmt: skip


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM",
                                  "OlmoeForCausalLM", "DeepseekV3ForCausalLM", "GptOssForCausalLM"])  # fmt: skip
def test_mixtures_of_experts_are_refused(load: Callable[..., NeuronModel], name: str) -> None:
    special = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
               "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4}  # fmt: skip
    settings = EXPERTS | (special if name.startswith("Deepseek") else {})
    with pytest.raises(
        ModelError, match=r"model type '\w+' \(\w+\) is a mixture of experts.*experts.*Supported: dense"
    ):
        load(name, **settings)


def test_the_dense_part_of_a_mixture_can_be_named(words: PreTrainedTokenizerFast, facts: FactSet) -> None:
    # In float32: the experts' product has no float64.
    pair = (make("Qwen2MoeForCausalLM", **EXPERTS).float(), words)
    model = load_model(pair, ffn_pattern="model.layers.{i}.mlp.shared_expert.down_proj")
    assert (model.n_neurons, model.architecture.flattened) == (40, True)
    batch = first_batch(model, facts)
    with suppress(model, [(1, 3)]):
        assert (model.record(batch)[:, 1, 3] == 0).all()


@pytest.mark.parametrize("name", ["MambaForCausalLM", "MobileBertForMaskedLM"])
def test_types_without_one_feed_forward_output_per_layer_are_refused(
    load: Callable[..., NeuronModel], name: str
) -> None:
    match = r"is not in the table, and looking .* by name gives (several candidates|no module).*ffn_pattern="
    with pytest.raises(ModelError, match=match):
        load(name, embedding_size=16, intra_bottleneck_size=32, true_hidden_size=32, state_size=4)


@pytest.mark.parametrize(
    "name", ["BertModel", "BertForSequenceClassification", "ViTForImageClassification", "ViTModel"]
)
def test_models_without_a_language_model_head_are_refused(
    load: Callable[..., NeuronModel], words: PreTrainedTokenizerFast, tmp_path: Path, name: str
) -> None:
    match = rf"{name}\)? has no masked, causal or encoder-decoder language-model head"
    settings = {"image_size": 28, "patch_size": 14} if name.startswith("ViT") else {}
    with pytest.raises(ModelError, match=match):
        load(name, **settings)
    make(name, **settings).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=match):
        load_model(str(tmp_path))
