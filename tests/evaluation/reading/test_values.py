"""Value vectors as words, the logit lens and agreement, against products written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kn_attrib import FactSet, NeuronModel, NeuronSet
from kn_attrib.errors import ConfigError, NeuronError
from kn_attrib.evaluation import logit_lens, read_values
from kn_attrib.evaluation.reading.agreement import agreement_by_layer, agreement_of_groups, calibration, layer_words
from kn_attrib.evaluation.reading.values import ValueReader

Load = Callable[..., NeuronModel]


def unembedded(model: Any, vector: Tensor) -> Tensor:
    """A vector at a root mean square of 1 through GPT-2's, Llama's or BERT's own norm and unembedding."""
    state = vector / vector.pow(2).mean().sqrt()
    if hasattr(model, "transformer"):
        return model.lm_head(model.transformer.ln_f(state))  # type: ignore[no-any-return]
    if hasattr(model, "cls"):
        return model.cls(state)  # type: ignore[no-any-return]
    return model.lm_head(model.model.norm(state))  # type: ignore[no-any-return]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("architecture", ["causal", "grouped"])
def test_words_are_those_of_the_unembedding(open_model: Load, architecture: str, sign: int) -> None:
    model = open_model(architecture, dtype="float64")
    chosen = NeuronSet([(0, 3), (2, 5)])
    found = read_values(model, chosen, k=4, sign=sign)
    for layer, neuron in chosen:
        with torch.no_grad():
            logits = unembedded(model.model, sign * model.value_vectors(layer)[neuron])
        own = found[(found.layer == layer) & (found.neuron == neuron)]
        best = logits.topk(4)
        assert own.word_id.tolist() == best.indices.tolist()
        assert own["rank"].tolist() == [1, 2, 3, 4]
        assert own.logit.tolist() == pytest.approx(best.values.tolist(), rel=1e-9)
        assert own.probability.tolist() == pytest.approx(logits.softmax(0)[best.indices].tolist(), rel=1e-9)


def test_a_norm_behind_the_block_scales_what_is_written(open_model: Load) -> None:
    """BERT adds, then normalises: what a neuron writes is multiplied by γ before it is in the stream."""
    model = open_model("masked", dtype="float64")
    norm = model.model.bert.encoder.layer[1].output.LayerNorm  # type: ignore[union-attr,index]
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, len(norm.weight)))
        logits = unembedded(model.model, model.value_vectors(1)[7] * norm.weight)
    found = read_values(model, NeuronSet([(1, 7)]), k=3)
    assert found.logit.tolist() == pytest.approx(logits.topk(3).values.tolist(), rel=1e-9)


def test_ranks_of_words_that_are_asked_for(open_model: Load) -> None:
    model = open_model("causal", dtype="float64")
    reader = ValueReader(model)
    states = reader.states(1, torch.arange(6), torch.ones(6))
    words = reader.words(states, model.model.config.vocab_size, torch.tensor([[4, -1]] * 6))
    assert words.ranks[:, 0].tolist() == [row.index(4) + 1 for row in words.ids.tolist()]
    assert words.ranks[:, 1].tolist() == [0] * 6


def test_the_lens_ends_with_the_answer_itself(open_model: Load, facts: FactSet) -> None:
    for architecture in ("causal", "masked", "grouped"):
        model = open_model(architecture, dtype="float64")
        prompts = model.encode(facts).prompts
        found = logit_lens(model, prompts)
        assert len(found) == len(prompts) * model.n_layers
        for indices, batch in model.batches(prompts):
            answer = model.answers(batch)
            last = found[found["layer"] == model.n_layers - 1].set_index("query").loc[indices]
            assert last.logprob.tolist() == pytest.approx(answer.logprob.tolist(), rel=1e-9)
            assert last["rank"].tolist() == answer.rank.tolist()


