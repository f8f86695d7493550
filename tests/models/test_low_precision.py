"""Models whose numbers are too large for a half precision are refused, and no method is blamed for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kn_attrib import Batch, FactSet, NeuronModel, Scorer, load_model, score
from kn_attrib.errors import MethodError, ModelError
from kn_attrib.models.validation import check_finite, validate

TOO_LARGE = r"in float16 are not finite .*dtype='bfloat16' or dtype='float32'"


@pytest.fixture
def overflowing(tokenizers: dict[str, PreTrainedTokenizerFast]) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A Llama in which the token that begins every text grows beyond what float16 can say, and no other token does."""
    tokenizer = tokenizers["causal"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=32, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    direction = torch.randn(32).sign()
    mlp: Any = model.model.layers[1].mlp
    with torch.no_grad():
        # The neuron's activation is about 100 there, and adds 20,000 to 60,000; the largest float16 is 65,504.
        model.model.embed_tokens.weight[0] = 6e4 * direction
        mlp.gate_proj.weight[0] = mlp.up_proj.weight[0] = direction * 10 / 32
        mlp.down_proj.weight[:, 0] = 200 * direction
    return model, tokenizer


def test_logits_that_are_not_finite_are_an_error_at_load(overflowing: tuple[Any, PreTrainedTokenizerFast]) -> None:
    with pytest.raises(ModelError, match=TOO_LARGE):
        load_model(overflowing, dtype="float16")
    for dtype in ("bfloat16", "float32", "float64"):
        load_model(overflowing, dtype=dtype)


def test_the_dummy_input_alone_would_not_have_shown_it(
    overflowing: tuple[Any, PreTrainedTokenizerFast], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kn_attrib.models import loading

    monkeypatch.setattr(loading, "check_finite", lambda model: None)
    validate(load_model(overflowing, dtype="float16"))


def test_damaged_weights_are_called_so(tiny: NeuronModel) -> None:
    head: Any = tiny.model.get_output_embeddings()
    head.weight.data[3] = torch.nan
    with pytest.raises(ModelError, match=r"in float64 are not finite .*Are its weights damaged\?"):
        check_finite(tiny)


def test_words_that_are_ruled_out_are_no_overflow(tiny: NeuronModel) -> None:
    head: Any = tiny.model.get_output_embeddings()

    def rule_out(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([logits[..., :-1], torch.full_like(logits[..., -1:], -torch.inf)], -1)

    handle = head.register_forward_hook(rule_out)
    check_finite(tiny)
    handle.remove()


class Quotient(Scorer):
    """A method that divides by zero."""

    def score(self, model: NeuronModel, batch: Batch) -> torch.Tensor:
        return model.record(batch) / 0


def test_a_method_is_blamed_only_for_what_is_its_own(
    tiny: NeuronModel, overflowing: tuple[Any, PreTrainedTokenizerFast], facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MethodError, match="not finite"):
        score(tiny, facts[0], Quotient())
    from kn_attrib.models import loading

    monkeypatch.setattr(loading, "check_finite", lambda model: None)
    model = load_model(overflowing, dtype="float16")
    with pytest.raises(ModelError, match=TOO_LARGE):
        score(model, facts[0], "activation")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gemma_3(dtype: str) -> None:
    folder = Path(os.environ.get("KN_ATTRIB_NATURAL", "")) / "gemma3"
    if not os.environ.get("KN_ATTRIB_NATURAL") or not folder.is_dir():
        pytest.skip("KN_ATTRIB_NATURAL does not name a folder with gemma3/ in it")
    if dtype == "float16":
        with pytest.raises(ModelError, match=TOO_LARGE):
            load_model(folder, dtype=dtype)
    else:
        assert load_model(folder, dtype=dtype).n_layers == 18
