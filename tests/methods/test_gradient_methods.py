"""Gradients along other paths and by other rules: against Captum, exact patching, and slow loops by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kn_attrib import NeuronModel, Scorer, load_model, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.loading import facts_from_templates
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.all_tokens import at_answer
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.forward.plain import PlainForward
from kn_attrib.methods import (
    Ablation,
    ActivationNorm,
    AttributionPatching,
    ExpectedGradients,
    Gradient,
    GradientXActivation,
    IntegratedGradients,
    InternalInfluence,
    MultiBaselineIG,
    RelP,
)
from kn_attrib.techniques.gradient_rules import relevance_rules, without_ffn_gradient


def batch_of(model: NeuronModel, facts: FactSet) -> Batch:
    return next(iter(model.batches(model.encode(facts[0]).prompts)))[1]


def scores_of(scorer: Scorer, model: NeuronModel, batch: Batch, facts: FactSet) -> Tensor:
    """Scores of a batch by a scorer fitted on all facts."""
    found = scorer.fit(model, model.encode(facts).prompts).score(model, batch)
    return found if isinstance(found, Tensor) else found.values


def logits_by_row(model: NeuronModel, batch: Batch) -> Callable[[Tensor, int], Tensor]:
    """The answer's logit with one layer's activations replaced, by the plain path."""
    plain = PlainForward(model, batch, "logit")

    def run(rows: Tensor, layer: int) -> Tensor:
        prompts = torch.arange(len(batch))
        return plain(rows, torch.full_like(prompts, layer), prompts)

    return run


def test_gradient_is_the_difference_quotient(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found = scores_of(Gradient("logit"), tiny, batch, facts)
    run, clean, step = logits_by_row(tiny, batch), tiny.record(batch), 1e-5
    for layer, neuron in ((0, 3), (tiny.n_layers - 1, 7)):
        change = torch.zeros_like(clean[:, layer])
        change[:, neuron] = step
        by_hand = (run(clean[:, layer] + change, layer) - run(clean[:, layer] - change, layer)) / (2 * step)
        assert torch.allclose(found[:, layer, neuron], by_hand.detach(), rtol=1e-5, atol=1e-8)
    product = scores_of(GradientXActivation("logit"), tiny, batch, facts)
    assert torch.allclose(found * clean, product, atol=1e-12)


def test_activation_norm_is_the_length_of_what_is_written(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found, clean = scores_of(ActivationNorm(), tiny, batch, facts), tiny.record(batch)
    for layer, neuron in ((0, 3), (1, 5)):
        written = clean[:, layer, neuron, None] * tiny.value_vectors(layer)[neuron]
        assert torch.allclose(found[:, layer, neuron], written.norm(dim=-1))


def test_internal_influence_is_captums(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found = scores_of(InternalInfluence(steps=8, objective="logprob"), tiny, batch, facts)
    forward = EmbeddingObjective(tiny, "logprob")
    for layer, site in enumerate(tiny.hook_points):
        captum = attr.InternalInfluence(forward, site).attribute(
            tiny.embed(batch), baselines=0.0, additional_forward_args=batch.where, n_steps=8,
            method="gausslegendre", attribute_to_layer_input=True,
        )  # fmt: skip
        assert torch.allclose(found[:, layer], at_answer(captum, batch).detach(), rtol=1e-6, atol=1e-10)


def test_expected_gradients_by_a_slow_loop(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    scorer = ExpectedGradients(samples=3, objective="logprob").fit(tiny, tiny.encode(facts).prompts)
    found, clean = scorer.score(tiny, batch), tiny.record(batch)
    assert isinstance(found, Tensor)
    plain = PlainForward(tiny, batch, "logprob")
    for row, prompt in enumerate(batch.prompts):
        chosen, alphas = scorer._draws(prompt)
        assert all(scorer.pool.queries[i].fact.answer != prompt.fact.answer for i in chosen)
        for layer in range(tiny.n_layers):
            total = torch.zeros(tiny.n_neurons, dtype=tiny.dtype)
            for index, alpha in zip(chosen, alphas.tolist(), strict=True):
                base = scorer.pool.activations[index, layer]
                leaf = (base + alpha * (clean[row, layer] - base)).requires_grad_()
                value = plain(leaf[None], torch.tensor([layer]), torch.tensor([row]))
                total += (clean[row, layer] - base) * torch.autograd.grad(value.sum(), leaf)[0]
            assert torch.allclose(found[row, layer], total / 3, atol=1e-9)


def test_expected_gradients_tend_to_the_mean_difference(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    scorer = ExpectedGradients(samples=600, objective="logprob").fit(tiny, tiny.encode(facts).prompts)
    found = scorer.score(tiny, batch)
    assert isinstance(found, Tensor)
    run = PlainForward(tiny, batch, "logprob")
    others = scorer.pool.contrast(facts[0])
    for layer in range(tiny.n_layers):
        base = scorer.pool.activations[others, layer]
        with torch.no_grad():
            before = run(base, torch.full((len(others),), layer), torch.zeros(len(others), dtype=torch.long))
        expected = float(run.clean()[0] - before.mean())
        assert float(found[0, layer].sum()) == pytest.approx(expected, abs=0.15 * float(before.std()) + 1e-6)


def test_expected_gradients_are_captums_gradient_shap(tiny: NeuronModel, facts: FactSet) -> None:
    """The same expectation, by Captum's own sampling."""
    batch = batch_of(tiny, facts)
    one, last = Batch(batch.prompts[:1]), tiny.n_layers - 1
    scorer = ExpectedGradients(samples=2000, objective="logprob").fit(tiny, tiny.encode(facts).prompts)
    found = scorer.score(tiny, one)
    assert isinstance(found, Tensor)
    plain = PlainForward(tiny, one, "logprob")

    def forward(rows: Tensor) -> Tensor:
        return plain(rows, torch.full((len(rows),), last), torch.zeros(len(rows), dtype=torch.long))

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # Captum draws from it
    baselines = scorer.pool.activations[scorer.pool.contrast(facts[0]), last]
    captum = attr.GradientShap(forward).attribute(tiny.record(one)[:, last], baselines, n_samples=2000)
    distance = (captum[0] - found[0, last]).norm() / captum[0].norm()
    assert float(distance) < 0.1


