"""The swept head against the model's own logits: values, gradients, ranks, memory, and when it must not be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from architecture_cases import tokenizer
from kn_attrib import load_model
from kn_attrib.models import head as heads
from kn_attrib.models.answers import answer_of, gold_of, objective_of
from kn_attrib.models.head import Head
from kn_attrib.models.products import LIBRARIES

WORDS = 40_000
SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def llama(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.to(dtype).eval()
    nn.init.normal_(model.lm_head.weight, std=0.4)
    return model


def states_and_answers(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = 2 * torch.randn(rows, 16, generator=generator, dtype=torch.float64)
    return states.to(dtype), torch.randint(WORDS, (rows,), generator=generator)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("objective", ["prob", "logprob", "logit", "logodds"])
def test_objectives_and_gradients_are_those_of_all_logits_in_double_precision(
    dtype: torch.dtype, limit: float, objective: Any
) -> None:
    model = llama(dtype)
    head = Head(model, "causal")
    assert head.is_swept
    states, answers = states_and_answers(50, dtype)
    leaf = states.clone().requires_grad_()
    values = objective_of(head.gold(leaf, answers), objective)
    (slopes,) = torch.autograd.grad(values.sum(), leaf)
    exact = states.double().requires_grad_()
    logits = exact @ model.lm_head.weight.double().T
    expected = {
        "prob": logits.softmax(-1),
        "logprob": logits.log_softmax(-1),
        "logit": logits,
        "logodds": logits.log_softmax(-1) - torch.log1p(-logits.softmax(-1)),
    }[objective].gather(1, answers[:, None])[:, 0]
    (right,) = torch.autograd.grad(expected.sum(), exact)
    assert ((values.double() - expected) / expected).abs().max() < limit
    assert (slopes - right).norm() / right.norm() < limit


def test_ranks_and_most_likely_words_are_those_of_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "TILE_ELEMENTS", 1)
    monkeypatch.setattr(heads, "SMALLEST_TILE", 1013)
    model = llama(torch.float64)
    head = Head(model, "causal")
    states, answers = states_and_answers(30, torch.float64)
    logits = states @ model.lm_head.weight.T
    answers[:10] = logits[:10].argmax(-1)
    answers[10:20] = logits[10:20].topk(3).indices[:, 2]
    found, expected = head.answer(states, answers), answer_of(logits, answers)
    assert found.rank.tolist() == expected.rank.tolist()
    assert found.rank[:20].tolist() == [1] * 10 + [3] * 10
    assert found.top.tolist() == expected.top.tolist()
    assert torch.allclose(found.logprob, expected.logprob, atol=1e-12)


@pytest.mark.parametrize("library", ["pytorch", "onednn", "auto"])
def test_the_sweep_is_multiplied_by_the_library_that_is_asked_for(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = dict.fromkeys(LIBRARIES, 0)

    def counted(name: str) -> Any:
        multiply = LIBRARIES[name]

        def call(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            calls[name] += 1
            return multiply(inputs, weight, bias)

        return call

    monkeypatch.setattr("kn_attrib.models.products.LIBRARIES", {name: counted(name) for name in LIBRARIES})
    monkeypatch.setattr("kn_attrib.models.products.FOUND", {})
    monkeypatch.setenv("KN_ATTRIB_PRODUCTS", library)
    model = load_model((llama(), tokenizer()))
    states, answers = states_and_answers(600, torch.float32)
    leaf = states.requires_grad_()
    found = model.head.gold(leaf, answers).logodds
    (slopes,) = torch.autograd.grad(found.sum(), leaf)
    leaf = states.detach().requires_grad_()
    expected = Head(llama(), "causal").gold(leaf, answers).logodds
    (right,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slopes, right, rtol=1e-4, atol=1e-6)
    assert (calls["onednn"] > 0) == (library != "pytorch")
    # PyTorch's own is called as such, not as one of the two to choose from.
    assert (calls["pytorch"] > 0) == (library == "auto")


def test_a_callers_autocast_does_not_reach_the_sweep() -> None:
    head = Head(llama(), "causal")
    states, answers = states_and_answers(20, torch.float32)
    leaf = states.requires_grad_()
    expected = head.gold(leaf, answers).logodds
    (slopes,) = torch.autograd.grad(expected.sum(), leaf)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head.gold(leaf, answers).logodds
        (same,) = torch.autograd.grad(found.sum(), leaf)
    assert torch.equal(found, expected)
    assert torch.equal(same, slopes)


def test_a_certain_answer_keeps_its_log_odds() -> None:
    logits = torch.tensor([[30.0, 0.0, 0.0]])
    gold = gold_of(logits, torch.tensor([0]))
    assert float(gold.logodds) == pytest.approx(30 - torch.tensor(2.0).log().item(), abs=1e-5)
    assert float(gold.logprob) == pytest.approx(-2 * torch.tensor(-30.0).exp().item(), rel=1e-4)


def test_memory_is_that_of_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    add = heads.Swept.add

    def measured(self: heads.Swept, logits: torch.Tensor, *rest: Any) -> None:
        sizes.append(logits.numel())
        add(self, logits, *rest)

    monkeypatch.setattr(heads.Swept, "add", measured)
    states, answers = states_and_answers(600, torch.float32)
    Head(llama(), "causal").gold(states.requires_grad_(), answers)
    assert sum(sizes) == 600 * WORDS
    assert max(sizes) <= heads.TILE_ELEMENTS < 600 * WORDS / 20


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    head = Head(llama(), "causal")
    states, answers = states_and_answers(3, torch.float32)
    leaf = states.requires_grad_()
    (slope,) = torch.autograd.grad(head.gold(leaf, answers).logodds.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(slope.sum(), leaf)


def soft_capped() -> Any:
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=3.0))


def few_words() -> Any:
    return LlamaForCausalLM(LlamaConfig(**(SMALL | {"vocab_size": 500})))


def own_head() -> Any:
    class Doubled(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.lm_head = Doubled(16, WORDS, bias=False)
    return model


@pytest.mark.parametrize("make", [soft_capped, few_words, own_head])
def test_heads_that_do_more_than_multiply_are_left_to_the_model(make: Callable[[], Any]) -> None:
    model = make().eval()
    head = Head(model, "causal")
    assert not head.is_swept
    ids = torch.tensor([[5, 6, 7]])
    final = head.final(lambda: model(input_ids=ids), torch.tensor([2]), 3)
    assert torch.allclose(final, model(input_ids=ids).logits[:, -1], atol=1e-6)


def test_somebody_who_listens_to_the_head_hears_logits() -> None:
    model = llama()
    head = Head(model, "causal")
    heard: list[torch.Tensor] = []
    handle = model.lm_head.register_forward_hook(lambda _, __, output: heard.append(output))
    ids = torch.tensor([[5, 6, 7]])
    head.final(lambda: model(input_ids=ids), torch.tensor([2]), 3)
    assert heard[0].shape[-1] == WORDS
    handle.remove()
    assert head.final(lambda: model(input_ids=ids), torch.tensor([2]), 3).shape == (1, 16)


def test_the_head_is_as_it_was_after_an_error() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=16, n_layer=1, n_head=2)).eval()
    head = Head(model, "causal")

    def fail() -> None:
        raise KeyError("midway")

    assert head.is_swept
    with pytest.raises(KeyError, match="midway"):
        head.final(fail, torch.tensor([0]), 1)
    assert "forward" not in vars(model.lm_head)
    assert model(input_ids=torch.tensor([[1]])).logits.shape[-1] == WORDS
