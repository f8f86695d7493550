"""Scales at which norms behind feed-forward blocks see them fade, against the formula and the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kn_attrib import NeuronModel, load_model
from kn_attrib.facts.facts import FactSet
from kn_attrib.forward.fading import fading_scales
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.models.compute import Engine
from wave_rows import batches_of

SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
Tokenizers = dict[str, PreTrainedTokenizerFast]


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_the_scale_of_an_rms_norm_is_that_of_its_epsilon(
    engine: Engine, tokenizers: Tokenizers, facts: FactSet
) -> None:
    tokenizer = tokenizers["causal"]
    torch.manual_seed(0)
    config = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, vocab_size=len(tokenizer))
    gemma: Any = Gemma2ForCausalLM(config)
    for parameter in gemma.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model = load_model((gemma, tokenizer), dtype="float64", engine=engine)
    batch = batches_of(model, facts)[0]
    function = objective_function(model, batch)
    scales = fading_scales(function)
    assert scales is not None
    written = torch.stack(
        [function.activations[:, layer] @ model.value_vectors(layer) for layer in range(model.n_layers)], 1
    )
    expected = model.model.config.rms_norm_eps**0.5 / written.pow(2).mean(-1).sqrt()
    known = expected < 0.3
    assert known.all()
    # The grid has 120 steps over six decades.
    assert torch.allclose(scales[known].log10(), expected[known].double().log10(), atol=0.06)


def test_blocks_without_a_norm_behind_them_fade_evenly(
    tiny: NeuronModel, tokenizers: Tokenizers, facts: FactSet
) -> None:
    tokenizer = tokenizers["causal"]
    llama = LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=len(tokenizer)))
    for model in (tiny, load_model((llama, tokenizer))):
        assert fading_scales(objective_function(model, batches_of(model, facts)[0])) is None
