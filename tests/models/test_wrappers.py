"""Models that another library has wrapped, adapted, compiled or spread over devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kn_attrib import FactSet, NeuronModel, load_model, score, suppress
from kn_attrib.errors import ModelError
from kn_attrib.models.wrappers import UnwrappedModelWarning

FFN = r"adapters inside its feed-forward blocks: layer 1 'model.layers.1.mlp.{}' \(.*Linear\)\. .*merge_and_unload\(\)"


@pytest.fixture
def words(tokenizers: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return tokenizers["causal"]


@pytest.fixture
def make_llama(words: PreTrainedTokenizerFast) -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=32, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture
def llama(make_llama: Callable[[], Any]) -> Any:
    return make_llama()


# -- adapters ---------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """A linear with a low-rank adapter in front of it, built as PEFT's is."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.Linear(base_layer.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base_layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base_layer(x) + self.lora_B(self.lora_A(x))
        return out


class PeftModel(nn.Module):
    """What PEFT wraps an adapted model in, as far as it is asked."""

    def __init__(self, model: Any, adapted: str = "", prompts: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.base_model = model
        self.peft_config = {"default": SimpleNamespace(is_prompt_learning=prompts)}
        if adapted:
            parent, _, name = adapted.rpartition(".")
            setattr(model.get_submodule(parent), name, Linear(model.get_submodule(adapted)))

    def get_base_model(self) -> Any:
        return self.base_model

    def forward(self, **inputs: Any) -> Any:
        return self.base_model(**inputs)


@pytest.mark.parametrize("module", ["down_proj", "up_proj"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_adapters_in_the_feed_forward_block_are_named(
    llama: Any, words: PreTrainedTokenizerFast, module: str, wrapped: bool
) -> None:
    adapted = PeftModel(llama, f"model.layers.1.mlp.{module}")
    with pytest.raises(ModelError, match=FFN.format(module)):
        load_model((adapted if wrapped else llama, words))  # type: ignore[arg-type]


def test_adapters_elsewhere_are_part_of_the_model(
    llama: Any, make_llama: Callable[[], Any], words: PreTrainedTokenizerFast, facts: FactSet
) -> None:
    adapted = PeftModel(llama, "model.layers.0.self_attn.q_proj")
    with pytest.warns(UnwrappedModelWarning, match=r"LlamaForCausalLM inside the PeftModel is used: adapters outside"):
        model = load_model((adapted, words))  # type: ignore[arg-type]
    merged = make_llama()
    adapter = llama.model.layers[0].self_attn.q_proj
    merged.model.layers[0].self_attn.q_proj.weight.data += (adapter.lora_B.weight @ adapter.lora_A.weight).detach()
    for method in ("integrated_gradients(steps=3)", "ablation"):
        found = score(model, facts[0], method).values
        assert torch.allclose(found, score(load_model((merged, words)), facts[0], method).values, atol=1e-6)
        plain = score(load_model((make_llama(), words)), facts[0], method).values
        assert not torch.allclose(found, plain, atol=1e-4)


def test_learned_prompts_would_be_lost(llama: Any, words: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match=r"PeftModel whose adapter 'default' learns prompts.*get_base_model\(\)"):
        load_model((PeftModel(llama, prompts=True), words))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # those of PEFT
def test_the_adapters_of_peft_itself(llama: Any, words: PreTrainedTokenizerFast) -> None:
    peft: Any = pytest.importorskip("peft")
    adapted = peft.get_peft_model(llama, peft.LoraConfig(target_modules=r".*layers\.1\.mlp\.down_proj", r=2))
    with pytest.raises(ModelError, match=FFN.format("down_proj")):
        load_model((adapted, words))
    assert load_model((adapted.merge_and_unload(), words)).n_layers == 2


@pytest.mark.parametrize("content", [json.dumps({"base_model_name_or_path": "org/base"}), "{"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_with_an_adapter_says_how_to_merge_it(
    saved_bert: Path, tmp_path: Path, content: str, whole: bool
) -> None:
    for file in saved_bert.iterdir() if whole else ():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"holds a PEFT adapter.* not a whole model.*merge_and_unload\(\)") as caught:
        load_model(tmp_path)
    assert ("of 'org/base'" in str(caught.value)) == (content != "{")


# -- compiled ---------------------------------------------------------------------------------------------------------


class OptimizedModule(nn.Module):
    """What ``torch.compile`` gives back, without the compiler."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


def assert_same_scores(model: NeuronModel, plain: NeuronModel, facts: FactSet) -> None:
    for method in ("integrated_gradients(steps=3)", "ablation"):
        assert torch.equal(score(model, facts[0], method).values, score(plain, facts[0], method).values)


def test_a_compiled_model_is_used_as_it_was(llama: Any, words: PreTrainedTokenizerFast, facts: FactSet) -> None:
    with pytest.warns(UnwrappedModelWarning, match=r"inside the OptimizedModule is used: it is not run compiled\."):
        model = load_model((OptimizedModule(llama), words))  # type: ignore[arg-type]
    assert model.model is llama
    assert_same_scores(model, load_model((llama, words)), facts)


def test_a_model_compiled_in_place_runs_as_written_here(
    llama: Any, make_llama: Callable[[], Any], words: PreTrainedTokenizerFast, facts: FactSet
) -> None:
    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("hooks do not reach compiled code")

    llama._compiled_call_impl = llama.model.layers[1]._compiled_call_impl = compiled
    with pytest.warns(UnwrappedModelWarning, match="compiled in place"):
        model = load_model((llama, words))
    assert_same_scores(model, load_model((make_llama(), words)), facts)
    assert llama._compiled_call_impl is llama.model.layers[1]._compiled_call_impl is compiled


def test_parts_that_are_compiled_are_refused(llama: Any, words: PreTrainedTokenizerFast) -> None:
    layer = llama.model.layers[1]
    llama.model.layers[1] = OptimizedModule(layer)
    with pytest.raises(ModelError, match=r"'model.layers.1' runs code of torch.compile"):
        load_model((llama, words))
    llama.model.layers[1] = layer
    llama.forward = torch._dynamo.disable(llama.forward)  # marks functions as torch.compile does
    with pytest.raises(ModelError, match=r"LlamaForCausalLM runs code of torch.compile"):
        load_model((llama, words))


def test_what_is_no_hugging_face_model_is_refused(llama: Any, words: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match=r"is a DataParallel; expected a transformers.PreTrainedModel.*model.module"):
        load_model((nn.DataParallel(llama), words))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"is a Linear; expected a transformers.PreTrainedModel such as"):
        load_model((nn.Linear(2, 2), words))  # type: ignore[arg-type]


# -- placed -----------------------------------------------------------------------------------------------------------


def test_weights_without_values_are_refused(make_llama: Callable[[], Any], words: PreTrainedTokenizerFast) -> None:
    with torch.device("meta"):
        model = make_llama()
    with pytest.raises(ModelError, match=r"'model.embed_tokens.weight' is a meta tensor.*on one device, without"):
        load_model((model, words))


def test_a_map_of_several_devices_is_refused(llama: Any, words: PreTrainedTokenizerFast) -> None:
    llama.hf_device_map = {"model.embed_tokens": 0, "model.layers": "cpu"}
    with pytest.raises(ModelError, match=r"spread over devices or offloaded \(0, cpu\).*without device_map"):
        load_model((llama, words))
    llama.hf_device_map = {"": "cpu"}
    assert load_model((llama, words)).n_layers == 2


def test_a_model_that_accelerate_offloads_is_refused(llama: Any, words: PreTrainedTokenizerFast) -> None:
    accelerate: Any = pytest.importorskip("accelerate")
    offloaded, _ = accelerate.cpu_offload_with_hook(llama, "cpu")
    with pytest.raises(ModelError, match=r"offloaded \(cpu, CpuOffload\)"):
        load_model((offloaded, words))


def test_accelerate_on_one_device_changes_nothing(
    llama: Any, make_llama: Callable[[], Any], words: PreTrainedTokenizerFast, facts: FactSet
) -> None:
    accelerate: Any = pytest.importorskip("accelerate")
    hooked = load_model((accelerate.dispatch_model(llama, {"": "cpu"}, force_hooks=True), words))
    plain = load_model((make_llama(), words))
    for method in ("integrated_gradients(steps=3)", "ablation"):
        assert torch.allclose(score(hooked, facts[0], method).values, score(plain, facts[0], method).values, atol=1e-6)
    with suppress(hooked, [(1, 3)]), suppress(plain, [(1, 3)]):
        assert torch.allclose(hooked.answer_probability(facts[0]), plain.answer_probability(facts[0]))
