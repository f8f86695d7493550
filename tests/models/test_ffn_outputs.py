"""Where the neurons are looked for, when the user or a model leads astray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    LongformerConfig,
    LongformerForMaskedLM,
    PreTrainedTokenizerFast,
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
)

from kn_attrib import NeuronModel, load_model
from kn_attrib.errors import ModelError

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LAYER = "bert.encoder.layer.{i}."


def test_a_pattern_inside_the_feed_forward_block_is_refused(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("masked")
    with pytest.raises(
        ModelError, match=r"writes vectors of \d+ values; the hidden states have \d+. Expected the linear"
    ):
        load_model((model.model, model.tokenizer), ffn_pattern=LAYER + "intermediate.dense")


def test_a_pattern_of_a_norm_or_of_nothing_is_refused(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("masked")
    with pytest.raises(ModelError, match="feed-forward output is a LayerNorm; expected"):
        load_model((model.model, model.tokenizer), ffn_pattern=LAYER + "output.LayerNorm")
    with pytest.raises(ModelError, match=r"has no modules 'bert.encoder.layers"):
        load_model((model.model, model.tokenizer), ffn_pattern="bert.encoder.layers.{i}.output.dense")


def test_a_dense_type_outside_the_table_is_found_and_validated(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    tokenizer = tokenizers["masked"]
    config = LongformerConfig(
        **SMALL, vocab_size=len(tokenizer), attention_window=[4, 4], max_position_embeddings=70, pad_token_id=0
    )
    model = load_model((LongformerForMaskedLM(config).eval(), tokenizer))
    assert (model.n_layers, model.n_neurons) == (2, 48)
    assert model.architecture.origin == "found"


def test_a_type_whose_linears_are_convolutions_is_refused(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    config = SqueezeBertConfig(**SMALL, embedding_size=32, vocab_size=len(tokenizers["masked"]))
    with pytest.raises(ModelError, match=r"model type 'squeezebert' .* is not in the table"):
        load_model((SqueezeBertForMaskedLM(config).eval(), tokenizers["masked"]))


def test_layers_of_unequal_width_are_refused(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("masked", "float32")
    layer: Any = model.model.get_submodule("bert.encoder.layer.1")
    layer.intermediate.dense = nn.Linear(layer.intermediate.dense.in_features, 7)
    layer.output.dense = nn.Linear(7, layer.output.dense.out_features)
    torch.nn.init.normal_(layer.output.dense.weight)
    with pytest.raises(ModelError, match="feed-forward widths differ between layers; expected one width"):
        load_model((model.model, model.tokenizer))
