"""The residual stream and what is read off it, against formulas written out from the models' own weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from kn_attrib import NeuronModel, get_method, load_model
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch
from kn_attrib.methods import LogitAttribution, LogprobIncrease, QueryNeurons
from kn_attrib.techniques.residual_stream import exit_early, follow
from norm_slopes import ln_slope, rms_slope

pytestmark = pytest.mark.filterwarnings("ignore::kn_attrib.forward.guards.PlainPathWarning")

SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": None
}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
# type -> (config, final norm, "ln" or "rms", what is added to its weight, what the logits are multiplied by)
FORMULAS: dict[str, tuple[dict[str, Any], str, str, float, float]] = {
    "gpt2": ({"n_embd": 32, "n_inner": 48, "n_layer": 3, "n_head": 4}, "transformer.ln_f", "ln", 0, 1),
    "gpt_neox": (SMALL, "gpt_neox.final_layer_norm", "ln", 0, 1),  # attention and feed-forward side by side
    "falcon": (SMALL | {"ffn_hidden_size": 48, "alibi": False}, "transformer.ln_f", "ln", 0, 1),
    "opt": (
        SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1}, "model.decoder.final_layer_norm",
        "ln", 0, 1,
    ),
    "llama": (GROUPED, "model.norm", "rms", 0, 1),
    "gemma": (GROUPED, "model.norm", "rms", 1, 1),
    "qwen3": (GROUPED, "model.norm", "rms", 0, 1),
    "granite": (GROUPED | {"logits_scaling": 4.0, "residual_multiplier": 0.5}, "model.norm", "rms", 0, 0.5 / 4),
    "t5": (
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "decoder_start_token_id": 0,
         "feed_forward_proj": "gated-gelu", "tie_word_embeddings": True},
        "decoder.final_layer_norm", "rms", 0, 32**-0.5,
    ),
}  # fmt: skip

Make = Callable[[str], NeuronModel]


@pytest.fixture
def make(tokenizers: dict[str, PreTrainedTokenizerFast]) -> Make:
    """A random model of a type in float64, with norms that are not the identity."""

    def build(model_type: str, **settings: Any) -> NeuronModel:
        tokenizer = tokenizers["causal"]
        given = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0} | settings
        torch.manual_seed(0)
        factory: Any = AutoModelForSeq2SeqLM if model_type == "t5" else AutoModelForCausalLM
        return shaken(factory.from_config(AutoConfig.for_model(model_type, **given)), tokenizer)

    return lambda name: build(name, **(FORMULAS[name][0] if name in FORMULAS else GROUPED))


def shaken(model: Any, tokenizer: PreTrainedTokenizerFast) -> NeuronModel:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return load_model((model.eval().requires_grad_(False), tokenizer), dtype="float64")


def batch_of(model: NeuronModel, facts: FactSet) -> Batch:
    """All prompts of one length."""
    _, batch = next(iter(model.batches(model.encode(facts).prompts)))
    assert len(batch) > 1
    return batch


def inputs_of(model: NeuronModel, batch: Batch, modules: list[nn.Module]) -> list[Tensor]:
    """What modules read at the answer position in a pass of the bare model: ``[prompt, width]`` each."""
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        states = inputs[0].reshape(len(batch), -1, inputs[0].shape[-1])
        found[module] = states[torch.arange(len(batch)), batch.positions].clone()

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        with torch.no_grad():
            model.logits(batch.positions, **batch.inputs())
    finally:
        for handle in handles:
            handle.remove()
    return [found[module] for module in modules]


# -- logit attribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("centred", [False, True])
def test_logit_attribution_is_the_formula(make: Make, facts: FactSet, name: str, centred: bool) -> None:
    """``a_i · v_i · (γ ⊙ U_y) / σ``, written out from the final norm's and the head's weights."""
    model = make(name)
    _, path, kind, offset, scale = FORMULAS[name]
    batch = batch_of(model, facts)
    norm: Any = model.model.get_submodule(path)
    head: Any = model.model.get_output_embeddings()
    (states,) = inputs_of(model, batch, [norm])
    epsilon = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    slope = ln_slope(norm, states) if kind == "ln" else rms_slope(norm.weight + offset, states, epsilon)
    rows = head.weight[batch.answers] - (head.weight.mean(0) if centred else 0)
    found = LogitAttribution(centred=centred).score(model, batch)
    for layer, activations in enumerate(model.record(batch).unbind(1)):
        expected = activations * scale * torch.einsum("ih,ph->pi", model.value_vectors(layer), slope * rows)
        # Families compute RMS norms in float32 even in float64.
        assert torch.allclose(found[:, layer], expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def bert_slopes(model: NeuronModel, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """Of each layer the slope of its last norm times those of all later layers' norms, and the gradient of the answer's
    logit behind the last layer with the statistics of the head's norm held fixed."""
    bert: Any = model.model
    layers, transform = bert.bert.encoder.layer, bert.cls.predictions.transform
    norms = [norm for layer in layers for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm)]
    *read, into, before = inputs_of(model, batch, [*norms, transform.LayerNorm, transform.dense])
    slopes = [ln_slope(norm, states) for norm, states in zip(norms, read, strict=True)]
    total = torch.ones_like(slopes[0])
    along = []
    for own, attention in zip(slopes[1::2][::-1], slopes[::2][::-1], strict=True):
        along.append(total * own)
        total = total * own * attention
    pre = (before @ transform.dense.weight.T + transform.dense.bias).requires_grad_()
    (bend,) = torch.autograd.grad(nn.functional.gelu(pre).sum(), pre)
    row = bert.cls.predictions.decoder.weight[batch.answers]
    return along[::-1], (row * ln_slope(transform.LayerNorm, into) * bend) @ transform.dense.weight


