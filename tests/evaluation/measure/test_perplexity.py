"""Perplexity of plain text, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from kn_attrib import NeuronModel
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.measure.perplexity import perplexity

SENTENCES = ["the capital of France is Paris .", "Rome is in Italy ."]
Load = Callable[..., NeuronModel]


def test_perplexity_of_a_uniform_model_is_the_size_of_its_vocabulary(tiny: NeuronModel) -> None:
    for parameter in tiny.model.get_output_embeddings().parameters():
        parameter.data.zero_()
    vocabulary = tiny.model.config.vocab_size
    # To the base 2 the same loss would give 2 ** ln(vocabulary), another and smaller number.
    assert perplexity(tiny, SENTENCES) == pytest.approx(vocabulary)
    assert vocabulary != pytest.approx(2 ** math.log(vocabulary))


def test_perplexity_by_hand(load_tiny: Load) -> None:
    model = load_tiny("causal")
    losses = []
    for text in SENTENCES:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logprobs = model.model(input_ids=ids).logits[0].log_softmax(-1)
        losses += [-float(logprobs[t, ids[0, t + 1]]) for t in range(ids.shape[1] - 1)]
    assert perplexity(model, SENTENCES) == pytest.approx(math.exp(sum(losses) / len(losses)))


def test_perplexity_needs_text(tiny: NeuronModel) -> None:
    with pytest.raises(ConfigError, match="texts is empty"):
        perplexity(tiny, [])
