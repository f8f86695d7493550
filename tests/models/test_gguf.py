"""Models in one GGUF file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kn_attrib import load_model
from kn_attrib.errors import ModelError

MERGES, MERGED = ["t h", "th e"], ["t", "h", "e", "th"]
"""Of a byte-pair tokenizer, which GGUF files hold, and what it needs besides the words."""
HEADS, PAIRS, WIDTH = 4, 2, 8
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}


def tiny_llama(tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HEADS * WIDTH, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=HEADS, num_key_value_heads=PAIRS, max_position_embeddings=64, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=False, rms_norm_eps=1e-5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def gguf_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries and keys in the order in which GGUF files of Llamas have them."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: Any, words: list[str]) -> None:
    gguf: Any = pytest.importorskip("gguf")
    c = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(PAIRS)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3] + [1] * (len(words) - 1))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in model.state_dict().items():
        heads = HEADS if "q_proj" in name else PAIRS if "k_proj" in name else 0
        values = interleaved(tensor, heads) if heads else tensor
        writer.add_tensor(gguf_name(name), values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[str]], None]:
    """Packages that cannot be found; all others of the extra can."""

    def pretend(absent: set[str]) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())

    return pretend


# Warnings of the packages that read the file.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_gguf_file_is_the_model_that_was_written(tmp_path: Path, tokenizers: dict[str, Any]) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    model, tokenizer = tiny_llama(tokenizers["causal"]), tokenizers["causal"]
    model.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)[: -len(MERGED)] + MERGED
    write_gguf(tmp_path / "tiny.gguf", model, words)
    folder, file = load_model(tmp_path / "folder"), load_model(tmp_path / "tiny.gguf")
    assert file.kind == "causal"
    assert file.tokenizer("the")["input_ids"] == [words.index("the")]
    assert file.digest == folder.digest
    ids = torch.tensor([[0, 3, 17, 5, 9]])
    last = torch.tensor([4])
    assert torch.equal(file.logits(last, input_ids=ids), folder.logits(last, input_ids=ids))


@pytest.mark.parametrize("absent", [{"gguf"}, {"accelerate"}, {"gguf", "accelerate"}])
def test_without_the_extra_the_error_says_what_to_install(
    tmp_path: Path, pretend: Callable[[set[str]], None], absent: set[str]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    pretend(absent)
    with pytest.raises(ModelError, match=r"must be installed to read; run: pip install kn_attrib\[gguf\]$") as caught:
        load_model(path)
    assert all(package in str(caught.value) for package in absent)


def test_a_gguf_file_that_is_not_there_or_broken_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist; expected the path of a GGUF file"):
        load_model(tmp_path / "none.gguf")
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ModelError, match=r"broken.gguf' could not be loaded: \S"):
        load_model(tmp_path / "broken.gguf")