def test_the_lens_is_that_of_the_hidden_states(open_model: Load, facts: FactSet) -> None:
    model = open_model("causal", dtype="float64")
    (first, *_) = model.encode(facts).prompts
    found = logit_lens(model, [first])
    with torch.no_grad():
        hidden = model.model(torch.tensor([first.input_ids]), output_hidden_states=True).hidden_states
        for layer in range(model.n_layers - 1):  # behind the last one, transformers has normalised them already
            state = model.model.transformer.ln_f(hidden[layer + 1][0, first.position])  # type: ignore[union-attr,operator]
            logprobs = model.model.lm_head(state).log_softmax(0)
            assert found.logprob[layer] == pytest.approx(float(logprobs[first.answer_id]), rel=1e-9)


def test_agreement_counts_neurons_that_write_what_follows() -> None:
    first = {"rank": torch.tensor([1, 1, 7, 0, 30]), "shuffled_rank": torch.tensor([1, 40, 50, 0, 30])}
    first["probabilities"] = torch.tensor([[0.5], [0.2], [0.02], [0.9], [0.02]])
    found = agreement_by_layer([first]).set_index(["measure", "values"])
    assert found.loc[("agreement", "own"), "share"] == 0.5
    assert found.loc[("agreement", "own"), "n"] == 4
    assert found.loc[("among_10", "own"), "share"] == 0.75
    assert found.loc[("agreement", "shuffled"), "share"] == 0.25
    # Wilson's interval of 2 of 4, by its formula.
    z = 1.959963984540054
    half = z * np.sqrt(0.25 / 4 + z**2 / 64) / (1 + z**2 / 4)
    assert found.loc[("agreement", "own"), "low"] == pytest.approx(0.5 - half)
    by_probability = calibration([first])
    assert by_probability.n.tolist() == [0, 2, 0, 1, 1]
    assert by_probability["share"].tolist()[1::2] == [0, 1]
    assert by_probability["share"].iloc[4] == 1


def test_groups_of_layers_count_their_neurons_together() -> None:
    layers = [
        {"rank": torch.tensor(ranks), "shuffled_rank": torch.tensor(ranks[::-1])}
        for ranks in ([1, 1, 7], [30, 0, 0], [1, 40, 50], [0, 0, 0], [2, 2, 2])
    ]
    found = agreement_of_groups(agreement_by_layer(layers), 3)
    assert list(dict.fromkeys(found.layers)) == ["0–1", "2–3", "4", "all"]
    own = found[found["values"] == "own"].set_index(["layers", "measure"])
    assert own["share"].loc[:, "agreement"].tolist() == [2 / 4, 1 / 3, 0, 3 / 10]
    assert own["share"].loc[:, "among_10"].tolist() == [3 / 4, 1 / 3, 1, 7 / 10]
    assert own.n.loc[:, "agreement"].tolist() == [4, 3, 3, 10]
    # One group of one layer has that layer's interval.
    layer = agreement_by_layer(layers).set_index(["layer", "measure", "values"]).loc[(4, "agreement", "own")]
    assert own.loc[("4", "agreement"), ["low", "high"]].tolist() == pytest.approx([layer.low, layer.high])


def test_neurons_that_are_made_to_agree_do(open_model: Load) -> None:
    model = open_model("causal", dtype="float64")
    with torch.no_grad():  # every neuron of layer 2 writes an unembedding row, and so that word
        rows = model.model.lm_head.weight
        words = torch.arange(model.n_neurons) % len(rows)
        model.model.transformer.h[2].mlp.c_proj.weight.copy_(rows[words])  # type: ignore[union-attr,index]
        reader = ValueReader(model)
        states = reader.states(2, torch.arange(model.n_neurons), torch.ones(model.n_neurons))
        written = reader.words(states, 1).ids[:, 0]
    found = layer_words(reader, 2, torch.ones(model.n_neurons), written, 3, seed=0)
    assert (found["rank"] == 1).all()
    assert not (found["shuffled_rank"] == 1).all()
    assert sorted(found["shuffled_rank"].tolist())[-1] > 1


def test_bad_input_is_named(open_model: Load) -> None:
    model = open_model("causal")
    with pytest.raises(NeuronError, match="does not exist"):
        read_values(model, NeuronSet([(9, 0)]))
    with pytest.raises(ConfigError, match="k is 0"):
        read_values(model, k=0)
    with pytest.raises(ConfigError, match="sign is 2"):
        read_values(model, sign=2)