@pytest.fixture
def bert(make_tiny_bert: Callable[[], tuple[Any, Any]]) -> NeuronModel:
    """A random BERT with norms that are not the identity."""
    return shaken(*make_tiny_bert())


def test_logit_attribution_in_bert_follows_every_norm_of_the_stream(bert: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(bert, facts)
    slopes, gradient = bert_slopes(bert, batch)
    found = LogitAttribution().score(bert, batch)
    for layer, activations in enumerate(bert.record(batch).unbind(1)):
        expected = activations * ((slopes[layer] * gradient) @ bert.value_vectors(layer).T)
        assert torch.allclose(found[:, layer], expected, atol=1e-9)


def test_a_norm_behind_the_feed_forward_block_is_held_fixed(make: Make, facts: FactSet) -> None:
    model = make("olmo2")
    batch = batch_of(model, facts)
    decoder: Any = model.model.model
    norms = [layer.post_feedforward_layernorm for layer in decoder.layers]
    final, *read = inputs_of(model, batch, [decoder.norm, *norms])
    head: Any = model.model.get_output_embeddings()
    row = rms_slope(decoder.norm.weight, final, decoder.norm.variance_epsilon) * head.weight[batch.answers]
    found = LogitAttribution().score(model, batch)
    for layer, (norm, states) in enumerate(zip(norms, read, strict=True)):
        effect = row * rms_slope(norm.weight, states, norm.variance_epsilon)
        expected = model.record(batch)[:, layer] * (effect @ model.value_vectors(layer).T)
        assert torch.allclose(found[:, layer], expected, rtol=1e-4, atol=1e-6)


def test_logit_attribution_and_the_other_writers_add_up_to_the_logit(make: Make, facts: FactSet) -> None:
    """Llama has no biases and its norm removes no mean: neurons, attention and embedding make up the logit exactly."""
    model = make("llama")
    batch = batch_of(model, facts)
    decoder: Any = model.model.model
    final, *attended = inputs_of(model, batch, [decoder.norm, *(layer.self_attn.o_proj for layer in decoder.layers)])
    embedded = model.embed(batch)[torch.arange(len(batch)), batch.positions]
    others = embedded + sum(
        read @ layer.self_attn.o_proj.weight.T for read, layer in zip(attended, decoder.layers, strict=True)
    )
    head: Any = model.model.get_output_embeddings()
    row = rms_slope(decoder.norm.weight, final, decoder.norm.variance_epsilon) * head.weight[batch.answers]
    logits = model.logits(batch.positions, **batch.inputs()).gather(1, batch.answers[:, None])[:, 0]
    scores = LogitAttribution().score(model, batch)
    assert torch.allclose(scores.sum((1, 2)) + (others * row).sum(-1), logits, rtol=1e-4)


# -- early exits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FORMULAS, "olmo2", "gemma2", "bert"])
def test_leaving_behind_the_last_block_is_the_clean_answer(
    make: Make, bert: NeuronModel, facts: FactSet, name: str
) -> None:
    model = bert if name == "bert" else make(name)
    batch = batch_of(model, facts)
    stream = follow(model, batch)
    clean = model.logits(batch.positions, **batch.inputs())
    assert torch.allclose(stream.final.detach(), clean, atol=1e-9)
    assert torch.allclose(exit_early(model, stream, stream.after[-1].detach()), clean, atol=1e-9)


def test_leaving_where_the_head_reads_more_than_one_token_is_refused(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny("causal")
    gpt2: Any = model.model
    norm = gpt2.transformer.ln_f
    forward = norm.forward
    monkeypatch.setattr(norm, "forward", lambda states: forward(states) * states.shape[1])
    with pytest.raises(MethodError, match="do not give the model's own answer behind its last block"):
        LogprobIncrease().score(model, batch_of(model, facts))


def gpt2_logprob(model: NeuronModel, states: Tensor, answer: Tensor, fixed: Tensor | None = None) -> Tensor:
    """Log-probability of an answer at states of the stream; the norm's statistics are those of ``fixed``, if given."""
    gpt2: Any = model.model
    like, norm = states if fixed is None else fixed, gpt2.transformer.ln_f
    centred = states - like.mean(-1, keepdim=True)
    normed = centred / (like.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias
    logprobs: Tensor = (normed @ gpt2.lm_head.weight.T).log_softmax(-1)
    return logprobs[answer]


@pytest.mark.parametrize("hold", [False, True])
def test_logprob_increase_is_the_formula(make: Make, facts: FactSet, hold: bool) -> None:
    """GPT-2: ``h_l`` is what the norm before the feed-forward block reads; every neuron in a loop."""
    model = make("gpt2")
    batch = batch_of(model, facts)
    gpt2: Any = model.model
    after_attention = inputs_of(model, batch, [block.ln_2 for block in gpt2.transformer.h])
    found = LogprobIncrease(frozen=hold, max_rows=7).score(model, batch)
    activations = model.record(batch)
    for layer, states in enumerate(after_attention):
        for neuron, vector in enumerate(model.value_vectors(layer)):
            h, added = states[1], activations[1, layer, neuron] * vector
            before = gpt2_logprob(model, h, batch.answers[1])
            after = gpt2_logprob(model, h + added, batch.answers[1], h if hold else None)
            assert float(found[1, layer, neuron]) == pytest.approx(float(after - before), abs=1e-9)


def test_logprob_increase_in_bert_adds_behind_the_norm(bert: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(bert, facts)
    model: Any = bert.model
    found = LogprobIncrease().score(bert, batch)
    layers = model.bert.encoder.layer
    written = inputs_of(bert, batch, [layer.output.dense for layer in layers])
    summed = inputs_of(bert, batch, [layer.output.LayerNorm for layer in layers])
    for layer, block in enumerate(layers):
        slope = ln_slope(block.output.LayerNorm, summed[layer])[0]
        h = block.output.LayerNorm(summed[layer])[0] - slope * block.output.dense(written[layer])[0]
        for neuron in (0, 17, 47):
            added = slope * written[layer][0, neuron] * block.output.dense.weight[:, neuron]
            both = model.cls(torch.stack([h, h + added])).log_softmax(-1)[:, batch.answers[0]]
            assert float(found[0, layer, neuron]) == pytest.approx(float(both[1] - both[0]), abs=1e-9)


def test_logprob_increase_in_llama_starts_behind_the_attention(make: Make, facts: FactSet) -> None:
    model = make("llama")
    batch = batch_of(model, facts)
    llama: Any = model.model
    found = LogprobIncrease().score(model, batch)
    read = inputs_of(model, batch, [layer.post_attention_layernorm for layer in llama.model.layers])
    activations = model.record(batch)
    for layer, states in enumerate(read):
        for neuron in (0, 20, 47):
            added = activations[0, layer, neuron] * model.value_vectors(layer)[neuron]
            both = llama.lm_head(llama.model.norm(torch.stack([states[0], states[0] + added]))).log_softmax(-1)
            expected = both[1, batch.answers[0]] - both[0, batch.answers[0]]
            assert float(found[0, layer, neuron]) == pytest.approx(float(expected), abs=1e-6)


def test_a_neuron_that_is_off_increases_nothing(make: Make, facts: FactSet) -> None:
    model = make("opt")  # ReLU: many activations are exactly zero
    batch = batch_of(model, facts)
    off = model.record(batch) == 0
    assert off.any()
    for name in ("logit_attribution", "logprob_increase", "query_neurons"):
        scores = get_method(name)().score(model, batch)
        assert isinstance(scores, Tensor)
        assert scores[off].abs().max() < 1e-12
        assert scores[~off].abs().max() > 1e-3


# -- query neurons ----------------------------------------------------------------------------------------------------


def test_query_neurons_are_the_formula(make: Make, facts: FactSet) -> None:
    """GPT-2, from keys, norms and value vectors, neuron by neuron."""
    model = make("gpt2")
    batch = batch_of(model, facts)
    gpt2: Any = model.model
    increase = LogprobIncrease().score(model, batch)[0]
    blocks = gpt2.transformer.h
    stream = inputs_of(model, batch, [block.ln_2 for block in blocks])
    read = inputs_of(model, batch, [block.mlp.c_fc for block in blocks])
    activations = model.record(batch)[0]
    expected = torch.zeros_like(activations)
    for index in increase.flatten().topk(10).indices.tolist():
        layer, neuron = divmod(index, model.n_neurons)
        assert increase[layer, neuron] > 0
        key = blocks[layer].mlp.c_fc.weight[:, neuron]
        slope = ln_slope(blocks[layer].ln_2, stream[layer])[0]
        for earlier in range(layer):
            contributions = activations[earlier][:, None] * model.value_vectors(earlier) * slope
            expected[earlier] += contributions @ key / (read[layer][0] @ key) * increase[layer, neuron]
    assert expected.any()
    assert torch.allclose(QueryNeurons(values=10).score(model, batch)[0], expected, atol=1e-9)


def test_query_neurons_of_gated_blocks_use_the_gradient(make: Make, facts: FactSet) -> None:
    """Llama: ``a_n = silu(g·h) (u·h)``, so the key is ``silu'(g·h) (u·h) g + silu(g·h) u``."""
    model = make("llama")
    batch = batch_of(model, facts)
    layers: Any = model.model.model.layers
    last = model.n_layers - 1
    increase = LogprobIncrease().score(model, batch)[0]
    chosen = torch.zeros_like(increase).flatten()
    top = increase.flatten().topk(40)
    chosen = chosen.scatter(0, top.indices, top.values.clamp_min(0)).view_as(increase)
    assert chosen[last].any()
    expected = torch.zeros_like(increase[0])
    for layer in range(1, model.n_layers):
        mlp, norm = layers[layer].mlp, layers[layer].post_attention_layernorm
        states, read = (each[0] for each in inputs_of(model, batch, [norm, mlp.gate_proj]))
        gate = (mlp.gate_proj.weight @ read).requires_grad_()
        up = mlp.up_proj.weight @ read
        (bend,) = torch.autograd.grad(nn.functional.silu(gate).sum(), gate)
        act = nn.functional.silu(gate.detach())
        keys = (bend * up)[:, None] * mlp.gate_proj.weight + act[:, None] * mlp.up_proj.weight
        contributions = model.record(batch)[0, 0][:, None] * model.value_vectors(0)
        contributions = contributions * rms_slope(norm.weight, states, norm.variance_epsilon)
        expected += contributions @ keys.T @ (chosen[layer] / (keys @ read))
    assert torch.allclose(QueryNeurons(values=40).score(model, batch)[0, 0], expected, rtol=1e-4)


def test_query_neurons_of_the_last_layer_score_nothing(tiny: NeuronModel, facts: FactSet) -> None:
    scores = QueryNeurons().score(tiny, batch_of(tiny, facts))
    assert not scores[:, -1].any()
    assert scores[:, :-1].any()


def test_query_neurons_need_a_value_neuron() -> None:
    with pytest.raises(MethodError, match="values is 0; expected at least 1"):
        QueryNeurons(values=0)
