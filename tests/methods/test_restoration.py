"""`restoration` against loops by hand, and the corrupted runs it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from kn_attrib import NeuronModel, load_model, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.interventions.subject_noise import EmbeddedBatch, subject_spans, with_noise
from kn_attrib.methods import Restoration
from kn_attrib.models.compute import Compute

pytestmark = pytest.mark.filterwarnings("ignore::kn_attrib.forward.guards.PlainPathWarning")


def batch_of(model: NeuronModel, facts: FactSet) -> Batch:
    """All prompts of one length."""
    _, batch = next(iter(model.batches(model.encode(facts).prompts)))
    assert len(batch) > 1
    return batch


def noisy(model: NeuronModel, batch: Batch, draw: int = 0, sigma: float = 3.0) -> EmbeddedBatch:
    return with_noise(model, batch, subject_spans(model, batch), sigma, 0, draw)


def restored(model: NeuronModel, corrupted: EmbeddedBatch, prompt: int, neuron: tuple[int, int], to: float) -> float:
    """p(answer) of a corrupted prompt with one neuron set, by a hook of our own on the bare model."""
    position = int(corrupted.positions[prompt])

    def put(_: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        vectors = inputs[0].clone()
        vectors[0, position, neuron[1]] = to
        return (vectors,)

    handle = model.ffn_outputs[neuron[0]].register_forward_pre_hook(put)
    try:
        return probability(model, corrupted, prompt)
    finally:
        handle.remove()


def probability(model: NeuronModel, corrupted: EmbeddedBatch, prompt: int) -> float:
    embeddings = corrupted.embeddings[prompt : prompt + 1]
    given = (
        {"inputs_embeds": embeddings, "decoder_input_ids": corrupted.input_ids[prompt : prompt + 1]}
        if model.kind == "encoder-decoder"
        else {"inputs_embeds": embeddings}
    )
    with torch.no_grad():
        logits = model.model(**given).logits[0, int(corrupted.positions[prompt])]
    return float(logits.softmax(-1)[corrupted.answers[prompt]])


def check_against_loop(model: NeuronModel, batch: Batch, neurons: list[tuple[int, int]]) -> None:
    found = Restoration(draws=3, screen=1.0, max_rows=50).score(model, batch)
    clean = model.record(batch)
    runs = [noisy(model, batch, draw) for draw in range(3)]
    for layer, neuron in neurons:
        to = float(clean[1, layer, neuron])
        gains = [restored(model, run, 1, (layer, neuron), to) - probability(model, run, 1) for run in runs]
        assert float(found[1, layer, neuron]) == pytest.approx(sum(gains) / 3, abs=1e-12)
    assert found.abs().max() > 1e-4


def test_restoration_is_the_loop(tiny: NeuronModel, facts: FactSet) -> None:
    check_against_loop(tiny, batch_of(tiny, facts), [(layer, neuron) for layer in range(3) for neuron in range(48)])


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_restoration_in_encoder_decoders_corrupts_what_the_encoder_reads(
    kind: str, tokenizers: dict[str, PreTrainedTokenizerFast], facts: FactSet
) -> None:
    tokenizer = tokenizers["causal" if kind == "t5" else "masked"]
    torch.manual_seed(0)
    built: Any = (
        T5ForConditionalGeneration(
            T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4,
                     decoder_start_token_id=0, feed_forward_proj="gated-gelu")  # type: ignore[call-arg]
        )
        if kind == "t5"
        else BartForConditionalGeneration(
            BartConfig(vocab_size=len(tokenizer), d_model=32, encoder_ffn_dim=40, decoder_ffn_dim=48, encoder_layers=2,
                       decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4, init_std=0.3,
                       max_position_embeddings=32, decoder_start_token_id=3, pad_token_id=0, scale_embedding=True)
        )
    )  # fmt: skip
    model = load_model((built.eval(), tokenizer), dtype="float64")
    check_against_loop(model, batch_of(model, facts), [(0, 3), (1, 20), (2, 47)])


def test_noise_is_on_the_subjects_tokens_alone(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    changed = (noisy(tiny, batch).embeddings != tiny.embed(batch)).any(-1)
    for row, prompt in enumerate(batch.prompts):
        words = tiny.tokenizer.convert_ids_to_tokens(list(prompt.input_ids))
        expected = [word.strip("Ġ") == prompt.fact.subject for word in words]
        assert changed[row].tolist() == expected
        assert any(expected)


def test_noise_has_the_deviation_asked_for(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    noise = torch.cat([noisy(tiny, batch, draw).embeddings - tiny.embed(batch) for draw in range(200)])
    embedding: Any = tiny.model.get_input_embeddings()
    found = noise[noise != 0].std() / embedding.weight.detach().std()
    assert float(found) == pytest.approx(3, rel=0.02)
    assert abs(float(noise.mean())) < 0.01


def test_noise_is_scaled_where_a_family_scales_its_embeddings(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    plain = noisy(tiny, batch).embeddings - tiny.embed(batch)
    embedding: Any = tiny.model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _, __, output: 5 * output)
    try:
        scaled = noisy(tiny, batch).embeddings - tiny.embed(batch)
    finally:
        handle.remove()
    assert torch.allclose(scaled, 5 * plain)


def test_tokens_of_an_answer_are_asked_for_under_the_same_noise(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("causal")
    fact = Fact("f", "capital", "France", "Rome Paris", ("the capital of France is [Y].",))
    first, second = (noisy(model, Batch((prompt,))) for prompt in model.encode(fact).prompts)
    assert torch.equal(first.embeddings[0], second.embeddings[0, : first.embeddings.shape[1]])


def test_corrupted_runs_are_the_same_on_both_paths(tiny: NeuronModel, facts: FactSet) -> None:
    batch = noisy(tiny, batch_of(tiny, facts))
    fast = objective_function(tiny, batch)
    assert fast.is_wave
    tiny.execution.settings = Compute(engine="plain")
    slow = objective_function(tiny, batch)
    assert not slow.is_wave
    assert torch.allclose(fast.activations, slow.activations, atol=1e-12)
    assert torch.allclose(fast.clean(), slow.clean(), atol=1e-12)
    rows, layers, prompts = torch.randn(6, 48, dtype=torch.float64), torch.tensor([0, 1, 2] * 2), torch.arange(6) % 2
    assert torch.allclose(fast(rows, layers, prompts), slow(rows, layers, prompts), atol=1e-12)


def test_what_is_linear_comes_back_as_far_as_it_was_lost(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    """Last layer, final norm taken away: ``score_i = mean over draws of (a_i − ã_i) · v_i · U_y``, in closed form."""
    model = load_tiny("causal")
    gpt2: Any = model.model
    gpt2.transformer.ln_f.forward = lambda states: states
    batch = batch_of(model, facts)
    found = Restoration(draws=4, screen=1.0, objective="logit").score(model, batch)[:, -1]
    lost = model.record(batch)[:, -1] - torch.stack(
        [model.record(noisy(model, batch, draw))[:, -1] for draw in range(4)]
    ).mean(0)
    along = gpt2.lm_head.weight[batch.answers] @ model.value_vectors(model.n_layers - 1).T
    assert torch.allclose(found, lost * along.detach(), atol=1e-12)


def test_a_screen_keeps_the_exact_scores_of_the_largest_estimates(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    every = Restoration(draws=2, screen=1.0).score(tiny, batch)
    some = Restoration(draws=2, screen=0.25).score(tiny, batch)
    kept = some != 0
    assert kept.flatten(1).sum(1).tolist() == [round(0.25 * every[0].numel())] * len(batch)
    assert torch.allclose(some[kept], every[kept], atol=1e-12)
    assert every[kept].abs().mean() > 2 * every[~kept].abs().mean()


def test_with_hardly_any_noise_hardly_anything_comes_back(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    small, usual = (Restoration(sigma=s, draws=1, screen=1.0).score(tiny, batch).abs().max() for s in (1e-6, 3.0))
    assert 0 < small < 1e-4 * usual


def test_restoration_depends_on_its_seed(tiny: NeuronModel, facts: FactSet) -> None:
    first, second = (score(tiny, facts[0], Restoration(draws=1, seed=seed)).values for seed in (0, 1))
    assert not torch.allclose(first, second)


def test_a_text_without_its_subject_is_named(tiny: NeuronModel, facts: FactSet) -> None:
    text = "the capital of the country is [Y]."
    fact = replace(facts[0], prompts=(text,))
    with pytest.raises(MethodError, match=r"'France' of fact .* is not in what the model reads of 'the capital of the"):
        score(tiny, fact, Restoration())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, r"sigma is 0\.0; expected a positive number"),
        ({"draws": 0}, "draws is 0; expected at least 1"),
        ({"screen": 1.5}, r"screen is 1\.5; expected a share"),
    ],
)
def test_bad_parameters_of_restoration_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        Restoration(**settings)