def test_multi_baseline_is_complete_and_keeps_the_factor(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    found = MultiBaselineIG(steps=32, objective="logprob").score(tiny, batch)
    assert found.gap is not None
    assert found.difference is not None
    assert (found.gap.abs() <= 1e-6 * found.difference.abs() + 1e-9).all()
    assert torch.allclose(found.values.sum(-1) - found.difference, found.gap)


def test_multi_baseline_of_one_word_is_the_path_from_its_mask(load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("masked")
    facts = facts_from_templates("capital", [("France", "Paris")], ["[X] [Y]"])
    batch = batch_of(model, facts)
    (prompt,) = batch.prompts
    place = next(i for i, token in enumerate(prompt.input_ids) if token not in model.tokenizer.all_special_ids)
    ids = (*prompt.input_ids[:place], model.tokenizer.mask_token_id, *prompt.input_ids[place + 1 :])
    base = model.record(Batch((replace(prompt, input_ids=ids),)))[0]
    found = MultiBaselineIG(steps=24).score(model, batch).values[0]
    clean, plain = model.record(batch)[0], PlainForward(model, batch)
    nodes = (torch.arange(400) + 0.5) / 400
    for layer in range(model.n_layers):
        leaf = (base[layer] + nodes[:, None].to(clean) * (clean[layer] - base[layer])).requires_grad_()
        value = plain(leaf, torch.full((400,), layer), torch.zeros(400, dtype=torch.long))
        slope = torch.autograd.grad(value.sum(), leaf)[0].mean(0)
        assert torch.allclose(found[layer], (clean[layer] - base[layer]) * slope, atol=1e-7)


def test_attribution_patching_is_the_difference_times_the_gradient(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    scorer = AttributionPatching(foils=1).fit(tiny, tiny.encode(facts).prompts)
    (subject,) = scorer._subjects(facts[0])
    other = next(fact for fact in facts if fact.subject == subject)
    gradient = Gradient().score(tiny, batch)
    for row, prompt in enumerate(batch.prompts):
        text = prompt.text.replace(facts[0].subject, subject)
        assert text in other.prompts
        (query,) = tiny.encoder.encode(other, text)
        corrupted = tiny.record(Batch((query,)))[0]
        found = scorer.score(tiny, batch)[row]
        assert torch.allclose(found, (tiny.record(batch)[row] - corrupted) * gradient[row], atol=1e-12)


def test_graddrop_leaves_out_one_block_at_a_time(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    scorer = AttributionPatching(foils=1).fit(tiny, tiny.encode(facts).prompts)
    total = torch.zeros(len(batch), tiny.n_layers, tiny.n_neurons, dtype=tiny.dtype)
    for layer in range(tiny.n_layers):
        with without_ffn_gradient(tiny, layer):
            part = scorer.score(tiny, batch)
        assert not part[:, layer].any()
        total += part.abs()
    dropped = replace(scorer, graddrop=True).fit(tiny, tiny.encode(facts).prompts).score(tiny, batch)
    assert torch.allclose(dropped, total / (tiny.n_layers - 1), atol=1e-12)


def test_there_must_be_another_subject(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(MethodError, match="there is no other subject to put into the texts"):
        score(tiny, facts[0], AttributionPatching())
    with pytest.raises(MethodError, match="there is no other fact to compare"):
        score(tiny, facts[0], ExpectedGradients())


# -- RelP ------------------------------------------------------------------------------------------------------------


def test_rules_change_no_value(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    before = tiny.logits(batch.positions, **batch.inputs())
    with relevance_rules(tiny):
        embeddings = tiny.embed(batch).requires_grad_()
        after = tiny.logits(batch.positions, inputs_embeds=embeddings)
    assert torch.allclose(before, after, atol=1e-12)


def test_without_rules_relp_is_gradient_times_activation(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    off = RelP(norms=False, activations=False, gates=False, attention=False)
    assert torch.equal(off.score(tiny, batch), GradientXActivation("logit").score(tiny, batch))
    assert not torch.allclose(RelP().score(tiny, batch), off.score(tiny, batch), rtol=1e-3)


@pytest.fixture
def llama(tokenizers: dict[str, PreTrainedTokenizerFast]) -> NeuronModel:
    tokenizer = tokenizers["causal"]
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return load_model((LlamaForCausalLM(config).eval(), tokenizer), dtype="float64")


def test_a_gated_block_by_hand(llama: NeuronModel) -> None:
    """``y = D (f(g) ⊙ u)``, ``g = G x``, ``u = U x``: half of ``u · f(g)/g`` goes to the gate, half of ``f(g)`` up."""
    mlp = llama.model.get_submodule("model.layers.0.mlp")
    down, up, gate = (getattr(mlp, f"{name}_proj").weight.detach() for name in ("down", "up", "gate"))
    x = torch.randn(16, dtype=torch.float64, requires_grad=True)
    with relevance_rules(llama, norms=False, attention=False):
        (slope,) = torch.autograd.grad(mlp(x[None, None])[0, 0, 0], x)
    g, u = gate @ x.detach(), up @ x.detach()
    f = nn.functional.silu(g)
    by_hand = down[0] @ (0.5 * (u * f / g)[:, None] * gate + 0.5 * f[:, None] * up)
    assert torch.allclose(slope, by_hand)
    assert torch.allclose(x.detach() @ slope, mlp(x[None, None]).detach()[0, 0, 0])  # relevance is conserved


def test_relevance_of_a_frozen_model_is_conserved(llama: NeuronModel) -> None:
    """With every rule on the logit is linear in what each layer's neurons write: relevance is passed on in full."""
    facts = facts_from_templates("capital", [("France", "Paris")], ["the capital of [X] is [Y]."])
    batch = batch_of(llama, facts)
    embeddings = llama.embed(batch).requires_grad_()
    with relevance_rules(llama):
        logits = llama.logits(batch.positions, inputs_embeds=embeddings)
        (slope,) = torch.autograd.grad(logits[0, batch.answers[0]], embeddings)
    passed = float((slope * embeddings).sum().detach())
    assert passed == pytest.approx(float(logits[0, batch.answers[0]].detach()), rel=1e-6)


def test_relp_works_on_every_kind(tiny: NeuronModel, llama: NeuronModel, facts: FactSet) -> None:
    for model in (tiny, llama):
        assert score(model, facts[0], RelP()).values.isfinite().all()


def test_where_the_objective_is_linear_all_agree(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    """A causal model's last layer without its final norm is linear in its neurons: every difference is the same."""
    model = load_tiny("causal")
    stack: Any = model.model.get_submodule("transformer")
    stack.ln_f = nn.Identity()
    batch, last = batch_of(model, facts), model.n_layers - 1
    gxa = GradientXActivation("logit").score(model, batch)[:, last]
    complete = IntegratedGradients(steps=3, objective="logit").score(model, batch).values[:, last]
    run, clean = logits_by_row(model, batch), model.record(batch)[:, last]
    for neuron in range(0, model.n_neurons, 7):
        without = clean.clone()
        without[:, neuron] = 0
        assert torch.allclose(gxa[:, neuron], (run(clean, last) - run(without, last)).detach(), atol=1e-10)
    assert torch.allclose(gxa, complete, atol=1e-10)
    assert torch.allclose(gxa, Ablation(objective="logit").score(model, batch)[:, last], atol=1e-10)
